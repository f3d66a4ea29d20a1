"""``quire report``: the page of a run again, and documents for a data protection officer and an auditor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from quire.reports.document import Document
    from quire.reports.inputs import Inputs
    from quire.reports.silo import Silo

_PAGE = "page"


class _PageByDefault(TyperGroup):
    """A group of commands in which anything that is none of them is a folder, whose page is written."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx):
            args = [_PAGE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="report",
    cls=_PageByDefault,
    help="Write the page of a run again (`quire report FOLDER`), or a document: dpia, audit. A folder that is "
    "called as a command is reached as ./dpia.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Roster = Annotated[Path | None, typer.Option(help="The consortium's roster, from where you trust it.")]
Pin = Annotated[str | None, typer.Option(help="The hash that the roster must have.")]
Charter = Annotated[
    Path | None, typer.Option(help="The folder of the charter's versions, or the file of the only one.")
]
SiloFile = Annotated[
    Path | None, typer.Option(help="A silo's own file, silo.yaml: the document then holds the silo's own books.")
]
Out = Annotated[Path | None, typer.Option(help="Where it goes, .html or .md; by default into the folder of the run.")]
Date = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="The day that it bears; today, UTC, by default.")]


@app.command()
def page(folder: Annotated[Path, typer.Argument(help="The folder of a run, or of a sweep.")]) -> None:
    """Write report.html of a run again, for example after `flwr run`, training the baselines if they are missing.

    Of a sweep, write sweep.html again.

    \b
    quire report runs/mine
    """
    if (folder / "sweep.json").exists():
        from quire.simulation.sweep_page import write_sweep_page

        typer.echo(f"Sweep: {write_sweep_page(folder)}")
        return
    from quire.conf.compose import compose
    from quire.errors import SettingsError
    from quire.simulation.baselines import compare
    from quire.simulation.report import write_report
    from quire.simulation.silos import rows_at_hand
    from quire.strategies.folder import read_about, read_overrides

    about = read_about(folder)
    if about.get("selftest"):
        raise SettingsError(
            f"'{folder}' holds a self-test of the noise, which learned nothing: see `quire selftest noise --judge`."
        )
    if (
        about["runtime"] != "deployment"
        and about["status"] == "completed"
        and not (folder / "comparison.json").exists()
    ):
        settings = compose(read_overrides(folder))
        if settings.output.baselines and rows_at_hand(settings):
            compare(settings, folder)
    typer.echo(f"Report: {write_report(folder)}")


@app.command()
def dpia(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="The folder of a run.")] = None,
    charter: Charter = None,
    silo: SiloFile = None,
    roster: Roster = None,
    pin: Pin = None,
    details: Annotated[Path | None, typer.Option(help="YAML with what only people can answer.")] = None,
    schema: Annotated[Path | None, typer.Option(help="The agreed form of the rows, schema.yaml.")] = None,
    out: Out = None,
    date: Date = None,
    example_details: Annotated[
        bool, typer.Option("--example-details", help="Print a file for --details in which nothing is answered yet.")
    ] = False,
) -> None:
    """Write a data protection impact assessment and record of processing, filled from what a run left behind.

    What is not known is marked as a gap. Each statement names its source and how far it was verified. Ends with 1 if
    something does not verify; the document is written all the same, and says so.

    \b
    quire report dpia runs/mine --roster roster.json --charter charter/ --details answers.yaml --out dpia.html
    quire report dpia --example-details > answers.yaml
    """
    from quire.reports.details import Details, example, read_details
    from quire.reports.dpia import dpia as made
    from quire.reports.errors import ReportInput
    from quire.reports.inputs import Inputs
    from quire.reports.run import read_run
    from quire.reports.values import counted

    if example_details:
        typer.echo(example(), nl=False)
        return
    if run is None:
        raise ReportInput("Name the folder of a run: quire report dpia RUN.")
    target, day = _target(out, run, "dpia.html", silo), _day(date)
    inputs = Inputs()
    own = _silo(silo, inputs)
    answers = Details()
    if details is not None:
        answers = read_details(details)
        inputs.look(details, f"details: {details.name}", 2**20)
    found = read_run(run, _keys(roster, pin, charter, own), inputs)
    document = made(found, own, answers, schema, inputs, day)
    _write(target, document, own is not None)
    _end(target, document, counted(len(document.gaps), "gap"))


