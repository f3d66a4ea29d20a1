"""``quire submit --resume``: a new run of Flower's that goes on in the folder of one whose process is gone.

A run's process ends with the start of the server. Its folder holds a checkpoint of every round, which is all that the
server's side needs to go on; silos hold their part by themselves, or agree on keys anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from quire.clients.code import code_hash
from quire.clients.gate.bundle import Bundle
from quire.conf.schema import Settings
from quire.consortium.charter import check_charter
from quire.consortium.layout import OperatorFolder
from quire.consortium.submit import list_runs, submit, told_of
from quire.consortium.superlink import runs_folder, tickets
from quire.consortium.tickets import ResumeError, check_can_go_on, lineage
from quire.simulation.resume import settings_of
from quire.strategies.build import silos_remember
from quire.strategies.folder import read_about

# Seconds for the SuperLink to notice that a run's process is gone, which takes it a minute.
_PATIENCE, _POLL = 120.0, 1.0


@dataclass(frozen=True)
class Resumed:
    """A run that was submitted to go on with another.

    Attributes
    ----------
    run : int
        Its number.
    before : int
        The run that it goes on with: the newest of those that share the folder.
    rounds : int
        How many are done.
    folder : pathlib.Path
    told : int
        For :func:`quire.consortium.submit.follow`.
    bundle : Bundle
        What was shipped.
    """

    run: int
    before: int
    rounds: int
    folder: Path
    told: int
    bundle: Bundle


def resume(
    folder: OperatorFolder,
    number: int,
    overrides: Sequence[str],
    say: Callable[[str], None],
    patience: float = _PATIENCE,
) -> Resumed:
    """Submit a run that goes on with another one from its last checkpoint, with the same settings.

    Parameters
    ----------
    folder : OperatorFolder
        Of a server that is up.
    number : int
        Of the run, or of any that went on with it.
    overrides : sequence of str
        May be given again; none is needed.
    say : callable
        Told when the SuperLink has to be waited for.
    patience : float
        Seconds that the SuperLink has to notice that the run's process is gone.

    Returns
    -------
    Resumed

    Raises
    ------
    ResumeError
        If there is no such run, it goes on, somebody else has asked to go on with it, it began with other code, it was
        under another charter than is in force, or its silos remember what cannot be given back to them.
    SettingsError
        If it is complete, is being written, or began with other settings.
    CharterError
        If the folder's charter does not hold.
    RegistryError
        If the SuperLink refuses, or does not answer.
    """
    runs = runs_folder(folder)
    line = lineage(runs, number)
    root, before = line[0], line[-1]
    place = runs / str(root)
    if not (place / "run.json").is_file():
        raise ResumeError(
            f"Run {number} has left nothing in {runs} that could be gone on with: `quire runs {folder.root}` lists "
            "the runs, and what never began is submitted anew."
        )
    settings = _settings(place, overrides)
    check_charter(folder, settings, before)
    _wait_for_its_end(folder, place, before, say, patience)
    asked = tickets(folder)
    with asked.asking():
        _check_alone(folder, root, lineage(runs, root)[-1])
        check_can_go_on(place)
        rounds, told = told_of(place)
        run, bundle = submit(folder, settings, asked.issue(root))
        asked.submitted(root, run)
    return Resumed(run, before, rounds, place, told, bundle)


def _settings(place: Path, overrides: Sequence[str]) -> Settings:
    """Return the settings of the run in a folder, if they are what is asked for and this installation can go on."""
    settings = settings_of(place, list(overrides))
    check_can_go_on(place)
    if read_about(place).get("code") != code_hash():
        raise ResumeError(
            f"The run in '{place}' was started with other code than is here now: it would not end with the same "
            "model; go on with the installation that it began with, or submit anew."
        )
    if (setting := silos_remember(settings)) is not None:
        raise ResumeError(
            f"{setting} has silos remember something from round to round, which cannot be given back to them: submit "
            "anew."
        )
    return settings


def _wait_for_its_end(
    folder: OperatorFolder, place: Path, run: int, say: Callable[[str], None], patience: float
) -> None:
    """Wait until the SuperLink, too, says that a run is over whose process writes nothing any more."""
    deadline, told = time.monotonic() + patience, False
    while _goes_on(folder, run):
        check_can_go_on(place)  # its process may only now have begun
        if time.monotonic() > deadline:
            raise ResumeError(f"Run {run} goes on: it can be gone on with once it has ended.")
        if not told:
            say(f"Run {run} writes nothing any more: the SuperLink takes a minute to notice that its process is gone.")
            told = True
        time.sleep(_POLL)


def _check_alone(folder: OperatorFolder, root: int, newest: int) -> None:
    """See to it that no other run goes on with this one, or is about to; nobody else submits meanwhile."""
    waiting = tickets(folder).waiting(root)
    for other in (newest, waiting):
        if other is not None and _goes_on(folder, other):
            raise ResumeError(f"Run {other} goes on with run {root} already.")


def _goes_on(folder: OperatorFolder, run: int) -> bool:
    return any(line.run == run and not line.over for line in list_runs(folder, strict=True))
