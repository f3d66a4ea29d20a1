"""Reading a log from its folder: entries in a stream, the tree over them, checkpoints. Changes nothing.

::

    log/
      entries.jsonl     one line for each entry; the lines are the leaves
      checkpoints.txt   signed notes, one after the other, a blank line behind each

What a crash leaves behind is told from damage by one rule: what was never finished, a last line without its line feed,
was never acknowledged and counts for nothing. Everything else counts, and has to be what was written.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from quire.transparency.checkpoints import MAX_BYTES as MAX_NOTE
from quire.transparency.checkpoints import Note
from quire.transparency.entries import MAX_BYTES, Entry, kind_of
from quire.transparency.errors import CheckpointError, LogDamaged, LogError
from quire.transparency.merkle import leaf_hashes
from quire.transparency.tree import CHUNK, Tree

ENTRIES, CHECKPOINTS = "entries.jsonl", "checkpoints.txt"
_BLOCK = 2**20


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn an operating system's error into a :class:`LogError` that names the path and what was being done."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise LogError(f"The log's file {path} cannot be {doing}: {reason}.") from error


def blocks(stream: BinaryIO, path: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a log in blocks, with their line feeds; a last line without one is left out.

    Raises
    ------
    LogDamaged
        If a line is longer than any entry.
    """
    rest = b""
    while block := stream.read(_BLOCK):
        end = block.rfind(b"\n") + 1
        if not end:
            rest += block
        else:
            yield BytesIO(rest + block[:end]).readlines()
            rest = block[end:]
        if len(rest) > MAX_BYTES:
            raise LogDamaged(f"{path} is no log: it has a line of more than {MAX_BYTES} bytes.")


