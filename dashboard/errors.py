"""What can go wrong with the dashboard, in sentences."""

from __future__ import annotations

from quire.errors import QuireError


class DashboardError(QuireError):
    """The dashboard cannot be started, or its users cannot be changed as asked."""

    exit_code = 2


class Unreadable(QuireError):
    """A file of a page cannot be shown: it is missing, too large, or not what was written."""
