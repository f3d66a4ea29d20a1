"""A document as a page: one file, no script, nothing loaded, every text escaped and made visible."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from quire import __version__
from quire.reports.document import MEANINGS, Document, Standing
from quire.text import TEXT, visible

#: The longest text of a document: a purpose in a charter has as many characters.
LONGEST = 2 * TEXT + 200
_CLASSES = {Standing.UNCHECKED: "unchecked", Standing.OWN: "own", Standing.ABSENT: "absent"}


def page(document: Document) -> str:
    """Return a document as HTML."""
    return str(
        _environment().get_template("document.html.j2").render(document=document, meanings=MEANINGS).strip() + "\n"
    )


def _finalize(value: Any) -> Any:
    """Return what the template may show of a value: what the house rendered, or a text in which nothing hides."""
    return value if isinstance(value, Markup | int) else visible(str(value), LONGEST)


@cache
def _style() -> str:
    report = (files("quire.simulation") / "templates" / "report.css").read_text(encoding="utf-8")
    return report + (files("quire.reports") / "templates" / "document.css").read_text(encoding="utf-8")


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("quire.reports"),
        autoescape=True,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        css_class=lambda standing: _CLASSES.get(standing, standing.value), kind=lambda item: type(item).__name__
    )
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    environment.globals.update(css=Markup(_style()), style_hash=Markup(f"sha256-{digest}"), version=__version__)
    return environment
