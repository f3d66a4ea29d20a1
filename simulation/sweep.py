"""``quire run -m``: many jobs, one after the other or side by side, and the page that compares them.

What became of a job is read from its folder, never from memory, so it holds for jobs in other processes too.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from hydra.experimental.callback import Callback
from rich.console import Console
from rich.text import Text

from quire.conf.schema import Settings
from quire.errors import Interrupted, QuireError, RunFailed, SettingsError
from quire.simulation.hydra_main import call_hydra
from quire.simulation.jobs import SWEEP_VARIABLE, run_job
from quire.simulation.launch import shown_path
from quire.simulation.sweep_data import SWEEP_FILE, ended_jobs, read_jobs
from quire.simulation.sweep_plan import Plan
from quire.simulation.sweep_words import job_line

_POLL = 0.3
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_running: list[_Sweep] = []


def run_sweep(args: list[str], written: list[str], plan: Plan, settings: list[Settings]) -> int:
    """Run the jobs of a sweep and write ``sweep.html``.

    Parameters
    ----------
    args : list of str
        What Hydra is told: flags and overrides.
    written : list of str
        What the user wrote, for the record.
    plan : Plan
        Which launcher and sweeper, and what they are told besides.
    settings : list of Settings
        That together show every swept value.

    Returns
    -------
    int
        0, or the exit status of the first job that failed.

    Raises
    ------
    QuireError
        If the sweep cannot begin or go on; what was reached is on the page all the same.
    """
    sweep = _Sweep(written, plan, quiet=all(one.output.progress == "none" for one in settings))
    with _environment(), sweep:
        try:
            _search_quietly(plan)
            hooks = ["+hydra.callbacks.quire_sweep._target_=quire.simulation.sweep.SweepBegins"]
            call_hydra([*args, *plan.extra, *hooks], run_job)
        except (KeyboardInterrupt, BrokenProcessPool) as error:
            if plan.launcher == "joblib":
                _end_workers(kill=True)
            if isinstance(error, KeyboardInterrupt):
                sweep.close_abandoned("interrupted", "The sweep was interrupted.")
                raise Interrupted(f"Interrupted: what was reached is in {sweep.where}.") from None
            sweep.close_abandoned("failed", "Its process was killed, or one that ran beside it.")
            raise RunFailed(
                "A process that ran jobs was killed, perhaps for lack of memory: run fewer side by side with "
                "hydra.launcher.n_jobs=N."
            ) from None
        except ValueError as error:
            if plan.sweeper != "optuna" or "No trials are completed" not in str(error):
                raise
            sys.stderr.write("quire: Optuna found nothing, for no job was completed.\n")
        if plan.launcher == "joblib":
            _end_workers(kill=False)
    return sweep.status()


class SweepBegins(Callback):
    """Told by Hydra where the sweep's folder is, once that is known."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        """Begin the sweep that is under way in this process."""
        if _running:
            _running[-1].begin(Path(str(config.hydra.sweep.dir)))


