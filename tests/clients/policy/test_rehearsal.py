"""A simulation over a silo's own rows charges no ledger, so a policy lets it in only where its operator says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from real_silo import MODEL, RealSilo, code_of, merged, opened_files
from typer.testing import CliRunner

from quire.cli import app as command
from quire.clients.arrays import encode
from quire.clients.client_app import SILO_KEY, app
from quire.clients.data.silo_file import SCHEMA_FILE, SILOS_VARIABLE
from quire.clients.simulation import simulated
from quire.conf.compose import compose
from quire.errors import DataError
from quire.simulation.grid import server_identity
from quire.simulation.silos import local_silos

SENTENCE = "has a policy, and a simulation would read its rows without charging their ledger: add 'rehearsal: true'"


@pytest.fixture
def silo(tmp_path: Path) -> RealSilo:
    return RealSilo(tmp_path)


def _simulate(silo: RealSilo, stage: str) -> str:
    records = {"arrays": encode(MODEL), "config": ConfigRecord({"server-round": 1})}
    node = {SILO_KEY: str(silo.folder / "silo.yaml"), "partition-id": 0, "num-partitions": 4}
    context = Context(5, 10, node, RecordDict(), {"overrides": merged("")})
    with server_identity(5), simulated():
        message = Message(RecordDict(records), 10, stage)
        message.metadata.__dict__["_message_id"] = "m"
        return code_of(app(message, context))


@pytest.mark.parametrize("stage", ["query", "train", "evaluate"])
def test_a_simulated_silo_with_a_policy_keeps_its_rows_closed(
    silo: RealSilo, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened_files() as files:
        assert _simulate(silo, stage) == "POLICY_REFUSED"
    assert str(silo.csv) not in files
    assert "policy.rehearsal (silo.yaml, its default) is false" in caplog.text
    silo.write(rehearsal="true")
    assert _simulate(silo, stage) == "ANSWERED"
    assert not silo.store.exists()


def test_a_policy_that_lets_rehearsals_in_gives_a_deployment_nothing(silo: RealSilo) -> None:
    silo.write(rehearsal="true", epsilon=1.0)
    assert silo.refused() == "BUDGET_REFUSED"


def _folder(silo: RealSilo) -> Path:
    folder = silo.folder / "silos"
    folder.mkdir()
    (folder / SCHEMA_FILE).write_text((silo.folder / "schema.yaml").read_text())
    for number in range(1, 5):
        text = (silo.folder / "silo.yaml").read_text().replace("clinic-1", f"clinic-{number}")
        (folder / f"{number}.yaml").write_text(text.replace("rows.csv", "../rows.csv"))
    return folder


def test_the_launcher_says_so_before_anything_is_read(silo: RealSilo) -> None:
    settings = compose(merged(""))
    with opened_files() as files, pytest.raises(DataError, match=SENTENCE):
        local_silos(settings, _folder(silo))
    assert not [name for name in files if name.endswith(".csv")]


@pytest.mark.parametrize("runtime", ["inline", "flower"])
def test_quire_run_ends_with_one_sentence(silo: RealSilo, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (SILOS_VARIABLE, "QUIRE_SCHEMA"):
        monkeypatch.setenv(variable, "")
    folder = _folder(silo)
    asked = [*merged("").split(), f"runtime={runtime}", f"silos={folder}", f"hydra.run.dir={silo.folder / 'run'}"]
    with opened_files() as files:
        done: Any = CliRunner().invoke(command, ["run", *asked])
    said = f"{done.output} {done.exception}"
    assert done.exit_code != 0
    assert SENTENCE in " ".join(said.split()), said
    assert not [name for name in files if name.endswith(".csv")]
