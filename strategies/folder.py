"""The run folder: everything a run leaves behind, each piece safe against a kill at any moment.

``run.json`` and the checkpoint are replaced atomically; ``metrics.jsonl`` only grows, a line at a time. A power cut is
another matter: against it a checkpoint is forced to the disk, but at most once a second, for rounds of a simulation may
take less time than that; the last one so forced stays beside the newest.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import quire
from quire.clients.arrays import fingerprint
from quire.conf.schema import Settings
from quire.errors import SettingsError
from quire.strategies.rounds import RoundState
from quire.strategies.strategy import RoundReport

_SECONDS_BETWEEN_SYNCS = 1.0

LOG = logging.getLogger("quire.strategies")


class RunFolder:
    """Writes one run's folder.

    Parameters
    ----------
    path : pathlib.Path
        Made if it does not exist. A folder that already holds a run is refused, so that none is overwritten.

    Raises
    ------
    SettingsError
        If the folder cannot be made or written, or already holds a run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if (path / "run.json").exists():
                raise SettingsError(
                    f"The folder '{path}' already holds a run: choose another with hydra.run.dir=FOLDER."
                )
            (path / "metrics.jsonl").open("a").close()
        except OSError as error:
            raise SettingsError(
                f"The folder '{path}' cannot be written ({error.strerror}): choose another with hydra.run.dir=FOLDER."
            ) from error
        self._about: dict[str, Any] = {}
        self._state: RoundState | None = None
        self._started = self._synced = time.perf_counter()
        self._synced_checkpoint = ""

    def begin(self, settings: Settings, runtime: str, code_hash: str) -> None:
        """Write the settings and mark the run as running."""
        import yaml

        tree = {**settings.as_dict(), "overrides": settings.overrides}
        _replace(self.path / "settings.yaml", yaml.safe_dump(tree, sort_keys=False).encode())
        self._about = {
            "status": "running",
            "error": None,
            "started": _now(),
            "finished": None,
            "runtime": runtime,
            "rounds": 0,
            "model": None,
            "code": code_hash,
            "versions": {
                "quire": quire.__version__,
                **{name: version(name) for name in ("flwr", "torch", "numpy")},
                "python": platform.python_version(),
            },
        }
        self._write_about()

    def started(self, settings: Settings, silos: list[str], state: RoundState) -> None:
        """Journal that the rounds begin, and keep the first model."""
        self._state = state
        self._line(
            {
                "event": "start",
                "rounds": settings.strategy.rounds,
                "silos": silos,
                "strategy": settings.strategy.name,
                "task": settings.task.name,
                "parameters": sum(array.size for array in state.model.values()),
            }
        )

    def round_done(self, report: RoundReport, state: RoundState) -> None:
        """Checkpoint the state, then journal the round: a journalled round can always be resumed from."""
        self._state = state
        model_hash = fingerprint(state.model)
        self._checkpoint(state, model_hash)
        line = asdict(report)
        line["train"] = {name.removeprefix("train-").replace("-", "_"): value for name, value in report.train.items()}
        self._line({"event": "round", **line, "model": model_hash})
        self._about.update(rounds=state.round, model=model_hash)
        scores = "".join(f", {name} {value:.4f}" for name, value in (report.evaluate or {}).items())
        LOG.info("Round %d: %d of %d silos replied%s", report.round, len(report.replied), len(report.cohort), scores)
        for failure in report.failed:
            LOG.warning("Round %d: %s failed in %s: %s", report.round, failure.silo, failure.stage, failure.words)

    def finish(self, status: str, error: str | None = None) -> None:
        """Write the last model and how the run ended."""
        if self._state is not None:
            self._save_model(self._state)
            self._about["model"] = fingerprint(self._state.model)
        self._about.update(status=status, error=error, finished=_now())
        end = {"status": status, "rounds": self._about.get("rounds", 0), "model": self._about.get("model")}
        if error is not None:
            end["error"] = error
        self._line({"event": "end", **end, "seconds": time.perf_counter() - self._started})
        self._write_about()

    def _save_model(self, state: RoundState) -> None:
        _replace(self.path / "model.safetensors", _safetensors(state.model))

    def _checkpoint(self, state: RoundState, model_hash: str) -> None:
        folder = self.path / "checkpoint"
        folder.mkdir(exist_ok=True)
        name = f"round-{state.round:05d}.safetensors"
        memory = {f"memory/{key}": array for key, array in state.memory.items()}
        model = {f"model/{key}": array for key, array in state.model.items()}
        latest = {"round": state.round, "file": name, "model": model_hash}
        sync = time.perf_counter() - self._synced >= _SECONDS_BETWEEN_SYNCS
        _replace(folder / name, _safetensors({**model, **memory}), sync)
        _replace(folder / "latest.json", json.dumps(latest).encode(), sync)
        if sync:
            self._synced, self._synced_checkpoint = time.perf_counter(), name
        for old in folder.glob("round-*.safetensors"):
            if old.name not in (name, self._synced_checkpoint):
                old.unlink()

    def _line(self, event: Mapping[str, Any]) -> None:
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(event, allow_nan=False) + "\n")

    def _write_about(self) -> None:
        _replace(self.path / "run.json", json.dumps(self._about, indent=2).encode())


