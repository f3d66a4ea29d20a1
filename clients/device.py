"""On which device the silos of a simulation train: the CPU, or what ``runtime.device`` asks for and this machine has.

A real silo trains on its CPU: what a server's settings say has no say about a silo's hardware.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from quire.clients.simulation import is_simulated
from quire.conf.device import NO_DOUBLE, hindrance
from quire.conf.schema import RecordPrivacy, Settings
from quire.errors import SettingsError

CPU, CUDA, MPS = "cpu", "cuda", "mps"

_CALLED = {CUDA: "CUDA device", MPS: "Apple GPU (MPS)"}


@dataclass(frozen=True)
class Choice:
    """Where silos train.

    Attributes
    ----------
    asked : str
        ``runtime.device``.
    used : str
        ``cpu``, ``cuda`` or ``mps``.
    name : str
        What the device calls itself; empty for the CPU.
    why : str
        Why ``auto`` came to the CPU; else empty.
    """

    asked: str
    used: str
    name: str = ""
    why: str = ""

    def words(self) -> str:
        """Say it in a few words: ``cuda (NVIDIA H100)``, ``cpu (auto: this machine has no CUDA device ...)``."""
        more = self.name or (f"{self.asked}: {self.why}" if self.why else "")
        return f"{self.used} ({more})" if more else self.used


def choose(settings: Settings) -> Choice:
    """Find out where the silos of a simulation train.

    Raises
    ------
    SettingsError
        If a device is asked for that this machine does not have, or this torch cannot use.
    """
    asked = getattr(settings.runtime, "device", CPU)
    if asked == CPU:
        return Choice(CPU, CPU)
    if asked == "auto":
        # Where something hinders, CUDA is not even asked for: processes that are forked afterwards could not use it.
        if why := hindrance(settings):
            return Choice(asked, CPU, why=why)
        for kind in (CUDA, MPS):
            if (name := _present(kind)) is not None:
                if kind == MPS and isinstance(settings.privacy, RecordPrivacy):
                    return Choice(asked, CPU, why=NO_DOUBLE)
                return Choice(asked, kind, name)
        return Choice(asked, CPU, why="this machine has no CUDA device and no Apple GPU that torch can use")
    name = _present(asked)
    if name is None:
        raise SettingsError(
            f"runtime.device={asked}: this machine has no {_CALLED[asked]} that its torch {torch.__version__} can use: "
            "take runtime.device=cpu, or auto."
        )
    return Choice(asked, asked, name)


def device_of(settings: Settings) -> str:
    """Return where the silo at work trains; see :func:`choose`. Outside a simulation always on the CPU."""
    if getattr(settings.runtime, "device", CPU) == CPU or not is_simulated():
        return CPU
    return choose(settings).used


def torch_device(kind: str) -> torch.device:
    """Return torch's device of a kind."""
    return torch.device(kind)


@contextmanager
def at_work(device: torch.device) -> Iterator[None]:
    """Make new tensors on a device, and let it give the same bits again: deterministic kernels, whole float32 products.

    What was set before is set again afterwards. A kernel without a deterministic form is used with torch's warning.
    """
    # Read when CUDA's library is first used; without it its products are not deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.allow_tf32,
        cudnn.benchmark,
        cuda.allow_tf32,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.allow_tf32 = cudnn.benchmark = cuda.allow_tf32 = False
    try:
        with device:
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.allow_tf32, cudnn.benchmark, cuda.allow_tf32 = before[2:]


def _present(kind: str) -> str | None:
    """Return what a device calls itself, or None where there is none."""
    if kind == CUDA:
        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return "Apple GPU" if torch.backends.mps.is_available() else None
