"""The one string that travels: parsed, never run.

A silo receives its settings from a server that it does not trust, as a string of overrides. The grammar here is
all that such a string can say::

    overrides := item (whitespace item)*
    item      := group "=" option | key "=" value          key := name ("." name)*
    value     := scalar | "[" [scalar ("," scalar)*] "]"
    scalar    := null | true | false | integer of at most 19 digits | decimal | word | "'" text "'" | '"' text '"'

Words and quoted texts hold printable characters without ``$ { } \\`` and without quotes, so nothing in them can
be an interpolation, a resolver or an escape. Keys hold lower-case names only: ``hydra.*``, ``+key``, ``~key``,
``key@package`` and ``_target_`` are not in the grammar or not in the schema. Sizes are bounded before any work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from quire.errors import SettingsError

MAX_LENGTH = 8192
MAX_ITEMS = 256
MAX_KEY = 100

Scalar = None | bool | int | float | str
Value = Scalar | tuple[Scalar, ...]

_KEY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\Z")
_INT = re.compile(r"[+-]?[0-9]{1,19}\Z")
_LONG_INT = re.compile(r"[+-]?[0-9]{20,}\Z")
_FLOAT = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\Z|[+-]?inf\Z|nan\Z")
_NAMED: dict[str, Scalar] = {"null": None, "true": True, "false": False}
_WORD = re.compile(r"[A-Za-z0-9_./:+*%@~^-]+\Z")
_TEXT = re.compile(r"[A-Za-z0-9_./:+*%@~^ ,;=()\[\]<>!?#&|-]*\Z")
# One item ends at white space that stands outside quotes and brackets.
_ITEM = re.compile(r"""(?:[^\s'"\[\]]|'[^']*'|"[^"]*"|\[(?:[^'"\[\]]|'[^']*'|"[^"]*")*\])+""")
_ELEMENT = re.compile(r"""'[^']*'|"[^"]*"|,|[^'",]+""")


@dataclass(frozen=True)
class Override:
    """One ``key=value`` of an override string."""

    key: str
    value: Value

    def __str__(self) -> str:
        return f"{self.key}={render(self.value)}"


def parse(text: str) -> tuple[Override, ...]:
    """Parse a string of overrides.

    Parameters
    ----------
    text : str
        Overrides separated by white space, for example ``"task=breast_cancer training.lr=0.05"``.

    Returns
    -------
    tuple of Override
        In the order given. Keys are unique.

    Raises
    ------
    SettingsError
        If the text is too long or says anything that the grammar does not hold.
    """
    if len(text) > MAX_LENGTH:
        raise SettingsError(f"The overrides are {len(text)} characters long; at most {MAX_LENGTH} are read.")
    items: list[Override] = []
    seen: set[str] = set()
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _ITEM.match(text, position)
        end = match.end() if match else position
        if match is None or (end < len(text) and not text[end].isspace()):
            raise SettingsError(
                f"The overrides cannot be read at '{shown(text[position:])}': a quote or a bracket is not closed."
            )
        if len(items) == MAX_ITEMS:
            raise SettingsError(f"There are more than {MAX_ITEMS} overrides; at most so many are read.")
        item = _parse_item(match.group())
        if item.key in seen:
            raise SettingsError(f"'{item.key}' is set twice in the overrides; keep one of the two.")
        seen.add(item.key)
        items.append(item)
        position = end
    return tuple(items)


def render(value: Value) -> str:
    """Write a value in the grammar, so that ``parse`` reads the same value back."""
    if isinstance(value, tuple):
        return "[" + ",".join(render(item) for item in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        lowered = value.lower()
        bare = _WORD.match(value) and lowered not in _NAMED and not _FLOAT.match(lowered)
        return value if bare else f"'{value}'"
    return repr(value)


def _parse_item(item: str) -> Override:
    key, equals, raw = item.partition("=")
    if not equals:
        raise SettingsError(f"'{shown(item)}' is not an override: write key=value.")
    if key.startswith(("+", "~")):
        raise SettingsError(f"'{shown(item)}' cannot be used: keys are set with key=value, never added or removed.")
    if key.split(".")[0].split("/")[0] == "hydra":
        raise SettingsError(
            f"'{shown(key)}' belongs to the launcher: hydra settings do not travel in overrides, leave it out."
        )
    if len(key) > MAX_KEY or not _KEY.match(key):
        raise SettingsError(f"'{shown(key)}' is not the name of a setting.")
    if raw.startswith("["):
        return Override(key, _parse_list(key, raw))
    return Override(key, _scalar(raw, key))


def _parse_list(key: str, raw: str) -> tuple[Scalar, ...]:
    inner = raw[1:-1]
    if not raw.endswith("]"):
        raise SettingsError(f"The list given for '{key}' is not closed.")
    if not inner.strip():
        return ()
    values: list[Scalar] = []
    pieces = [piece.strip() for piece in _ELEMENT.findall(inner)]
    pieces = [piece for piece in pieces if piece]
    if len(pieces) % 2 == 0 or any((piece == ",") != (place % 2 == 1) for place, piece in enumerate(pieces)):
        raise SettingsError(f"The list given for '{key}' cannot be read: write [a,b,c].")
    for piece in pieces[::2]:
        values.append(_scalar(piece, key))
    return tuple(values)


def _scalar(raw: str, key: str) -> Scalar:
    if len(raw) >= 2 and raw[0] == raw[-1] and raw[0] in "'\"":
        if not _TEXT.match(raw[1:-1]):
            raise SettingsError(f"The text given for '{key}' holds a character that settings do not allow.")
        return raw[1:-1]
    lowered = raw.lower()
    if lowered in _NAMED:
        return _NAMED[lowered]
    if _LONG_INT.match(raw):
        raise SettingsError(f"The whole number given for '{key}', '{shown(raw)}', has more than 19 digits.")
    if _INT.match(raw):
        return int(raw)
    if _FLOAT.match(lowered):
        return float(raw)
    if not _WORD.match(raw):
        what = f"'{shown(raw)}'" if raw else "nothing"
        raise SettingsError(f"The value of '{key}', {what}, is not a number, a word, a quoted text or a list.")
    return raw


def shown(text: str) -> str:
    """Shorten a text for an error message, with everything but printable ASCII escaped."""
    visible = "".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in text[:61])
    return visible if len(visible) <= 60 else visible[:57] + "..."
