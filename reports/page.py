"""A document as a page: one file, no script, nothing loaded, every text escaped and made visible."""

from __future__ import annotations

from functools import cache
from typing import Any

from markupsafe import Markup

from quire import __version__
from quire.reports.document import MEANINGS, Document, Standing
from quire.simulation import look
from quire.text import TEXT, visible

#: The longest text of a document: a purpose in a charter has as many characters.
LONGEST = 2 * TEXT + 200
_STYLE = ("quire.reports", "document.css")
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
def _environment() -> Any:
    environment = look.templates(*_STYLE, _finalize)
    environment.filters.update(
        css_class=lambda standing: _CLASSES.get(standing, standing.value), kind=lambda item: type(item).__name__
    )
    environment.globals.update(style_hash=Markup(look.style_hash(*_STYLE)), version=__version__)
    return environment
