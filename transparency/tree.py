"""A growing Merkle tree that keeps little: the nodes from level 8 up, and the leaves of the last, unfinished 256.

Whatever lies below is hashed anew from the leaves when a proof needs it, at most 255 of them a time. So a log of a
million entries takes a quarter of a megabyte of memory here, and no second file that could disagree with the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quire.transparency.errors import ProofError
from quire.transparency.merkle import EMPTY, SIZE, consistency_path, inclusion_path, node_hash, parents, split

#: Leaves below a node that is kept.
CHUNK = 256
_LEVEL = CHUNK.bit_length() - 1

#: Returns the hashes of the leaves from one (counted from 0) to before another, which never cross a chunk.
Leaves = Callable[[int, int], Sequence[bytes]]


class Tree:
    """A tree that grows on the right.

    Parameters
    ----------
    leaves : callable
        Returns the hashes of earlier leaves, all of them in one chunk of 256; asked for proofs only.

    Attributes
    ----------
    size : int
        Leaves so far.
    """

    def __init__(self, leaves: Leaves) -> None:
        self.size = 0
        self._leaves = leaves
        self._low: list[list[bytes]] = [[] for _ in range(_LEVEL)]  # of the unfinished chunk, by level
        self._high: list[bytearray] = []  # complete nodes from level 8 up, by level

    def extend(self, hashes: Sequence[bytes]) -> None:
        """Add leaves, by their hashes."""
        at = 0
        while at < len(hashes):
            end = at + CHUNK - self.size % CHUNK
            part = hashes[at:end]
            self._fill(list(part))
            self.size += len(part)
            at = end

    def _fill(self, made: list[bytes]) -> None:
        """Add leaves to the unfinished chunk, which they do not exceed."""
        for number, level in enumerate(self._low):
            level += made
            above = self._low[number + 1] if number + 1 < _LEVEL else ()
            made = parents(level[2 * len(above) : len(level) & ~1])
            if not made:
                return
        for level in self._low:
            level.clear()
        self._keep(made[0])

    def _keep(self, node: bytes) -> None:
        for level in self._high:
            level += node
            if len(level) % (2 * SIZE):
                return
            node = node_hash(bytes(level[-2 * SIZE : -SIZE]), node)
        self._high.append(bytearray(node))

    def root(self) -> bytes:
        """Return the root over all leaves."""
        found: bytes | None = None
        for level in self._low:
            if len(level) % 2:
                found = level[-1] if found is None else node_hash(level[-1], found)
        for kept in self._high:
            if len(kept) // SIZE % 2:
                last = bytes(kept[-SIZE:])
                found = last if found is None else node_hash(last, found)
        return EMPTY if found is None else found

    def span(self, start: int, end: int) -> bytes:
        """Return the hash over some of the leaves, as they stand in the tree of the first ``end`` leaves.

        Parameters
        ----------
        start, end : int
            The first leaf and the one after the last; the start divides by the power of two that reaches the end.

        Raises
        ------
        ProofError
            If there are fewer leaves.
        """
        if not 0 <= start <= end <= self.size:
            raise ProofError(f"There are no entries {start} to {end} in a log of {self.size}.")
        width = end - start
        if width == 0:
            return EMPTY
        if width & (width - 1) or start % width:
            middle = start + split(width)
            return node_hash(self.span(start, middle), self.span(middle, end))
        level = width.bit_length() - 1
        if level >= _LEVEL:
            at = (start >> level) * SIZE
            return bytes(self._high[level - _LEVEL][at : at + SIZE])
        unfinished = self.size // CHUNK * CHUNK
        if start >= unfinished:
            return self._low[level][(start - unfinished) >> level]
        hashes = self._leaves(start, end)
        while len(hashes) > 1:
            hashes = parents(hashes)
        return hashes[0]

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Return the proof that a leaf is among the first so many, by default all.

        Raises
        ------
        ProofError
            If there is no such leaf, or there are fewer.
        """
        return inclusion_path(index, self._checked(size), self.span)

    def consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """Return the proof that the tree of so many leaves begins with the one of fewer.

        Raises
        ------
        ProofError
            If there are fewer leaves.
        """
        return consistency_path(old, self._checked(size), self.span)

    def _checked(self, size: int | None) -> int:
        if size is not None and size > self.size:
            raise ProofError(f"The log has {self.size} entries, not {size}.")
        return self.size if size is None else size
