"""What can be wrong in a consortium's folders and in the files that travel between them."""

from __future__ import annotations

from quire.errors import QuireError


class ConsortiumError(QuireError):
    """A consortium's folder, or a file that came from elsewhere, cannot be used; no text holds anything secret."""

    exit_code = 2


class FolderBusy(ConsortiumError):
    """Another command is changing the same folder."""
