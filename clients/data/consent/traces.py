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
    first, last : int
        The first and the last round that was trained on the subject.
    model : str
        Hash of the model that round ``first`` began with.
    clean : int or None
        The round after which the run's model was last without the silo's rows of the subject. None where there was no
        such round, or where the lineage of this run lacks one before it: then nobody can tell what its model was made
        of. It may be of a time before the silo kept a lineage, or of another run that this one goes on with.
    """

    run: int
    simulated: bool
    first: int
    last: int
    model: str
    clean: int | None


@dataclass(frozen=True)
class Traces:
    """What the silo's lineage has of a subject.

    Attributes
    ----------
    touched : tuple of Trace
        Runs that were trained on the subject, in the order in which the silo first trained in them.
    continued : tuple of int
        Runs that were not, but may have gone on with a model of one that was: the silo first trained in them in a
        round after the first, and a resumed run has a number of its own.
    clean : tuple of int
        Runs in which the silo trained, and never on the subject.
    unknown : tuple of int
        Runs with rounds of which nobody can tell, for the column of subjects, or the key, was another one then. Those
        of them that were trained on the subject in other rounds are under ``touched`` too.
    """

    touched: tuple[Trace, ...]
    continued: tuple[int, ...]
    clean: tuple[int, ...]
    unknown: tuple[int, ...] = ()


def traces_of(place: Place, tag: bytes, column: str) -> Traces:
    """Say in which runs a subject was, and in which it was not.

    Parameters
    ----------
    place : Place
    tag : bytes
        The keyed hash of the subject.
    column : str
        The column of the silo's rows that the subject's id is one of.

    Raises
    ------
    StoreDamaged
        If the lineage is not what was written.
    """
    runs: dict[int, list[Line]] = {}
    known: dict[str, bool] = {}
    lines = lines_of(place)
    subjects = place.subjects() if lines else None
    for line in lines:
        runs.setdefault(line.run, []).append(line)
        if line.members not in known:
            known[line.members] = holds(members_of(place, line.members), tag)
    touched: list[Trace] = []
    continued: list[int] = []
    clean: list[int] = []
    unknown: list[int] = []
    for run, lines in runs.items():
        dark = {line.round for line in lines if subjects is None or not line.tells_of(subjects, column)}
        if dark:
            unknown.append(run)
        goes_on = bool(touched) and min(line.round for line in lines) > 1
        found = [line for line in lines if line.round not in dark and known[line.members]]
        if not found and dark:
            continue
        if not found:
            (continued if goes_on else clean).append(run)
            continue
        first, last = min(found, key=lambda line: line.round), max(line.round for line in found)
        noted = {line.round for line in lines} - dark >= set(range(1, first.round))
        before = first.round - 1 if first.round > 1 and noted else None
        touched.append(Trace(run, first.simulated, first.round, last, first.model, before))
    return Traces(tuple(touched), tuple(continued), tuple(clean), tuple(unknown))
