"""What a document consists of, before it is a page: statements, each with its source and how far it was checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """How far a statement may be relied upon.

    ``VERIFIED``: recomputed, or bound by a signature that was checked. ``FAILED``: a check speaks against it.
    ``UNCHECKED``: a file says so, and nothing here could tell whether it is true. ``DECLARED``: people say so.
    ``OWN``: from the silo's own books, as the silo keeps them. ``FOLLOWS``: a fixed table gives it from the facts.
    ``ABSENT``: it does not concern this run. ``GAP``: nobody has said it.
    """

    VERIFIED = "verified"
    FAILED = "failed"
    UNCHECKED = "not checked"
    DECLARED = "declared"
    OWN = "own books"
    FOLLOWS = "follows"
    ABSENT = "not applicable"
    GAP = "gap"


#: What a reader is told each of them means, in the order of the legend.
MEANINGS = {
    Standing.VERIFIED: "recomputed when this document was made, or bound by a signature that was checked then; against "
    "whose keys is said at the top",
    Standing.FAILED: "a check speaks against it",
    Standing.UNCHECKED: "the file that is named says so; nothing here could tell whether it is true",
    Standing.DECLARED: "people say so, in the file of answers, in the charter or in the silo's file; no program can "
    "check it",
    Standing.OWN: "from the silo's own books",
    Standing.FOLLOWS: "a fixed table gives it from the facts that are named",
    Standing.ABSENT: "it does not concern this run",
    Standing.GAP: "nobody has said it; what would close it is said beside",
}


@dataclass(frozen=True)
class Statement:
    """One thing that is said.

    Attributes
    ----------
    title : str
    says : tuple of str
        Sentences; of a gap, what is missing.
    source : str
        The files that it was read from, or what it follows from.
    standing : Standing
    closes : str
        Of a gap: what would close it.
    """

    title: str
    says: tuple[str, ...]
    source: str
    standing: Standing
    closes: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of the same form.

    Attributes
    ----------
    title : str
    head : tuple of str
    rows : tuple of tuple of str
        As many cells in each as the head has.
    source : str
    standing : Standing
    left_out : int
        Rows that there are besides, and that are not shown.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    source: str
    standing: Standing
    left_out: int = 0


@dataclass(frozen=True)
class Group:
    """Statements under a heading of their own, as those about one risk."""

    title: str
    intro: str
    statements: tuple[Statement, ...]


Item = Statement | Table | Group


@dataclass(frozen=True)
class Section:
    """A numbered part of a document."""

    title: str
    intro: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Notice:
    """What stands at the top.

    Attributes
    ----------
    tone : str
        ``good``, ``level`` or ``bad``.
    title, text : str
    """

    tone: str
    title: str
    text: str


@dataclass(frozen=True)
class Document:
    """A whole document.

    Attributes
    ----------
    kind, title, lead : str
    date : str
        The day that it was made on, as it was given.
    notices : tuple of Notice
    sections : tuple of Section
    failed : bool
        Whether any check failed.
    """

    kind: str
    title: str
    lead: str
    date: str
    notices: tuple[Notice, ...]
    sections: tuple[Section, ...]
    failed: bool = False

    def statements(self) -> Iterator[Statement]:
        """Yield every statement, in order."""
        for section in self.sections:
            for item in section.items:
                if isinstance(item, Group):
                    yield from item.statements
                elif isinstance(item, Statement):
                    yield item

    @property
    def gaps(self) -> list[Statement]:
        """The gaps, each once, however often it stands in the way."""
        return list(
            {one.title: one for one in reversed([*self.statements()]) if one.standing is Standing.GAP}.values()
        )[::-1]


def gap(title: str, closes: str, says: str = "Nobody has said it.") -> Statement:
    """Return a gap: what is missing, and what would close it."""
    return Statement(title, (says,), "none", Standing.GAP, closes)
