"""Run one federation on this machine and show it: progress while it runs, the comparison and the report after."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from quire.conf.schema import FlowerRuntime, Settings
from quire.errors import QuireError, SettingsError
from quire.simulation.inline import RunResult, run_inline
from quire.simulation.progress import Progress
from quire.simulation.promise import judge_anew
from quire.simulation.tracking import tracking


def launch(settings: Settings, folder: Path, console: Console | None = None, resume: bool = False) -> RunResult:
    """Run a federation, compare it with its baselines, and write its report.

    Parameters
    ----------
    settings : Settings
    folder : pathlib.Path
        The run folder; made if need be. It must not hold a run, unless that is to be resumed.
    console : rich.console.Console, optional
        Where to print; standard output by default.
    resume : bool
        Go on with the run that the folder holds, after its last checkpoint.

    Returns
    -------
    RunResult

    Raises
    ------
    QuireError
        If the run had to stop. A report of what was reached is written all the same.
    """
    console, quiet = console or Console(), settings.output.progress == "none"
    _say_where(settings, console, quiet)
    if resume:
        already = _take_up(folder, settings)
    else:
        check_folder(folder)
        already = 0
    with log_file(folder / "run.log"), tracking(settings, folder, console, skip=already):
        try:
            journal, rounds = folder / "metrics.jsonl", settings.rounds
            with Progress(journal, rounds, settings.output.progress, console, skip=already):
                result = run_at_door(settings, folder, resume)
        except QuireError:
            if (folder / "run.json").exists():
                _report(settings, folder, console, quiet)
            raise
        if settings.selftest:
            console.print(judge_anew(folder).verdict(), markup=False, soft_wrap=True)
            return result
        if settings.output.baselines or settings.data.validation_fraction:  # else the rounds told the test scores
            _compare(settings, folder, console, quiet)
        _tell_of_attack(settings, folder, console)
        _report(settings, folder, console, quiet)
    return result


def _say_where(settings: Settings, console: Console, quiet: bool) -> None:
    """Refuse a device that is not there before anything is started, and say what was found where one was asked for."""
    if getattr(settings.runtime, "device", "cpu") == "cpu":
        return
    from quire.clients.device import choose

    found = choose(settings).words()
    if not quiet:
        console.print(f"Silos train on {found}.", markup=False, highlight=False, soft_wrap=True)


def check_folder(folder: Path) -> None:
    """Refuse a run folder that holds a run already or that cannot be written, before anything is started.

    Raises
    ------
    SettingsError
    """
    if (folder / "run.json").exists():
        raise SettingsError(
            f"The folder '{shown_path(folder)}' already holds a run: choose another with hydra.run.dir=FOLDER."
        )
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise SettingsError(
            f"The folder '{shown_path(folder)}' cannot be written: choose another with hydra.run.dir=FOLDER."
        )


def _take_up(folder: Path, settings: Settings) -> int:
    """Cut an unfinished run back to its last checkpoint; return the bytes of its journal that stay.

    Whatever may refuse it comes first: a run that cannot go on is left as it was.
    """
    from quire.clients.code import code_hash
    from quire.simulation.silos import hold_to_rows, local_silos
    from quire.strategies.folder import RunFolder

    hold_to_rows(settings, local_silos(settings), folder, resume=True)
    unfinished = RunFolder(folder, reopen=True)
    try:
        unfinished.check_same(settings, settings, code_hash())
        unfinished.resume()
    finally:
        unfinished.close()
    return (folder / "metrics.jsonl").stat().st_size


def run_at_door(settings: Settings, folder: Path, resume: bool = False) -> RunResult:
    """Run a federation through the door that the settings name, and nothing beside it."""
    if isinstance(settings.runtime, FlowerRuntime):
        from quire.simulation.flower import run_flower

        return run_flower(settings, folder, resume)
    return run_inline(settings, folder, resume)


def _compare(settings: Settings, folder: Path, console: Console, quiet: bool) -> None:
    from quire.simulation.baselines import compare

    if quiet:
        compare(settings, folder)
        return
    with console.status("Training models for comparison") as status:
        compare(settings, folder, lambda name: status.update(f"Training for comparison: {name}"))


def _tell_of_attack(settings: Settings, folder: Path, console: Console) -> None:
    from quire.simulation.poisoning.outcome import write_outcome

    found = write_outcome(settings, folder)
    if found is not None:
        words = f"This run was attacked on purpose (attack={found['attack']}): its model is no result."
        success = f" Attack success {100 * found['success']:.1f} %." if "success" in found else ""
        console.print(words + success, markup=False, highlight=False, soft_wrap=True)


def _report(settings: Settings, folder: Path, console: Console, quiet: bool) -> None:
    if not settings.output.report:
        return
    from quire.simulation.report import write_report

    page = write_report(folder)
    if not quiet:
        console.print(f"Report: {shown_path(page)}", soft_wrap=True, highlight=False)


def shown_path(path: Path) -> str:
    """Show a path as the user would type it: relative where it lies below the working directory."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Send what Quire logs to the run folder, not to the console."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("quire")
    before = (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        handler.close()
