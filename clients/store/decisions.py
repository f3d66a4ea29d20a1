"""Write in the book of runs that a silo was asked to approve; see :mod:`~quire.clients.store.decision_book`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quire.clients.store import files
from quire.clients.store.counters import Position
from quire.clients.store.decision_book import FILE, SESSION, TAG, Decision, Matter, Request, read_book
from quire.clients.store.errors import StoreDamaged, StoreError
from quire.clients.store.lines import START, Signed, Writer, create
from quire.clients.store.store import Store
from quire.privacy.approval import DECISIONS, ApprovalStatementError, Statement, is_reason
from quire.privacy.identity.keys import PrivateIdentity

#: Runs that may wait for a decision at once: whoever asks for more is refused, and the book does not grow.
MAX_PENDING = 64
#: The most lines of words about a run, and the most characters of each.
_TERMS, _TEXT = 32, 2000

#: What a run would do, in words: title and text.
Terms = Sequence[tuple[str, str]]


class TooManyPending(StoreError):
    """So many runs wait for a decision that no further one is noted."""


class Decisions:
    """The book of a store that is open and locked.

    Parameters
    ----------
    store : Store
    signer : PrivateIdentity
        The silo's.

    Raises
    ------
    StoreError
        If the book cannot be used; see :func:`read_book`.
    """

    def __init__(self, store: Store, signer: PrivateIdentity) -> None:
        self._store, self._signer = store, signer
        self._path, self._seal = store.path / FILE, Signed(TAG, signer.public, signer)
        self.book = read_book(store.path, signer.public, store.counters)
        self._count_up()  # a crash may have come between a line and its count

    def ask(self, request: Request, terms: Callable[[], Terms]) -> Matter:
        """Note, durably, that a run was asked for; once, however often it is asked for.

        Parameters
        ----------
        request : Request
            Without terms.
        terms : callable
            Returns them, if the run is not known yet.

        Raises
        ------
        TooManyPending
            If :data:`MAX_PENDING` wait already.
        StoreError
            If it cannot be written.
        """
        known = self.book.matters.get(request.what)
        if known is not None:
            return known
        if len(self.book.pending) >= MAX_PENDING:
            raise TooManyPending(
                f"{MAX_PENDING} runs wait for a decision, and no further one is noted: decide on these first (`quire "
                "approve --list`)."
            )
        cut = tuple((title[:_TEXT], text[:_TEXT]) for title, text in list(terms())[:_TERMS])
        self._append("asked", {"request": replace(request, terms=cut).as_dict()})
        return self.book.matters[request.what]

    def decide(self, what: str, decision: str, by: str, why: str, tell: bool) -> Decision:
        """Write down a decision, durably.

        Parameters
        ----------
        what : str
            The hash of a run that was asked for.
        decision : str
            ``approved`` or ``rejected``.
        by : str
        why : str
        tell : bool
            Whether the server is told why.

        Raises
        ------
        StoreError
            If it was not asked for, a word cannot be written, or the book cannot.
        """
        if what not in self.book.matters:
            raise StoreError(f"No run {what[:16]} has been asked for.")
        if decision not in DECISIONS:
            raise StoreError(f"A run is {' or '.join(DECISIONS)}, not '{decision[:20]}'.")
        if why and not is_reason(why):
            raise StoreError("A reason is one line of at most 500 characters.")
        if not is_reason(by):
            raise StoreError("Who decides is one line of 1 to 500 characters: name yourself with --by.")
        request, at = self.book.matters[what].request, datetime.now(UTC)
        try:
            statement = Statement.sign(
                request.binding,
                request.silo,
                decision,
                int(at.timestamp()),
                why if tell and why else None,
                self._signer,
            )
        except ApprovalStatementError as error:
            raise StoreError(f"The decision cannot be stated: {error}") from error
        self._append("decided", {"by": by, "why": why, "statement": statement.encode().decode()}, at)
        return self.book.matters[what].decisions[-1]

    def _append(self, kind: str, said: Mapping[str, Any], at: datetime | None = None) -> None:
        moment = (at or datetime.now(UTC)).isoformat(timespec="seconds")
        body = {"seq": self.book.count + 1, "prev": self.book.head, "kind": kind, "time": moment, **said}
        line = self._seal.close(body)
        create(self._path)
        writer = Writer(self._path, self.book.size, self.book.head)
        try:
            writer.append(line)
        finally:
            writer.close()
        self.book.take(line, self._seal.open(line))
        self._count_up()

    def _count_up(self) -> None:
        last = self._store.counters.last(SESSION)
        if self.book.count > (0 if last is None else last.round):
            self._store.advance(Position(SESSION, self.book.count), datetime.now(UTC).date())


def begin_anew(store: Store, signer: PrivateIdentity, why: str) -> Path | None:
    """Begin a new book, in which nothing is approved, in place of one that cannot be used.

    Parameters
    ----------
    store : Store
    signer : PrivateIdentity
    why : str
        The operator's reason, which stays in the book.

    Returns
    -------
    pathlib.Path or None
        Where the old one is kept; None if there was none.

    Raises
    ------
    StoreError
        If the book is sound, there is no reason, or it cannot be written.
    """
    if not is_reason(why):
        raise StoreError("To begin a new book takes a reason: one line of 1 to 500 characters, which stays in it.")
    path, last = store.path / FILE, store.counters.last(SESSION)
    try:
        read_book(store.path, signer.public, store.counters)
    except StoreDamaged:
        pass
    else:
        raise StoreError(f"{path} is sound: there is no need for a new book.")
    kept = _set_aside(path) if path.exists() else None
    count = 1 if last is None else last.round + 1
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    body = {"seq": count, "prev": START, "kind": "opening", "time": moment, "why": why}
    files.replace(path, Signed(TAG, signer.public, signer).close(body) + b"\n")
    store.advance(Position(SESSION, count), datetime.now(UTC).date())
    return kept


def _set_aside(path: Path) -> Path:
    """Give a book a second name, under which it stays."""
    number = 0
    while (kept := path.with_name(f"approvals.{number:03d}.jsonl")).exists():
        number += 1
    with files.explained(path, "kept"):
        kept.hardlink_to(path)
        files.sync_folder(path.parent)
    return kept
