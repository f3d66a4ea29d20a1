"""Pages: the templates with the house's filters, everything escaped; a page is replaced at once or not at all."""

from __future__ import annotations

import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from quire.simulation import report_words as words
from quire.simulation.report_data import ReportError

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def render(template: str, context: dict[str, Any]) -> str:
    """Fill in a template of ``templates/``."""
    return str(_environment().get_template(template).render(context))


def write_page(target: Path, page: str) -> Path:
    """Write a page, whole or not at all.

    Raises
    ------
    ReportError
        If it cannot be written.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=".report-", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(page)
        temporary.chmod(0o644)  # a temporary file is for its owner alone; the page is to be shown around
        os.replace(temporary, target)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise ReportError(f"{target} cannot be written: {error.strerror}.") from error
    return target


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    # Silos choose their own names: everything is escaped, whatever the template is called.
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        percent=words.percent, points=words.points, size=words.size, duration=words.duration, silo=words.name
    )
    environment.globals["css"] = Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))
    return environment
