"""What an attack leaves behind: a page to look at, self-contained, and the same in ``result.json``."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from quire.privacy.attacks.roc import Rate
from quire.simulation.attacks.errors import AttackInput
from quire.simulation.page import render, write_page
from quire.strategies.checkpoint import replace

PAGE_FILE, RESULT_FILE = "attack.html", "result.json"
FORMAT = "quire-attack-1"


@dataclass(frozen=True)
class Table:
    """A table: a head, and rows of a name and cells; a row in ``best`` is marked."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    best: Sequence[int] = ()


@dataclass(frozen=True)
class Figure:
    """A drawing with its legend."""

    title: str
    svg: Markup
    legend: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Panel:
    """Pictures of one variant: what was there over what was guessed."""

    title: str
    note: str
    pairs: Sequence[dict[str, Any]]
    tone: str = ""


@dataclass(frozen=True)
class Page:
    """Everything that a page says."""

    kind: str
    question: str
    sentence: str
    verdict: str
    tone: str
    given: Sequence[tuple[str, str]]
    shows: Sequence[str]
    not_shown: Sequence[str]
    runs: Sequence[tuple[str, str]]
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    panels: Sequence[Panel] = ()
    panels_note: str = ""
    kicker: Sequence[str] = field(default_factory=tuple)


def prepare(folder: Path) -> None:
    """Make the folder, before anything is run.

    Raises
    ------
    AttackInput
        If it cannot be made or written, or holds the result of an attack already.
    """
    if (folder / RESULT_FILE).exists():
        raise AttackInput(f"The folder '{folder}' already holds the result of an attack: name another with --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{RESULT_FILE}.new"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise AttackInput(f"The folder '{folder}' cannot be written ({error.strerror}): name another.") from error


def write(folder: Path, page: Page, result: dict[str, Any]) -> Path:
    """Write the page and then ``result.json``, each whole or not at all; return the page."""
    text = json.dumps({"format": FORMAT, "attack": page.kind, **_written(result)}, indent=1, allow_nan=False)
    shown = write_page(folder / PAGE_FILE, render("attack.html.j2", {"page": page}))
    try:
        replace(folder / RESULT_FILE, text.encode() + b"\n")
    except OSError as error:
        raise AttackInput(f"'{folder / RESULT_FILE}' cannot be written ({error.strerror}).") from error
    return shown


def _written(value: Any) -> Any:
    """Return what JSON can hold: ``"inf"`` for the epsilon of a run with clipping and no noise, as on its card."""
    if isinstance(value, dict):
        return {key: _written(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_written(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def picture(row: NDArray[np.float64], image: tuple[int, int], low: float = -1.0, high: float = 1.0) -> str:
    """Return a row as a picture that a page can hold: grey, as a data URI."""
    from PIL import Image

    grey = np.clip((row.reshape(image) - low) / (high - low), 0.0, 1.0)
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * grey).astype(np.uint8), "L").save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def interval(rate: Rate, digits: int = 2) -> str:
    """Write a number with its interval."""
    return f"{rate.value:.{digits}f} [{rate.low:.{digits}f}, {rate.high:.{digits}f}]"


def percents(rate: Rate) -> str:
    """Write a share with its interval, in per cent."""
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def as_json(rate: Rate) -> dict[str, float]:
    """Return a number with its interval as JSON has it."""
    return {"value": float(rate.value), "low": float(rate.low), "high": float(rate.high)}
