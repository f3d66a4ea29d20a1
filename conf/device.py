"""What in the settings keeps the silos of a simulation on the CPU: for the rules, and for ``runtime.device=auto``."""

from __future__ import annotations

from quire.conf.schema import BatchedRuntime, RecordDistributedPrivacy, RecordPrivacy, Settings
from quire.errors import SettingsError

NO_DOUBLE = "an Apple GPU (MPS) has no double precision, in which privacy=record clips rows"


def hindrance(settings: Settings) -> str:
    """Return why silos can train on no device but the CPU, in words that follow "for"; empty if they can."""
    runtime, privacy = settings.runtime, settings.privacy
    if isinstance(runtime, BatchedRuntime):
        return "runtime=batched trains silos together on the CPU"
    if getattr(runtime, "workers", 1) != 1:
        return "processes that are forked, as runtime.workers has them, cannot share a device"
    if isinstance(privacy, RecordDistributedPrivacy):
        return "privacy=record_distributed clips rows on the CPU"
    if isinstance(privacy, RecordPrivacy) and privacy.gradients == "rows":
        return "privacy.gradients=rows passes rows alone, on the CPU"
    return ""


def check_device(settings: Settings) -> None:
    """Refuse a device that the rest of the settings cannot use. Whether this machine has it is asked at its launch.

    Raises
    ------
    SettingsError
    """
    device = getattr(settings.runtime, "device", "cpu")
    if device in ("cpu", "auto"):
        return
    why = hindrance(settings)
    if not why and device == "mps" and isinstance(settings.privacy, RecordPrivacy):
        why = NO_DOUBLE
    if why:
        raise SettingsError(f"runtime.device={device} cannot be had here, for {why}: take runtime.device=cpu.")
