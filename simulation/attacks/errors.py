"""What an attack refuses."""

from __future__ import annotations

from quire.errors import SettingsError


class AttackInput(SettingsError):
    """Settings, or a number beside them, with which an attack would show nothing."""
