"""Checkpoints: where a run can go on from, whole or not at all.

``checkpoint/latest.json`` names the newest state, its hash, and the journal's line of that round. It is replaced after
the state it names has been written, so a kill at any moment leaves the last checkpoint or the new one. About once a
second a checkpoint is forced to the disk as well, in a thread beside the rounds, and then named by ``synced.json``:
that one outlives a power cut.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quire.errors import RunFailed
from quire.strategies.rounds import Arrays, RoundState

LOG = logging.getLogger("quire.strategies")

_SECONDS_BETWEEN_SYNCS = 1.0
_LATEST, _SYNCED = "latest.json", "synced.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a run needs to go on.

    Attributes
    ----------
    state : RoundState
    line : dict
        The journal's line of the state's round.
    silos : dict of str to numpy.ndarray, or None
        What simulated silos remember; None where the runtime cannot tell.
    """

    state: RoundState
    line: dict[str, Any]
    silos: Arrays | None = field(default=None)


class Checkpoints:
    """Writes and reads the checkpoints of one run.

    Parameters
    ----------
    folder : pathlib.Path
        ``checkpoint/`` in the run folder; made with the first checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sync: _Sync | None = None
        self._began, self._synced_name = time.perf_counter(), ""
        self._old: set[str] | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint. It outlives a kill; once a second one is forced to the disk, to outlive a power cut.

        Raises
        ------
        OSError
            If it cannot be written, or the one before could not be forced to the disk.
        """
        self._folder.mkdir(exist_ok=True)
        state, name = checkpoint.state, f"round-{checkpoint.state.round:05d}.safetensors"
        content = safetensors(
            {
                **{f"model/{key}": array for key, array in state.model.items()},
                **{f"memory/{key}": array for key, array in state.memory.items()},
                **{f"silo/{key}": array for key, array in (checkpoint.silos or {}).items()},
            }
        )
        latest = {
            "round": state.round,
            "file": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "model": checkpoint.line["model"],
            "order": list(state.model),  # safetensors sorts names; the model's own order is how it travels
            "silos": checkpoint.silos is not None,
            "line": checkpoint.line,
        }
        named = json.dumps(latest, allow_nan=False).encode()
        replace(self._folder / name, content, sync=False)
        replace(self._folder / _LATEST, named, sync=False)
        self._force(name, named)
        self._remove_old(name)

    def close(self) -> None:
        """Wait for what is being forced to the disk; that it could not be is for the log, as nothing comes after it."""
        try:
            self._settle()
        except OSError as error:
            LOG.error("The last checkpoints may not outlive a power cut: %s", error)

    def _settle(self) -> None:
        sync, self._sync = self._sync, None
        if sync is not None:
            self._synced_name = sync.done()

    def _force(self, name: str, named: bytes) -> None:
        """Begin to force this checkpoint to the disk, if it is time to and none is on its way."""
        if self._sync is not None and not self._sync.is_alive():
            self._settle()
        if self._sync is None and time.perf_counter() - self._began >= _SECONDS_BETWEEN_SYNCS:
            self._began, self._sync = time.perf_counter(), _Sync(self._folder, name, named)
            self._sync.start()

    def _remove_old(self, name: str) -> None:
        if self._old is None:  # what an earlier process of the same run has left; of that, what is named stays
            self._old = {path.name for path in self._folder.glob("round-*.safetensors")}
            self._synced_name = self._synced_name or self._named_before()
        self._old.add(name)
        kept = {name, self._synced_name, self._sync.name_of_state if self._sync is not None else ""}
        for old in self._old - kept:
            (self._folder / old).unlink(missing_ok=True)
        self._old &= kept

    def _named_before(self) -> str:
        try:
            return str(json.loads((self._folder / _SYNCED).read_text(encoding="utf-8"))["file"])
        except (OSError, ValueError, KeyError, TypeError):  # there is none, or a damaged one, which names nothing
            return ""

    def load(self) -> Checkpoint | None:
        """Read the newest checkpoint; None if the run had not come to its first.

        Where that is damaged, as a power cut may leave it, the last one that was forced to the disk serves instead.

        Raises
        ------
        RunFailed
            If both are damaged or missing: a truncated or an altered file.
        """
        if not any((self._folder / name).exists() for name in (_LATEST, _SYNCED)):
            return None
        try:
            return self._read(_LATEST)
        except RunFailed:
            if not (self._folder / _SYNCED).exists():
                raise
            return self._read(_SYNCED)

    def _read(self, name: str) -> Checkpoint:
        try:
            latest = json.loads((self._folder / name).read_text(encoding="utf-8"))
            content = (self._folder / str(latest["file"])).read_bytes()
            if hashlib.sha256(content).hexdigest() != latest["sha256"]:
                raise ValueError("its hash does not fit")
            model: Arrays = {}
            parts = {"model": model, "memory": {}, "silo": {}}
            for path, array in _arrays(content).items():
                kind, _, key = path.partition("/")
                parts[kind][key] = array
            ordered = {str(key): model[key] for key in latest["order"]}
            state = RoundState(int(latest["round"]), ordered, parts["memory"])
            return Checkpoint(state, dict(latest["line"]), parts["silo"] if latest["silos"] else None)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunFailed(
                f"The checkpoint in '{self._folder}' is damaged ({error}): this run cannot go on, start it anew."
            ) from error


class _Sync(threading.Thread):
    """Forces one checkpoint to the disk and then names it in ``synced.json``, while the next rounds go on."""

    def __init__(self, folder: Path, name_of_state: str, named: bytes) -> None:
        super().__init__(name="quire-sync")
        self._folder, self.name_of_state, self._named = folder, name_of_state, named
        self._wrong: BaseException | None = None

    def run(self) -> None:
        try:
            with (self._folder / self.name_of_state).open("rb") as file:
                os.fsync(file.fileno())
            replace(self._folder / _SYNCED, self._named)
        except BaseException as wrong:  # told to whoever waits: a checkpoint that is not on the disk is not one
            self._wrong = wrong

    def done(self) -> str:
        """Wait for the end, and return the name of the state that is on the disk."""
        self.join()
        if self._wrong is not None:
            raise self._wrong
        return self.name_of_state


def safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return arrays in the safetensors format."""
    from safetensors.numpy import save

    return bytes(save({name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}))


def replace(path: Path, content: bytes, sync: bool = True) -> None:
    """Write a file so that a reader, or a kill, finds the old content or the new, never a part.

    With ``sync`` the same holds after a power cut.
    """
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)


def _arrays(content: bytes) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(content))
    except SafetensorError as error:
        raise ValueError("it is not a safetensors file") from error
