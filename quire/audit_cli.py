"""``quire audit``: canaries through the private code of one's own task and settings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quire.findings_cli import check_file, write_file

if TYPE_CHECKING:
    from rich.table import Table

    from quire.simulation.audit_findings import Audit


def audit(
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings as key=value, as for quire run.")] = None,
    canaries: Annotated[int, typer.Option(help="Canaries on each path, 100 to 1,000,000.")] = 10_000,
    seeds: Annotated[int, typer.Option(help="Repetitions with other coins and other noise.")] = 1,
    releases: Annotated[
        int | None, typer.Option(help="Releases of the canaries' sum; by default as many as audit best, at most 64.")
    ] = None,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="Audit whole runs with their sampling instead; has little power.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the findings there.")] = None,
) -> None:
    """Try to refute the epsilon of a private run: a lower bound from canaries, beside what is claimed.

    Canaries go through the code that clips, adds up and adds noise. Ends with 1 if they show a larger epsilon than is
    claimed for the same releases. That they do not is no proof: docs/auditing.md.

    \b
    quire audit partition=iid privacy=record privacy.epsilon=2
    quire audit aggregation=secure privacy=record_distributed privacy.epsilon=4
    quire audit task=tabular silos=FOLDER privacy=record --seeds 5 --json audit.json
    """
    from rich.console import Console

    from quire.conf.compose import compose
    from quire.simulation.audit import audit as look
    from quire.simulation.audit_findings import Refuted
    from quire.simulation.silos import take_silos

    check_file(json_file)
    settings = compose(" ".join(take_silos(overrides or [])))
    console = Console(soft_wrap=False, highlight=False)
    with console.status("Auditing") as status:
        found = look(settings, canaries, seeds, releases, sampled, lambda words: status.update(f"Auditing: {words}"))
    write_file(json_file, found.as_dict())
    plan = found.audited.plan
    noise = "discrete" if plan.discrete else "gaussian"
    if settings.aggregation.name == "secure" and settings.privacy.name.endswith("_distributed"):
        noise += ", in the shares that no colluder and no observer knows"
    plugin = f" '{settings.task.plugin}'" if settings.task.name == "plugin" else ""
    console.print(
        f"Audit of {settings.task.name}{plugin}, privacy={settings.privacy.name}: noise of {plan.noise_multiplier:g} "
        f"times the clip {plan.clip:g} ({noise}), as at {found.audited.silo}; delta "
        f"{plan.delta:g}. All bounds hold together with {found.confidence:.0%} confidence.",
        markup=False,
    )
    console.print(_table(found))
    for finding in found.findings:
        if finding.seed == 0 and finding.strength < 1:
            console.print(
                f"On the path '{finding.path}' the longest canary found is {finding.strength:.2g} clips long, which is "
                "not the worst case: its bound is low for that reason too.",
                markup=False,
            )
    if found.refuted:
        raise Refuted(found.verdict())
    console.print(found.verdict(), markup=False)


def _table(found: Audit) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
    widths = {"path": 6, "canaries": 8, "releases": 8, "claimed epsilon": 7, "at least (any noise)": 8}
    for name, width in {**widths, "could show": 5, "at least (Gaussian)": 10, "refuted": 7}.items():
        table.add_column(name, min_width=width)  # so narrow that a terminal of 80 columns cuts no word
    for name in dict.fromkeys(finding.path for finding in found.findings):
        seeds = [finding for finding in found.findings if finding.path == name]
        first = seeds[0]
        normal = [finding.gaussian.epsilon for finding in seeds if finding.gaussian is not None]
        sampling = f" at rate {first.rate:.3g}" if first.rate < 1 else ""
        table.add_row(
            name,
            str(first.one_run.canaries),
            f"{first.releases}{sampling}",
            _number(first.claim),
            _number(max(finding.one_run.epsilon for finding in seeds)),
            _number(first.one_run.highest),
            _number(max(normal)) if normal else "-",
            f"{sum(finding.refuted for finding in seeds)} of {len(seeds)}",
        )
    return table


def _number(epsilon: float) -> str:
    return "infinite" if math.isinf(epsilon) else f"{epsilon:.2f}"
