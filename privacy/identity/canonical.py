"""JSON with exactly one way to write a value, so that a hash of the bytes is a hash of what they say.

The form is that of RFC 8785 (JSON Canonicalization Scheme), narrowed to what needs no rules about Unicode or
floating point: objects with keys in ascending order, arrays, printable ASCII strings, integers of magnitude below
2**53, ``true``, ``false`` and ``null``; no white space; one line feed at the end. What is not written like this is
refused, even where every JSON parser would read the same value: two spellings of one document would be two hashes.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from quire.privacy.identity.errors import BadEncoding

#: Integers stay below this magnitude: every JSON parser holds them exactly.
LIMIT = 2**53
_DIGITS = 16


def dumps(value: Any) -> bytes:
    """Write a value in its one form.

    Parameters
    ----------
    value : dict, list, str, int, bool or None
        Nested as deep as wanted; keys of objects are strings.

    Returns
    -------
    bytes
        ASCII, with a line feed at the end.

    Raises
    ------
    BadEncoding
        If it holds anything else: a float, a large integer, a string that is not printable ASCII.
    """
    _check(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def loads(data: bytes, limit: int) -> Any:
    """Read a value from its one form.

    Parameters
    ----------
    data : bytes
        What :func:`dumps` wrote.
    limit : int
        The most bytes that are looked at: more is refused before it is parsed.

    Raises
    ------
    BadEncoding
        If the bytes are too many, no JSON, or JSON in another form.
    """
    if len(data) > limit:
        raise BadEncoding(f"The document has {len(data)} bytes, more than the {limit} that are read.")
    try:
        value = json.loads(
            data.decode("ascii"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
        canonical = dumps(value) == data  # recurses as well, and a little deeper
    except UnicodeDecodeError:
        raise BadEncoding("The document is not plain ASCII.") from None
    except json.JSONDecodeError as error:
        raise BadEncoding(f"The document is not JSON: {error.msg} at byte {error.pos}.") from None
    except RecursionError:
        raise BadEncoding("The document is nested too deeply.") from None
    if not canonical:
        raise BadEncoding("The document is JSON, but not in canonical form: it was edited or reformatted.")
    return value


def _check(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _text(key)
            _check(item)
    elif isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, str):
        _text(value)
    elif isinstance(value, bool) or value is None:
        pass
    elif not isinstance(value, int):
        raise BadEncoding(f"A {type(value).__name__} has no canonical form.")
    elif abs(value) >= LIMIT:
        raise BadEncoding("An integer of 2**53 or more has no canonical form.")


def _text(value: Any) -> None:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise BadEncoding("A string that is not printable ASCII has no canonical form.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadEncoding("The document has the same key twice in one object.")
    return found


def _integer(text: str) -> int:
    if len(text) > _DIGITS + 1:
        raise BadEncoding("The document has an integer of 2**53 or more.")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise BadEncoding("The document has a number that is not an integer.")