class Entries:
    """The entries of a log, and the tree over them; reads the file once, and keeps a few bytes for each 256 entries.

    Parameters
    ----------
    path : pathlib.Path
        The file ``entries.jsonl``.
    at_sizes : sequence of int
        Sizes, ascending, at which the root is wanted.
    forms : bool
        Whether every entry is held to the form of its kind. The tree needs no such look: it is over bytes.

    Attributes
    ----------
    tree : Tree
    bytes : int
        Of all finished lines.
    torn : int
        Bytes of an unfinished last line.
    kinds : collections.Counter of str
        With ``forms``, how many entries there are of each kind.
    roots : dict of int to bytes
        At the sizes that were wanted, as far as the log reaches.

    Raises
    ------
    LogDamaged
        If a line is longer than any entry, or with ``forms`` is none; the first is named.
    LogError
        If the file cannot be read.
    """

    def __init__(self, path: Path, at_sizes: Sequence[int] = (), forms: bool = False) -> None:
        self.path, self.bytes, self.torn, self.kinds = path, 0, 0, Counter[str]()
        self.tree = Tree(self._hashes)
        self.roots: dict[int, bytes] = {}
        self._starts = array("Q")  # where in the file every 256th entry begins
        wanted = iter(at_sizes)
        following = next(wanted, None)
        with explained(path, "read"), path.open("rb", buffering=0) as stream:
            for lines in blocks(stream, path):
                if forms:
                    self._check(lines)
                at = 0
                while following is not None and following <= self.tree.size + len(lines) - at:
                    end = at + following - self.tree.size
                    self.add(lines[at:end])
                    self.roots[following], at = self.tree.root(), end
                    following = next(wanted, None)
                self.add(lines[at:] if at else lines)
            if following == self.tree.size:  # of an empty log
                self.roots[following] = self.tree.root()
            self.torn = os.fstat(stream.fileno()).st_size - self.bytes

    def add(self, lines: Sequence[bytes]) -> None:
        """Take further lines into the tree."""
        at = -self.tree.size % CHUNK
        sizes = [*map(len, lines)]
        begun = 0
        for number in range(at, len(lines), CHUNK):
            self.bytes += sum(sizes[begun:number])
            self._starts.append(self.bytes)
            begun = number
        self.bytes += sum(sizes[begun:])
        self.tree.extend(leaf_hashes(lines))

    def _check(self, lines: Sequence[bytes]) -> None:
        for number, kind in enumerate(map(kind_of, lines), start=self.tree.size):
            if kind is None:
                raise LogDamaged(f"Entry {number} of {self.path} is not the spelling of an entry: it was changed.")
            self.kinds[kind] += 1

    def _hashes(self, start: int, end: int) -> Sequence[bytes]:
        return leaf_hashes(self.lines(start, end))

    def lines(self, start: int, end: int) -> list[bytes]:
        """Return the lines of some entries, with their line feeds.

        Raises
        ------
        LogError
            If they cannot be read, or there are fewer.
        """
        if not 0 <= start <= end <= self.tree.size:
            raise LogError(f"There are no entries {start} to {end - 1} in {self.path}, which has {self.tree.size}.")
        if start == end:
            return []
        with explained(self.path, "read"), self.path.open("rb") as stream:
            stream.seek(self._starts[start // CHUNK])
            for _ in range(start % CHUNK):
                stream.readline()
            found = [stream.readline() for _ in range(end - start)]
        if not found[-1].endswith(b"\n"):
            raise LogDamaged(f"{self.path} has become shorter while it was read.")
        return found

    def entry(self, index: int) -> Entry:
        """Return an entry, counted from 0.

        Raises
        ------
        LogDamaged
            If it is not what was written.
        LogError
            If there is none.
        """
        return parsed(self.lines(index, index + 1)[0], index, self.path)

    def each(self, keep: Callable[[bytes], bool] | None = None) -> Iterator[tuple[int, Entry]]:
        """Yield all entries with their numbers, or those whose line a function picks.

        Raises
        ------
        LogDamaged
            If one is not what was written.
        """
        number = 0
        with explained(self.path, "read"), self.path.open("rb", buffering=0) as stream:
            for lines in blocks(stream, self.path):
                for line in lines:
                    if keep is None or keep(line):
                        yield number, parsed(line, number, self.path)
                    number += 1


def parsed(line: bytes, number: int, path: Path) -> Entry:
    """Read an entry, and say where it stands if it is none."""
    try:
        return Entry.parse(line)
    except LogDamaged:
        raise LogDamaged(f"Entry {number} of {path} is not the spelling of an entry: it was changed.") from None


def read_notes(path: Path) -> tuple[list[Note], int]:
    """Read the checkpoints of a log; those that stand there several times, with more signatures, become one.

    Returns
    -------
    list of Note
        In the order in which they were first written; no signature is checked.
    int
        The bytes of finished ones; what follows is what a crash left behind.

    Raises
    ------
    LogDamaged
        If something that is finished is no checkpoint.
    """
    found: dict[str, Note] = {}
    size = 0
    for block in _note_blocks(path):
        try:
            note = Note.decode(block[:-1])
        except CheckpointError as error:
            raise LogDamaged(f"{path}, behind byte {size}: {error}") from None
        known = found.get(note.checkpoint.text)
        found[note.checkpoint.text] = note if known is None else known.with_marks(*note.marks)
        size += len(block)
    return list(found.values()), size


def _note_blocks(path: Path) -> Iterator[bytes]:
    """Yield notes with the blank line behind them: five lines, a blank one, signatures, a blank one."""
    parts: list[bytes] = []
    blank = length = 0
    try:
        with explained(path, "read"), path.open("rb") as stream:
            while line := stream.readline(MAX_NOTE):
                parts.append(line)
                length += len(line)
                if length > MAX_NOTE:
                    raise LogDamaged(f"{path} has a checkpoint of more than {MAX_NOTE} bytes.")
                blank += line == b"\n"
                if blank == 2:
                    yield b"".join(parts)
                    parts, blank, length = [], 0, 0
    except LogError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
