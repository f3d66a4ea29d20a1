"""The dashboard's templates: the report's look, every value escaped, bounded and made visible."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from quire.dashboard.text import finalize
from quire.simulation.report_words import duration, percent, size


def render(template: str, context: dict[str, Any]) -> str:
    """Fill in a template of ``templates/``."""
    return str(_environment().get_template(template).render(context))


@cache
def style() -> str:
    """Return the one stylesheet: the report's, and what a page with tables of states needs beside."""
    report = (files("quire.simulation") / "templates" / "report.css").read_text(encoding="utf-8")
    return report + (files("quire.dashboard") / "templates" / "dashboard.css").read_text(encoding="utf-8")


@cache
def style_hash() -> str:
    """Return what the content security policy calls the stylesheet."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("quire.dashboard"),
        autoescape=True,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(percent=percent, size=size, duration=duration)
    environment.globals["css"] = Markup(style())
    return environment