class _Sweep:
    """The folder of a sweep: begun, followed and closed by the process that the user started."""

    def __init__(self, args: list[str], plan: Plan, quiet: bool) -> None:
        self._args, self._plan, self._quiet = args, plan, quiet
        self._folder: Path | None = None
        self._about: dict[str, Any] = {}
        self._console = Console()
        self._told: set[Path] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def where(self) -> str:
        return str(self._folder)

    def __enter__(self) -> _Sweep:
        _running.append(self)
        return self

    def begin(self, folder: Path) -> None:
        try:
            check_sweep_folder(folder)
        except SettingsError as error:  # Hydra turns errors in a callback into warnings, but for SystemExit
            sys.stderr.write(f"quire: {error}\n")
            raise SystemExit(error.exit_code) from None
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._about = {
            "status": "running",
            "started": _now(),
            "finished": None,
            "args": self._args,
            "launcher": self._plan.launcher,
            "sweeper": self._plan.sweeper,
            "planned": self._plan.jobs,
        }
        self._write()
        if self._plan.launcher != "basic":
            self._thread = threading.Thread(target=self._follow, name="quire-sweep", daemon=True)
            self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        _running.remove(self)
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._tell()
        if self._folder is None or not self._about:
            return
        interrupted = isinstance(error, Interrupted | KeyboardInterrupt) or (
            isinstance(error, SystemExit) and error.code == Interrupted.exit_code
        )
        jobs = read_jobs(self._folder)
        failed = [job for job in jobs if job.exit_status]
        ended = "interrupted" if interrupted else "failed" if failed or error is not None else "completed"
        self._about |= {"status": ended, "finished": _now()}
        self._write()
        try:
            from quire.simulation.sweep_page import write_sweep_page

            page = write_sweep_page(self._folder)
            if not self._quiet:
                self._console.print(f"Sweep: {shown_path(page)}", soft_wrap=True, highlight=False)
        except QuireError as mishap:
            sys.stderr.write(f"quire: {mishap}\n")
            if error is None:
                raise SystemExit(mishap.exit_code) from None
        if failed and not interrupted:
            sys.stderr.write(f"quire: {len(failed)} of {len(jobs)} jobs failed.\n")

    def status(self) -> int:
        failed = [job for job in read_jobs(self._folder) if job.exit_status] if self._folder is not None else []
        return failed[0].exit_status if failed else 0

    def close_abandoned(self, status: str, words: str) -> None:
        """Have the folders of jobs whose process is gone say so."""
        from quire.strategies.folder import close_abandoned

        for job in read_jobs(self._folder) if self._folder is not None else ():
            close_abandoned(job.folder, status, words)

    def _write(self) -> None:
        if self._folder is not None:
            text = json.dumps(self._about, indent=1)
            temporary = self._folder / f".{SWEEP_FILE}.{os.getpid()}"
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self._folder / SWEEP_FILE)

    def _follow(self) -> None:
        while not self._stop.wait(_POLL):
            self._tell()

    def _tell(self) -> None:
        """Say of each job that has ended in another process how it went, in one line each."""
        for job in ended_jobs(self._folder, self._told) if self._folder is not None else ():
            self._told.add(job.folder)
            if job.pid == os.getpid():
                continue
            if job.exit_status:
                sys.stderr.write(f"quire: job {job.number}: {job.error or 'it failed.'}\n")
            elif not self._quiet:
                done = f"{len(self._told)}{f'/{self._plan.jobs}' if self._plan.jobs else ''} done"
                self._console.print(Text(f"{job_line(job, self._plan.keys)}  {done}"), soft_wrap=True)


def check_sweep_folder(folder: Path) -> None:
    """Refuse a folder that holds a sweep already.

    Raises
    ------
    SettingsError
    """
    if (folder / SWEEP_FILE).exists():
        raise SettingsError(
            f"The folder '{shown_path(folder)}' already holds a sweep: choose another with hydra.sweep.dir=FOLDER."
        )


@contextmanager
def _environment() -> Iterator[None]:
    """Have worker processes do with one thread for NumPy, from their start, and know whose workers they are.

    The threads inside a silo are those of torch, and are set by ``runtime.threads``.
    """
    names = (*_THREAD_VARIABLES, SWEEP_VARIABLE)
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"), **{SWEEP_VARIABLE: str(os.getpid())})
    try:
        with warnings.catch_warnings():
            # Of workers that stop and of samplers that are experimental, nobody has to know.
            warnings.filterwarnings("ignore", module=r"joblib|optuna|hydra_plugins")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _search_quietly(plan: Plan) -> None:
    if plan.sweeper == "optuna":
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
        logging.getLogger("hydra_plugins.hydra_optuna_sweeper._impl").addFilter(_no_failures)


def _no_failures(record: logging.LogRecord) -> bool:
    """Drop what Hydra's sweeper says of a trial without a score: that job has said why in its own sentence."""
    return not str(record.msg).startswith("Failed")


def _end_workers(kill: bool) -> None:
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True, kill_workers=kill)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
