"""What a report refuses to begin with."""

from __future__ import annotations

from quire.errors import QuireError


class ReportInput(QuireError):
    """A folder or a file that was named for a report is not what it should be."""

    exit_code = 2
