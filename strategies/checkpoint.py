"""Checkpoints: where a run can go on from, whole or not at all.

``checkpoint/latest.json`` names the newest state, its hash, and the journal's line of that round. It is replaced after
the state it names has been written, so a kill at any moment leaves the last checkpoint or the new one. About once a
second a checkpoint is forced to the disk as well and named by ``synced.json``: that one outlives a power cut.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quire.errors import RunFailed
from quire.strategies.rounds import Arrays, RoundState

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
        self._synced, self._synced_name = time.perf_counter(), ""

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint. It outlives a kill; once a second one is forced to the disk, to outlive a power cut."""
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
        sync = time.perf_counter() - self._synced >= _SECONDS_BETWEEN_SYNCS
        replace(self._folder / name, content, sync)
        replace(self._folder / _LATEST, json.dumps(latest, allow_nan=False).encode(), sync)
        if sync:
            replace(self._folder / _SYNCED, json.dumps(latest).encode())
            self._synced, self._synced_name = time.perf_counter(), name
        for old in self._folder.glob("round-*.safetensors"):
            if old.name not in (name, self._synced_name):
                old.unlink()

    def load(self) -> Checkpoint | None:
        """Read the newest checkpoint; None if the run had not come to its first.

        Where that is damaged, as a power cut may leave it, the last one that was forced to the disk serves instead.

        Raises
        ------
        RunFailed
            If both are damaged or missing: a truncated or an altered file.
        """
        if not (self._folder / _LATEST).exists():
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
