"""The report's look for other pages: its stylesheet with theirs, and templates whose every value is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def style(package: str, name: str) -> str:
    """Return the report's stylesheet, with that of a package behind it."""
    report = (files("quire.simulation") / "templates" / "report.css").read_text(encoding="utf-8")
    return report + (files(package) / "templates" / name).read_text(encoding="utf-8")


@cache
def style_hash(package: str, name: str) -> str:
    """Return what a content security policy calls the stylesheet."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style(package, name).encode()).digest()).decode()


def templates(package: str, css: str, finalize: Callable[[Any], Any]) -> Environment:
    """Return the templates of a package: escaping, and refusing what is not defined.

    Parameters
    ----------
    package : str
        With a folder ``templates/``.
    css : str
        The stylesheet there, which templates have as ``css``, behind the report's.
    finalize : callable
        What a template may show of a value, called before it is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals["css"] = Markup(style(package, css))
    return environment
