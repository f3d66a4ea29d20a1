"""In which rounds a subject was, by the silo's own lineage, and what there is to go back to before it."""

from __future__ import annotations

from dataclasses import dataclass

from quire.clients.data.consent.lineage import Line, holds, lines_of, members_of
from quire.clients.data.consent.place import Place


@dataclass(frozen=True)
class Trace:
    """What one run has of a subject.

    Attributes
    ----------
    run : int
        Flower's number of the run.
    simulated : bool
    began : int
        The first round that the silo trained in it.
    first, last : int
        The first and the last round that was trained on the subject.
    model : str
        Hash of the model that round ``first`` began with: in this run, the last that the silo's rows of the subject
        had no part in.
    """

    run: int
    simulated: bool
    began: int
    first: int
    last: int
    model: str

    @property
    def clean(self) -> int | None:
        """The round after which the run's model was last without the subject; None where no round was before it."""
        return self.first - 1 if self.first > 1 else None


def traces_of(place: Place, tag: bytes) -> tuple[list[Trace], list[int]]:
    """Say in which runs a subject was, and in which it was not.

    Parameters
    ----------
    place : Place
    tag : bytes
        The keyed hash of the subject.

    Returns
    -------
    traces : list of Trace
        Runs that were trained on the subject, in the order in which the silo first trained in them.
    clean : list of int
        Numbers of the runs in which the silo trained, and never on the subject.

    Raises
    ------
    StoreDamaged
        If the lineage is not what was written.
    """
    runs: dict[int, list[Line]] = {}
    known: dict[str, bool] = {}
    for line in lines_of(place):
        runs.setdefault(line.run, []).append(line)
        if line.members not in known:
            known[line.members] = holds(members_of(place, line.members), tag)
    traces, clean = [], []
    for run, lines in runs.items():
        touched = [line for line in lines if known[line.members]]
        if not touched:
            clean.append(run)
            continue
        first = min(touched, key=lambda line: line.round)
        began, last = min(line.round for line in lines), max(line.round for line in touched)
        traces.append(Trace(run, first.simulated, began, first.round, last, first.model))
    return traces, clean
