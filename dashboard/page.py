"""The dashboard's templates: the report's look, every value escaped, bounded and made visible."""

from __future__ import annotations

from functools import cache
from typing import Any

from quire.dashboard.text import finalize
from quire.simulation import look
from quire.simulation.report_words import duration, percent, size

_STYLE = ("quire.dashboard", "dashboard.css")


def render(template: str, context: dict[str, Any]) -> str:
    """Fill in a template of ``templates/``."""
    return str(_environment().get_template(template).render(context))


def style_hash() -> str:
    """Return what the content security policy calls the one stylesheet."""
    return look.style_hash(*_STYLE)


@cache
def _environment() -> Any:
    environment = look.templates(*_STYLE, finalize)
    environment.filters.update(percent=percent, size=size, duration=duration)
    return environment
