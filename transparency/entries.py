"""What a log holds: one line of canonical JSON for each entry, in a form so narrow that a regular expression says it.

::

    {"body":{"model":"6e34..."},"kind":"model","round":3,"run":"1234","time":1763757962,"v":1}

An entry never holds data, figures or texts, only hashes, counts and names: the log may be shown to anybody. The line,
with its line feed, is the leaf of the Merkle tree. Every entry has exactly one spelling, so that no two leaves say the
same; what is spelled otherwise is refused before any JSON parser sees it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from quire.privacy.identity.canonical import dumps
from quire.privacy.identity.errors import BadEncoding
from quire.transparency.errors import LogDamaged, LogError

#: The most bytes of an entry, with its line feed: a cohort of the most silos that a roster can have.
MAX_BYTES = 320 * 1024
#: The most names in one list.
MAX_NAMES = 4096
#: What becomes a name: of a run, a silo, a code.
WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

_DIGEST, _COUNT, _TIME = r'"[0-9a-f]{64}"', r"(?:0|[1-9][0-9]{0,15})", r"(?:0|[1-9][0-9]{0,11})"
_ROUND = _TIME
_FORMS = {
    "digest": _DIGEST,
    "digest or null": rf"(?:{_DIGEST}|null)",
    "count": _COUNT,
    "word": f'"{WORD}"',
    "origin": r'"[a-z0-9][a-z0-9._/-]{0,127}"',
    "identity": r'"(?:[0-9a-f]{2}){1,2048}"',
    "names": rf'\[(?:"{WORD}"(?:,"{WORD}"){{0,{MAX_NAMES - 1}}})?\]',
}

#: What there is to say, and what is said of it. "origin" and "identity" are a log's name and the key that signs it.
KINDS: Mapping[str, Mapping[str, str]] = {
    "begin": {"origin": "origin", "identity": "identity"},
    "charter": {"charter": "digest", "version": "count", "previous": "digest or null"},
    "approval": {"silo": "word", "decision": "word", "what": "digest"},
    "session": {"settings": "digest", "code": "digest", "roster": "digest or null"},
    "cohort": {"attempt": "count", "silos": "names"},
    "model": {"model": "digest"},
    "transcript": {"attempt": "count", "transcript": "digest"},
    "ledger_head": {"silo": "word", "entries": "count", "head": "digest"},
    "refusal": {"silo": "word", "code": "word"},
    "abort": {"code": "word"},
    "checkpoint": {"size": "count", "checkpoint": "digest", "silos": "names"},
    "journal": {"line": "digest"},
    "resume": {"lines": "count"},
    "end": {"status": "word", "model": "digest or null", "card": "digest or null"},
}


def _line(kind: str) -> str:
    body = ",".join(f'"{key}":{_FORMS[form]}' for key, form in sorted(KINDS[kind].items()))
    return rf'\{{"body":\{{{body}\}},"kind":"{kind}","round":{_ROUND},"run":"{WORD}","time":{_TIME},"v":1\}}\n'


_LINES = {kind.encode(): re.compile(_line(kind).encode()) for kind in KINDS}
_BEFORE_KIND = b'},"kind":"'


@dataclass(frozen=True)
class Entry:
    """One entry; refuses to be made if it has no spelling.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    run : str
        Which run it is about.
    round : int
        Counted from 1; 0 outside the rounds.
    time : int
        Seconds since 1970 UTC, by the clock of whoever writes the log.
    body : mapping of str to str, int, None or list of str
        Exactly what :data:`KINDS` lists for the kind. Names are in ascending order, each once.

    Raises
    ------
    LogError
        If it is of no kind, or says something that its kind does not.
    """

    kind: str
    run: str
    round: int
    time: int
    body: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not is_entry(self.data):
            raise LogError(f"What a log says of '{str(self.kind)[:20]}' does not have the form of such an entry.")

    @cached_property
    def data(self) -> bytes:
        """The entry's one spelling: the leaf."""
        said = {"body": dict(self.body), "kind": self.kind, "round": self.round, "run": self.run, "time": self.time}
        try:
            return dumps({**said, "v": 1})
        except BadEncoding as error:
            raise LogError(f"An entry cannot be written: {error}") from error

    @classmethod
    def parse(cls, data: bytes) -> Entry:
        """Read an entry, with its line feed.

        Raises
        ------
        LogDamaged
            If it is not the one spelling of an entry.
        """
        if not is_entry(data):
            raise LogDamaged("is not an entry of a log")
        said = json.loads(data)
        return cls(said["kind"], said["run"], said["round"], said["time"], said["body"])


def is_entry(data: bytes) -> bool:
    """Tell whether bytes are the one spelling of an entry, whatever they are."""
    return kind_of(data) is not None


def kind_of(data: bytes) -> str | None:
    """Return the kind of an entry from its line; None if the bytes are not the one spelling of an entry."""
    start = data.find(_BEFORE_KIND) + len(_BEFORE_KIND)
    kind = data[start : data.find(b'"', start)]
    line = _LINES.get(kind)
    if line is None or len(data) > MAX_BYTES or line.fullmatch(data) is None:
        return None
    if kind == b"cohort" and not _in_order(json.loads(data)["body"]["silos"]):
        return None
    return kind.decode()


def _in_order(names: list[str]) -> bool:
    return names == sorted(set(names))
