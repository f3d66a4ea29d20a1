"""Small Flower App Bundles."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping

APP = {
    "pyproject.toml": b"[project]\nname = 'app'\nversion = '1'\n[tool.flwr.app]\npublisher = 'us'\n"
    b"[tool.flwr.app.components]\nserverapp = 'app:server'\nclientapp = 'app:client'\n",
    "app/__init__.py": b"client = 1\nserver = 2\n",
    "app/data/x.json": b"{}",
}


def packed(
    files: Mapping[str, bytes] | Iterable[tuple[str | zipfile.ZipInfo, bytes]], how: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """Return an archive of files, in this order and under these names, whatever they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            archive.writestr(name, content)
    return buffer.getvalue()
