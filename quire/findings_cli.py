"""What ``--json FILE`` of a test of one's own asks for: findings in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quire.errors import SettingsError


def check_file(path: Path | None) -> None:
    """Refuse a file whose folder is not there, before work is done for it.

    Raises
    ------
    SettingsError
    """
    if path is not None and not path.absolute().parent.is_dir():
        raise SettingsError(f"The folder of '{path}' does not exist: make it, or name another file.")


def write_file(path: Path | None, found: dict[str, Any]) -> None:
    """Write findings, if a file is asked for.

    Raises
    ------
    SettingsError
        If it cannot be written.
    """
    if path is None:
        return
    try:
        path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"'{path}' cannot be written ({error.strerror}): name another file.") from error
