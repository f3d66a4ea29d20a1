"""Tell TensorBoard or MLflow of a run, by their own libraries, as it goes on.

Read off the ``metrics.jsonl`` that the run is writing, so it serves every runtime and never disturbs the run: a tracker
that fails is left aside, and the log says why. The silos take no notice of ``tracking=``.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from quire.conf.schema import MlflowTracking, Settings, TensorboardTracking
from quire.errors import SettingsError
from quire.simulation.progress import Tail
from quire.simulation.report_data import number

LOG = logging.getLogger("quire.simulation")
RUN_FILE = "tracking.json"
_POLL = 0.5
_LIBRARIES = {"tensorboard": "tensorboard", "mlflow": "mlflow"}
_MOST_PARAMETERS = 100  # in one of MLflow's batches


class Tracker(Protocol):
    """Where a run's figures go."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Take the figures of one round."""

    def close(self, status: str) -> None:
        """Take note that the run has ended: ``completed``, ``failed``, ``interrupted`` or ``running``."""


def check_tracker(settings: Settings) -> None:
    """Refuse a tracker whose library is missing.

    Raises
    ------
    SettingsError
    """
    library = _LIBRARIES.get(settings.tracking.name)
    if library is not None and importlib.util.find_spec(library) is None:
        raise SettingsError(
            f"tracking={settings.tracking.name} needs the package {library}: pip install 'quire[tracking]'."
        )


@contextmanager
def tracking(settings: Settings, folder: Path, console: Console, skip: int = 0) -> Iterator[None]:
    """Follow a run, from before it begins until its comparison is written.

    Parameters
    ----------
    settings : Settings
    folder : pathlib.Path
        The run folder.
    console : rich.console.Console
        Is told if the tracker fails.
    skip : int
        Bytes of the journal that were tracked before: a run that is resumed.

    Raises
    ------
    SettingsError
        If the library is missing, or the tracker cannot be opened.
    """
    check_tracker(settings)
    if settings.tracking.name not in _LIBRARIES:
        yield
        return
    try:
        tracker = _open(settings, folder)
    except Exception as error:  # of somebody else's library: anything may come
        raise SettingsError(
            f"tracking={settings.tracking.name} cannot be opened ({_first_line(error)}): see to it, or leave it out."
        ) from error
    follower = _Follower(tracker, settings, folder, skip)
    try:
        yield
    finally:
        if (why := follower.stop()) is not None:
            console.print(
                f"tracking={settings.tracking.name} stopped before the run did ({why}): metrics.jsonl has it all.",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )


def _open(settings: Settings, folder: Path) -> Tracker:
    if isinstance(settings.tracking, MlflowTracking):
        return _Mlflow(settings, settings.tracking, folder)
    if isinstance(settings.tracking, TensorboardTracking):
        return _Tensorboard(settings, folder)
    raise SettingsError(f"There is no tracker '{settings.tracking.name}'.")


class _Follower:
    """Hands what a journal gains to a tracker, in a thread of its own."""

    def __init__(self, tracker: Tracker, settings: Settings, folder: Path, skip: int) -> None:
        self._tracker, self._folder = tracker, folder
        self._kept = "validation" if settings.data.validation_fraction else "test"
        self._tail = Tail(folder / "metrics.jsonl", skip)
        self._last = 0
        self._why: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="quire-tracking", daemon=True)
        self._thread.start()

    def stop(self) -> str | None:
        """Hand over the rest, with the comparison; return why the tracker failed, None if it did not."""
        self._stop.set()
        self._thread.join()
        self._drain(last=True)
        self._safely(self._finish)
        return self._why

    def _follow(self) -> None:
        while not self._stop.wait(_POLL):
            self._drain()

    def _drain(self, last: bool = False) -> None:
        for event in self._tail.read(last):
            if event.get("event") == "round" and isinstance(event.get("round"), int):
                self._last = event["round"]
                self._safely(self._tracker.log, _figures(event, self._kept), event["round"])

    def _finish(self) -> None:
        compared = _json(self._folder / "comparison.json").get("everyone")
        for way, scores in (compared if isinstance(compared, dict) else {}).items():
            if way != "alone":
                self._tracker.log(_numbers(f"everyone/{way}", scores), self._last)
        self._tracker.close(str(_json(self._folder / "run.json").get("status", "failed")))

    def _safely(self, call: Any, *args: Any) -> None:
        if self._why is not None:
            return
        try:
            call(*args)
        except Exception as error:
            LOG.warning("The tracker failed and is left aside", exc_info=True)
            self._why = _first_line(error)


