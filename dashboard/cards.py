"""A run's privacy card as text: what ``privacy_card.json`` says, never the page that lies beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quire.dashboard.errors import Unreadable
from quire.dashboard.reading import CARD, read_json
from quire.dashboard.text import Long, epsilon
from quire.simulation.report_data import number

_FILE = "privacy_card.json"
_HEADINGS = {
    "protects": "What is protected",
    "trusted": "Who is trusted",
    "sees": "Who sees what",
    "not_protected": "What is not protected",
    "mechanism": "How",
    "signatures": "Who vouches for it",
}
_TONES = {"stated": "good", "simulation": "level", "test": "level", "none": "bad"}
_SILOS, _SENTENCES = 300, 40


def card_of(folder: Path) -> dict[str, Any] | None:
    """Return what a page says of a run's card; None where there is none.

    Raises
    ------
    Unreadable
        If the file is there, and no card.
    """
    card = read_json(folder / _FILE, CARD)
    if card is None:
        return None
    words, silos = card.get("words"), card.get("silos")
    if not isinstance(words, dict) or not isinstance(silos, list) or not isinstance(card.get("verdict"), str):
        raise Unreadable(f"{_FILE} is damaged: it is no privacy card.")
    return {
        "verdict": Long(card["verdict"]),
        "coverage": Long(card["coverage"]) if isinstance(card.get("coverage"), str) else "",
        "tone": _TONES.get(str(card.get("standing"))[:20], "bad"),
        "words": [(title, _sentences(words.get(key))) for key, title in _HEADINGS.items()],
        "silos": [_silo(one) for one in silos[:_SILOS] if isinstance(one, dict)],
        "left_out": max(0, len(silos) - _SILOS),
    }


def _sentences(value: object) -> list[Long]:
    found = value if isinstance(value, list) else []
    return [Long(text) for text in found[:_SENTENCES] if isinstance(text, str)]


def _silo(one: dict[str, Any]) -> dict[str, Any]:
    told, figures, rounds = (_part(one, key) for key in ("statement", "figures", "rounds"))
    return {
        "name": told["silo"] if isinstance(told.get("silo"), str) else "?",
        "rdp": _epsilon(figures.get("rdp")),
        "pld": _epsilon(figures.get("pld")),
        "delta": _short(told.get("delta")),
        "records": _short(one.get("declared_records")),
        "noise": _short(told.get("noise_multiplier")),
        "rounds": f"{_short(rounds.get('released'))} of {_short(rounds.get('asked'))}",
    }


def _part(one: dict[str, Any], key: str) -> dict[str, Any]:
    found = one.get(key)
    return found if isinstance(found, dict) else {}


def _epsilon(value: object) -> str:
    return "infinite" if value == "inf" else epsilon(_number(value))


def _short(value: object) -> str:
    found = _number(value)
    return epsilon(None) if found is None else f"{found:.6g}"


def _number(value: object) -> float | None:
    try:
        return number(value)
    except OverflowError:
        return None
