"""The book of runs that a silo was asked to approve, and of what was decided: ``approvals.jsonl`` in the store.

One line for each, chained by hashes and signed by the silo (see :mod:`~quire.clients.store.lines`), on the disk before
anything follows from it. How many lines there are the store's counters know, so that an older copy of the book, or one
that was cut off after a rejection, is told and approves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from quire.clients.store import files
from quire.clients.store.counters import Counters
from quire.clients.store.errors import RolledBack, StoreDamaged
from quire.clients.store.inspection import Inspection
from quire.clients.store.lines import START, BadLine, Signed, line_hash, read_lines
from quire.privacy.approval import Binding, Statement
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.keys import PublicIdentity

FILE = "approvals.jsonl"
TAG = "quire/store/approvals/1"
#: What the counters call the book. The dot says that it is no run, whose rounds would count for the day.
SESSION = "book.approvals"
REMEDY = "put back the newest copy of the store, or begin a new book with `quire approve --begin-anew REASON`"


@dataclass(frozen=True)
class Request:
    """A run that the silo was asked to take part in.

    Attributes
    ----------
    silo : str
        Under which name.
    binding : Binding
    overrides : str
        The settings, as the canonical string that composes to them.
    terms : tuple of (str, str)
        What it would do, in words: title and text.
    """

    silo: str
    binding: Binding
    overrides: str
    terms: tuple[tuple[str, str], ...]

    @property
    def what(self) -> str:
        """The hash that a decision is bound to."""
        return self.binding.hash

    def as_dict(self) -> dict[str, Any]:
        """Return what a line of the book says."""
        told = vars(self.binding)
        return {**told, "silo": self.silo, "overrides": self.overrides, "terms": [list(term) for term in self.terms]}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Request:
        """Read what :meth:`as_dict` wrote; raises ValueError, KeyError or TypeError for anything else."""
        terms = tuple((str(title), str(text)) for title, text in value["terms"])
        binding = Binding(*(value[key] for key in ("run", "code", "settings", "roster")))
        found = cls(value["silo"], binding, value["overrides"], terms)
        if found.as_dict() != value or not isinstance(found.silo, str) or not isinstance(found.overrides, str):
            raise ValueError("another form")
        return found


@dataclass(frozen=True)
class Decision:
    """What an operator decided.

    Attributes
    ----------
    decision : str
        ``approved`` or ``rejected``.
    by : str
        Who, by the name that was given or the login name.
    why : str
        In the operator's own words; may be empty.
    at : datetime.datetime
    statement : Statement
        What may travel of it.
    """

    decision: str
    by: str
    why: str
    at: datetime
    statement: Statement


@dataclass(frozen=True)
class Matter:
    """A run that was asked for, and all that was decided about it, the last last.

    Attributes
    ----------
    request : Request
    asked : datetime.datetime
        When it was first asked for.
    decisions : tuple of Decision
    """

    request: Request
    asked: datetime
    decisions: tuple[Decision, ...] = ()

    @property
    def last(self) -> Decision | None:
        """The decision that holds; None while there is none."""
        return self.decisions[-1] if self.decisions else None


@dataclass
class Book:
    """What the file holds.

    Attributes
    ----------
    matters : dict of str to Matter
        By the hash that decisions are bound to, in the order in which they were asked for.
    openings : list of (datetime.datetime, str)
        When a damaged book was given up, and why.
    """

    matters: dict[str, Matter] = field(default_factory=dict)
    openings: list[tuple[datetime, str]] = field(default_factory=list)
    count: int = 0
    head: str = START
    size: int = 0

    @property
    def pending(self) -> list[Matter]:
        """Those that wait for a decision."""
        return [matter for matter in self.matters.values() if matter.last is None]

    def take(self, line: bytes, body: Mapping[str, Any]) -> None:
        """Go on by one line whose seal is good; raises BadLine, or what a malformed one stumbles over."""
        at, kind = datetime.fromisoformat(body["time"]), body["kind"]
        opens = kind == "opening" and self.head == START
        if body["prev"] != self.head or (body["seq"] != self.count + 1 and not opens):
            raise BadLine("does not follow from the one before it")
        if opens:
            self.openings.append((at, str(body["why"])))
        elif kind == "asked":
            request = Request.of(body["request"])
            if request.what in self.matters:
                raise ValueError("asked twice")
            self.matters[request.what] = Matter(request, at)
        elif kind == "decided":
            statement = Statement.decode(str(body["statement"]).encode())
            what = statement.binding.hash
            made = Decision(statement.body["decision"], str(body["by"]), str(body["why"]), at, statement)
            matter = self.matters[what]
            self.matters[what] = replace(matter, decisions=(*matter.decisions, made))
        else:
            raise ValueError("another kind")
        self.count, self.head, self.size = body["seq"], line_hash(line), self.size + len(line) + 1


def read_book(folder: Path, public: PublicIdentity, counters: Counters) -> Book:
    """Read the book of a store and check every line of it.

    Parameters
    ----------
    folder : pathlib.Path
        The store.
    public : PublicIdentity
        The silo's.
    counters : Counters
        The store's, read before this: whoever looks while the silo works may see more lines than these count.

    Raises
    ------
    StoreDamaged
        If it is missing, or not what was written.
    RolledBack
        If the counters have seen more lines.
    """
    path, book, seal = folder / FILE, Book(), Signed(TAG, public)
    known = counters.last(SESSION)
    with files.explained(path, "read"):
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            if known is not None:
                raise StoreDamaged(f"{path} is missing, which says what runs are approved; {REMEDY}.") from None
            return book
        with stream:
            for number, (line, whole) in enumerate(read_lines(stream), start=1):
                if not whole:  # what a crash left: it was never acknowledged
                    break
                try:
                    book.take(line, seal.open(line))
                except BadLine as error:
                    raise StoreDamaged(f"Line {number} of {path} {error}; {REMEDY}.") from None
                except (AttributeError, KeyError, TypeError, ValueError, PrivacyError):
                    raise StoreDamaged(f"Line {number} of {path} is malformed; {REMEDY}.") from None
    if known is not None and book.count < known.round:
        raise RolledBack(
            f"{path} holds {book.count} entries, but {known.round} were written: an old copy was put back, or its end "
            f"was cut off; {REMEDY}."
        )
    return book


def look(folder: Path, witness: Path | None = None, fingerprint: str | None = None) -> Book:
    """Read the book of a store without locking or changing anything; an empty one where there is no store yet.

    Parameters
    ----------
    folder : pathlib.Path
        The store.
    witness : pathlib.Path, optional
    fingerprint : str, optional
        Of the identity whose store it has to be.

    Raises
    ------
    StoreError
        If the store or the book is not such as a run would go on with.
    """
    with files.explained(folder, "read"):
        if files.is_unused(folder):
            return Book()
    inspection = Inspection(folder, witness, fingerprint)
    return read_book(folder, inspection.about.public, inspection.counters)
