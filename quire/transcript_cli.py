"""``quire transcript``: the stored messages of a run's secure aggregation, audited offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from quire.verify_cli import tell

app = typer.Typer(
    name="transcript",
    help="Transcripts of secure aggregation (output.transcripts=true): audit what the server received, offline.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _group() -> None:
    """Keep the group: typer takes one of a single command for that command."""


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a run that kept transcripts.")],
    roster: Annotated[Path | None, typer.Option(help="The consortium's roster, from where you trust it.")] = None,
    pin: Annotated[str | None, typer.Option(help="The hash that the roster must have.")] = None,
    schema: Annotated[Path | None, typer.Option(help="The schema.yaml of silos that read rows of their own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Recompute every sum and every model from the stored masked vectors; ends with 1 if anything is wrong.

    \b
    quire transcript verify runs/mine
    quire transcript verify runs/mine --roster roster.json --pin 3f0c...
    """
    from quire.simulation.verify_transcripts import audit_run

    found = audit_run(folder, roster, pin, schema)
    attempts = [
        {
            "round": one.round,
            "attempt": one.attempt,
            **({"group": one.group} if one.group else {}),
            "file": one.file,
            "sha256": one.replay.sha256,
            "cohort": len(one.replay.head.cohort),
            "in_the_sum": len(one.replay.u3),
            "sum": one.replay.digest,
            "error": one.replay.error,
            "model_recomputed": one.models,
        }
        for one in found.attempts
    ]
    if as_json:
        typer.echo(
            json.dumps({"verified": not found.wrong, "attempts": attempts, "wrong": found.wrong, "notes": found.notes})
        )
        raise typer.Exit(1 if found.wrong else 0)
    for one, about in zip(found.attempts, attempts, strict=True):
        came = (
            f"sum over {about['in_the_sum']} of {about['cohort']} silos"
            if about["sum"]
            else about["error"] or "stopped"
        )
        model = ", model recomputed" if about["model_recomputed"] else ""
        typer.echo(f"{one.name}: {came}{model}  {one.file}")
    tell(found.notes, found.wrong)
    typer.echo("Verified.")
