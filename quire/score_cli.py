"""``quire silo score``: how good is a finished model on this silo's own rows? Nothing of the answer travels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def score(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of the run, from the operator.")],
    silo: Annotated[Path, typer.Option("--silo", help="The silo's own file.")] = Path("silo.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score the model of a run on the test rows of this silo, which it never trained on under the run's settings.

    The folder needs the files run.json, settings.yaml and model.safetensors. Nothing is written or sent, no budget is
    charged. The scores are exact: whoever passes them on tells of these rows what no ledger counts.

    \b
    quire silo score runs/mine --silo clinic/silo.yaml
    """
    found = _scored(folder, silo)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{found['silo']}: {found['tested']} test rows of {found['rows']}")
    for name, value in found["scores"].items():
        typer.echo(f"{name.replace('_', ' '):18} {value:.4f}")


def _scored(folder: Path, file: Path) -> dict[str, Any]:
    from quire.clients.arrays import fingerprint
    from quire.clients.data.silo_file import read_silo
    from quire.clients.tasks.moments import MEAN, SCALE, Statistics
    from quire.clients.training import WrongModel
    from quire.clients.work import score_at_home
    from quire.conf.compose import compose
    from quire.conf.schema import FilesData
    from quire.errors import SettingsError
    from quire.simulation.personal import final_model
    from quire.strategies.folder import read_about, read_overrides

    about = read_about(folder)
    if not about.get("model"):
        raise SettingsError(f"The run in '{folder}' has no model yet: its status is '{about.get('status')}'.")
    settings = compose(read_overrides(folder))
    if not isinstance(settings.data, FilesData):
        raise SettingsError(f"The run in '{folder}' had data={settings.data.name}, not a silo's own rows (data=files).")
    own = read_silo(file)
    if own.name is None:
        raise SettingsError(f"{file} has no 'name', which decides which rows are kept for testing.")
    held = about.get("held_to") or {}
    if held.get("schema") not in (None, own.schema.sha256):
        raise SettingsError(f"The run in '{folder}' had another schema than {own.schema_path}.")
    model = final_model(folder)
    if fingerprint(model) != about["model"]:
        raise SettingsError(f"'{folder / 'model.safetensors'}' is not the model that run.json names: ask for it anew.")
    told = held.get("statistics")
    statistics = None if told is None else Statistics(tuple(told[MEAN]), tuple(told[SCALE]))
    try:
        scores, tested, rows = score_at_home(settings, own, own.name, model, statistics)
    except WrongModel as error:
        raise SettingsError(f"'{folder / 'model.safetensors'}' does not fit its settings: {error}.") from error
    return {"silo": own.name, "tested": tested, "rows": rows, "scores": scores}