@app.command()
def audit(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, or folders that hold some.")],
    charter: Charter = None,
    silo: SiloFile = None,
    roster: Roster = None,
    pin: Pin = None,
    attestation: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="An attestation of erasure; may be repeated.")
    ] = None,
    out: Out = None,
    date: Date = None,
) -> None:
    """Write a report for an auditor: each check with its result, what could not be checked, keys, rounds, epsilon.

    Ends with 0 if nothing failed to verify, with 1 if something did; the document is written either way.

    \b
    quire report audit runs/mine --roster roster.json --pin 3f0c... --charter charter/ --out audit.html
    quire report audit runs/ --attestation erasure.json --out audit.md
    """
    from quire.reports.audit import audit as made
    from quire.reports.audit import runs_in
    from quire.reports.inputs import Inputs
    from quire.reports.run import read_run
    from quire.reports.values import counted

    target, day = _target(out, runs[0], "audit.html", silo), _day(date)
    inputs = Inputs()
    own = _silo(silo, inputs)
    keys, folders = _keys(roster, pin, charter, own), runs_in(runs)
    many = len(folders) > 1
    found = [
        read_run(folder, keys, inputs, f"{place}. {folder.absolute().name}/" if many else "")
        for place, folder in enumerate(folders, 1)
    ]
    document = made(found, own, attestation or [], inputs, day)
    _write(target, document, own is not None)
    _end(target, document, counted(len(found), "run"))


def _silo(path: Path | None, inputs: Inputs) -> Silo | None:
    if path is None:
        return None
    from quire.reports.silo import read_own

    return read_own(path, inputs)


def _keys(roster: Path | None, pin: str | None, charter: Path | None, silo: Silo | None) -> Any:
    """Return what signatures are held against; what is not named, the silo has pinned, if it is given."""
    from quire.reports.checks import Keys
    from quire.reports.errors import ReportInput

    if pin is not None and not (len(pin) == 64 and all(letter in "0123456789abcdef" for letter in pin)):
        raise ReportInput("--pin is the hash of a roster: 64 hexadecimal digits in lower case (`quire roster show`).")
    for path, option in ((roster, "--roster"), (charter, "--charter")):
        if path is not None and not path.exists():
            raise ReportInput(f"There is no '{path}', which {option} names.")
    if silo is not None:
        pinned, agreed = silo.operator.roster, silo.operator.charter
        if roster is None and pin is None and pinned is not None and pinned.file.is_file():
            roster, pin = pinned.file, pinned.sha256
        if charter is None and agreed is not None and agreed.file.exists():
            charter = agreed.file
    return Keys(roster, pin, charter)


def _target(out: Path | None, run: Path, name: str, silo: Path | None) -> Path:
    from quire.reports.errors import ReportInput

    if out is None and silo is not None:
        raise ReportInput("With --silo the document holds the silo's own books: say with --out where it goes.")
    target = run / name if out is None else out
    if target.suffix not in (".html", ".md"):
        raise ReportInput(f"--out names a page or a text: '{target}' has to end in .html or .md.")
    if out is not None and not target.parent.is_dir():
        raise ReportInput(f"There is no folder '{target.parent}' for --out.")
    return target


def _day(date: str | None) -> str:
    from datetime import UTC, datetime

    from quire.reports.errors import ReportInput

    if date is None:
        return f"{datetime.now(UTC):%Y-%m-%d}"
    try:
        return f"{datetime.strptime(date, '%Y-%m-%d'):%Y-%m-%d}"
    except ValueError:
        raise ReportInput(f"--date is a day such as 2027-01-31, and '{date[:40]}' is none.") from None


def _write(target: Path, document: Document, own: bool) -> None:
    """Write the document, whole or not at all; one with a silo's own books for its owner's eyes alone."""
    from quire.clients.identity import files
    from quire.clients.store import files as private
    from quire.reports.markdown import markdown
    from quire.reports.page import page as as_page

    text = markdown(document) if target.suffix == ".md" else as_page(document)
    (private if own else files).replace(target, text.encode("utf-8", "replace"))


def _end(target: Path, document: Document, words: str) -> None:
    typer.echo(f"{document.kind}: {target} ({words})")
    if document.failed:
        typer.echo("Something does not verify: the document says what.", err=True)
        raise typer.Exit(1)