def _safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def _replace(path: Path, content: bytes, sync: bool = True) -> None:
    """Write a file so that a reader, or a kill, finds the old content or the new, never a part.

    With ``sync`` the same holds after a power cut.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_about(path: Path) -> dict[str, Any]:
    """Read ``run.json`` of a run folder.

    Raises
    ------
    SettingsError
        If the folder holds no run.
    """
    try:
        about = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"'{path}' is not the folder of a run: it holds no readable run.json.") from error
    return dict(about)


def close_abandoned(path: Path, status: str, error: str) -> None:
    """Write how a run ended whose own process can no longer say so, and keep the last model that it checkpointed.

    Does nothing to a folder whose run has ended, or never began.

    Parameters
    ----------
    path : pathlib.Path
        The run folder.
    status : {"failed", "interrupted"}
    error : str
        One sentence.
    """
    try:
        about = read_about(path)
    except SettingsError:
        return
    if about.get("status") != "running":
        return
    try:
        latest = json.loads((path / "checkpoint" / "latest.json").read_text(encoding="utf-8"))
        arrays = _read_safetensors(path / "checkpoint" / latest["file"])
    except (OSError, ValueError, KeyError):
        latest, arrays = {"round": 0, "model": None}, {}
    if arrays:
        model = {name.removeprefix("model/"): part for name, part in arrays.items() if name.startswith("model/")}
        _replace(path / "model.safetensors", _safetensors(model))
    about.update(status=status, error=error, finished=_now(), rounds=latest["round"], model=latest["model"])
    end = {"event": "end", "status": status, "rounds": about["rounds"], "model": about["model"], "error": error}
    seconds = datetime.fromisoformat(about["finished"]) - datetime.fromisoformat(about["started"])
    journal = path / "metrics.jsonl"
    torn = journal.exists() and journal.read_bytes()[-1:] not in (b"", b"\n")
    with journal.open("a", encoding="utf-8") as file:
        file.write("\n" * torn + json.dumps({**end, "seconds": seconds.total_seconds()}) + "\n")
    _replace(path / "run.json", json.dumps(about, indent=2).encode())


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load

    return dict(load(path.read_bytes()))


def read_overrides(path: Path) -> str:
    """Read from ``settings.yaml`` the overrides that a run was started with.

    Raises
    ------
    SettingsError
        If the folder holds no readable settings.
    """
    import yaml

    try:
        return str(yaml.safe_load((path / "settings.yaml").read_text(encoding="utf-8"))["overrides"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise SettingsError(f"'{path}' is not the folder of a run: it holds no readable settings.yaml.") from error