def _figures(event: dict[str, Any], kept: str) -> dict[str, float]:
    """Return the figures of one round by name; those of single silos stay in the run folder."""
    figures = {
        **_numbers("train", event.get("train")),
        **_numbers(kept, event.get("evaluate")),
        **_numbers("seconds", event.get("seconds")),
        **_numbers("bytes", {"down": event.get("bytes_down"), "up": event.get("bytes_up")}),
    }
    for name in ("replied", "failed"):
        figures[f"silos/{name}"] = float(len(event.get(name) or ()))
    return figures


def _numbers(group: str, values: Any) -> dict[str, float]:
    known = {key: number(value) for key, value in values.items()} if isinstance(values, dict) else {}
    return {f"{group}/{key}": value for key, value in known.items() if value is not None}


class _Tensorboard:
    """Event files in the folder ``tensorboard`` of the run."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        import yaml
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))
        text = yaml.safe_dump(settings.as_dict(), sort_keys=False)
        self._writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, status: str) -> None:
        self._writer.add_text("status", status)
        self._writer.close()


class _Mlflow:
    """A run in MLflow's tracking store; a resumed run goes on in the one that it had."""

    def __init__(self, settings: Settings, tracking: MlflowTracking, folder: Path) -> None:
        os.environ.setdefault(
            "MLFLOW_DISABLE_TELEMETRY", "true"
        )  # before the first import: it would report to a server
        os.environ.setdefault("DO_NOT_TRACK", "true")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow.tracking import MlflowClient

        with _alone_with(tracking.uri):
            self._client = MlflowClient(tracking_uri=tracking.uri)
            before = _json(folder / RUN_FILE)
            if before.get("uri") == tracking.uri and isinstance(before.get("run"), str):
                self._run = before["run"]
                self._client.update_run(self._run, status="RUNNING")
                return
            known = self._client.get_experiment_by_name(tracking.experiment)
            experiment = known.experiment_id if known else self._client.create_experiment(tracking.experiment)
            name = "/".join(folder.absolute().parts[-2:])
            self._run = self._client.create_run(experiment, run_name=name).info.run_id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN_FILE).write_text(json.dumps({"uri": tracking.uri, "run": self._run}), encoding="utf-8")
        self._describe(settings)

    def _describe(self, settings: Settings) -> None:
        from mlflow.entities import Param, RunTag

        flat = {
            f"{group}.{key}" if key else group: value
            for group, content in settings.as_dict().items()
            for key, value in (content.items() if isinstance(content, dict) else [("", content)])
        }
        parameters = [Param(key, str(value)) for key, value in flat.items()]
        for start in range(0, len(parameters), _MOST_PARAMETERS):
            self._client.log_batch(self._run, params=parameters[start : start + _MOST_PARAMETERS])
        self._client.log_batch(self._run, tags=[RunTag("overrides", settings.overrides)])

    def log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in figures.items()])

    def close(self, status: str) -> None:
        ended = {"completed": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED")
        self._client.set_terminated(self._run, ended)


@contextmanager
def _alone_with(uri: str) -> Iterator[None]:
    """Keep others out of a local database while it is opened: it may have to be made, which two cannot do at once."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///"):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
