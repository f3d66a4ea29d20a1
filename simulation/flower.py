"""``runtime=flower``: a real ``flwr run`` under Flower's Simulation Runtime, driven for the user.

Settings travel, apps run and results are written exactly as when a user types ``flwr run .``: this module only starts a
SuperLink of its own, submits, watches, and tells the truth about how it ended, which Flower's exit status does not.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from quire.clients.code import code_hash
from quire.conf.schema import FlowerRuntime, Settings
from quire.errors import Interrupted, RunFailed, SettingsError
from quire.simulation.flower_app import run_config, stage
from quire.simulation.flower_daemon import CONNECTION, FlowerDaemon
from quire.simulation.inline import RunResult
from quire.simulation.processes import alive
from quire.simulation.silos import check_rows, hold_to_rows, local_silos
from quire.strategies.folder import RunFolder, close_abandoned, read_about

LOG = logging.getLogger("quire.simulation")

#: Name, in the run folder, of what Flower's processes printed; kept when something failed.
LOG_NAME = "flower.log"
_POLL = 0.25
# Seconds: until Flower starts the run's process, and until that ends after the ServerApp has.
_BEGIN_LIMIT, _END_LIMIT = 300.0, 120.0


def run_flower(settings: Settings, folder: Path, resume: bool = False) -> RunResult:
    """Run a federation under Flower's Simulation Runtime (Ray), from composed settings.

    Parameters
    ----------
    settings : Settings
        With ``runtime=flower``.
    folder : pathlib.Path
        The run folder. It must not hold a run yet, unless that is to be resumed.
    resume : bool
        Go on with the run in the folder.

    Returns
    -------
    RunResult

    Raises
    ------
    RunFailed
        If Flower did not start, the run failed, or its process was lost. The run folder then holds ``flower.log``.
    Interrupted
        On Ctrl-C, or when this process is asked to end.
    SettingsError
        If the folder cannot be used, or the settings ask for more cores than there are.
    DataError
        If the rows cannot be shared out as asked.
    """
    if not isinstance(settings.runtime, FlowerRuntime):
        raise SettingsError(f"runtime={settings.runtime.name} is not run by Flower: choose runtime=flower.")
    cores = psutil.cpu_count() or 1
    if settings.runtime.cpus_per_silo > cores:
        raise SettingsError(
            f"runtime.cpus_per_silo={settings.runtime.cpus_per_silo} is more than the {cores} cores of this machine."
        )
    silos = local_silos(settings)
    check_rows(settings, silos)  # rows that cannot be used are refused here, in words
    hold_to_rows(settings, silos, folder, resume)
    _prepare(folder, resume)
    try:
        with _Interrupts() as interrupts:
            daemon = FlowerDaemon(folder, resume)
            try:
                daemon.start()
                _run(settings, folder, daemon)
            finally:
                interrupts.deaf = True
                daemon.stop()
                _keep_log(daemon, folder)
                daemon.close()
    except KeyboardInterrupt:
        close_abandoned(folder, "interrupted", "The run was interrupted.")
        raise Interrupted(f"Interrupted: what was reached is in {folder}.") from None
    except RunFailed as error:
        close_abandoned(folder, "failed", str(error))
        raise
    about = read_about(folder)
    if about["code"] != code_hash():
        raise RunFailed(
            "Flower ran other code than this command's: it was edited meanwhile, or another 'quire' got in."
        )
    return RunResult(folder, str(about["model"]))


def _prepare(folder: Path, resume: bool) -> None:
    """Refuse a folder that cannot be used before anything is started; mark a run that is resumed as running."""
    opened = RunFolder(folder, reopen=resume)
    try:
        if resume:
            opened.resume()
    finally:
        opened.close()  # it belongs to the ServerApp now


def _run(settings: Settings, folder: Path, daemon: FlowerDaemon) -> None:
    app = stage(daemon.home / "app" / "quire")
    config = run_config(settings, daemon.home / "run.toml")
    runtime = settings.runtime
    cpus = runtime.cpus_per_silo if isinstance(runtime, FlowerRuntime) else 1
    federation = f"num-supernodes={settings.partition.silos} client-resources-num-cpus={cpus}"
    answer = daemon.call("run", str(app), CONNECTION, "--federation-config", federation, "--run-config", str(config))
    run_id = str(answer["run-id"])
    LOG.info("Flower's run %s has been submitted", run_id)
    status, details = _follow(daemon, run_id, folder)
    if not _flawless(folder):
        daemon.fetch_run_log(run_id)
    about = _about(folder)
    if about.get("status") == "failed":
        raise RunFailed(str(about.get("error") or _see_log(folder)))
    if status != "finished:completed" or about.get("status") != "completed":
        raise RunFailed(details or f"Flower says that the run is {status}; {_see_log(folder)}")


def _follow(daemon: FlowerDaemon, run_id: str, folder: Path) -> tuple[str, str]:
    """Watch a run until it has ended; return Flower's status and the sentence with which the ServerApp refused.

    The run folder and the processes are looked at often, for that is cheap. Flower is asked once they say that the run
    has ended: that takes a process of its own, and seconds.
    """
    begun = time.monotonic()
    over: float | None = None
    simulation: psutil.Process | None = None
    while True:
        time.sleep(_POLL)
        now = time.monotonic()
        if daemon.ended is not None:
            raise RunFailed(f"Flower's SuperLink ended during the run (exit status {daemon.ended}); {_see_log(folder)}")
        daemon.processes.update()
        simulation = simulation or daemon.processes.find("flwr-simulation")
        if over is None and _about(folder).get("status", "running") != "running":
            over = now
        if simulation is not None and not alive(simulation):
            # It reports before it ends, so that what Flower says now is final.
            status, details = _status(daemon, run_id)
            if status.startswith("finished"):
                return status, details
            raise RunFailed(f"Flower's process of the run was lost (killed, or out of memory?); {_see_log(folder)}")
        if simulation is None and now - begun > _BEGIN_LIMIT:
            raise RunFailed(f"Flower did not begin the run within {_BEGIN_LIMIT:.0f} seconds; {_see_log(folder)}")
        if over is not None and now - over > _END_LIMIT:
            return _status(daemon, run_id)


def _status(daemon: FlowerDaemon, run_id: str) -> tuple[str, str]:
    runs = daemon.call("ls", CONNECTION, "--run-id", run_id).get("runs", [])
    if not runs:
        raise RunFailed(f"Flower does not know of the run {run_id} any more.")
    # Flower puts words of its own before an exception's.
    return str(runs[0].get("status")), str(runs[0].get("status-details") or "").rpartition("with exception: ")[2]


def _about(folder: Path) -> dict[str, Any]:
    try:
        return read_about(folder)
    except SettingsError:  # the ServerApp has not begun
        return {}


def _see_log(folder: Path) -> str:
    return f"what its processes printed is in {folder / LOG_NAME}."


def _keep_log(daemon: FlowerDaemon, folder: Path) -> None:
    """Keep what Flower's processes printed if the run did not complete, or some silo failed in it."""
    if not _flawless(folder):
        with contextlib.suppress(OSError):
            shutil.copyfile(daemon.log, folder / LOG_NAME)


def _flawless(folder: Path) -> bool:
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        failed = any(json.loads(line).get("failed") for line in lines)
    except (OSError, ValueError):
        return False
    return not failed and _about(folder).get("status") == "completed"


class _Interrupts:
    """Lets SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, once: what follows must not disturb the cleaning up.

    Attributes
    ----------
    deaf : bool
        While true, these signals do nothing.
    """

    def __init__(self) -> None:
        self.deaf = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
                handler = signal.getsignal(number)
                if handler not in (None, signal.SIG_IGN):  # what we were told to ignore (nohup) stays ignored
                    self._before[number] = handler
                    signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self.deaf:
            self.deaf = True
            raise KeyboardInterrupt
