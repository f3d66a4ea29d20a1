"""The Merkle tree of a transparency log: hashes, proofs, and how they are checked. Pure functions over bytes.

Everything is as RFC 6962, section 2.1, defines it, and RFC 9162, section 2.1, repeats it: SHA-256, a zero byte before a
leaf, a one byte before two nodes, and a tree that splits at the largest power of two below its size. The two bytes keep
a leaf from passing for a node. Verification follows the algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from quire.transparency.errors import ProofError

#: Bytes in a hash.
SIZE = 32
#: The root of a tree without leaves.
EMPTY = sha256(b"").digest()
#: No path is longer: a log of 2**63 entries would not fit on any disk.
MAX_PATH = 64

#: Returns the hash of the leaves from one (counted from 0) to before another.
Span = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf: ``SHA256(0x00 || data)``."""
    return sha256(b"\x00" + data).digest()


def leaf_hashes(leaves: Iterable[bytes]) -> list[bytes]:
    """Return the hashes of many leaves, in order."""
    return [sha256(b"\x00" + data).digest() for data in leaves]


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node: ``SHA256(0x01 || left || right)``."""
    return sha256(b"\x01" + left + right).digest()


def parents(hashes: Sequence[bytes]) -> list[bytes]:
    """Return the hashes of the nodes over an even number of neighbours."""
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=True)]


def split(size: int) -> int:
    """Return the largest power of two that is smaller than a size of at least two: where a tree divides."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_path(index: int, size: int, span: Span) -> list[bytes]:
    """Return the proof that a leaf is in a tree: its neighbours on the way to the root, from the leaf up.

    Parameters
    ----------
    index : int
        Of the leaf, from 0.
    size : int
        How many leaves the tree has.
    span : callable
        Returns the hash over a range of leaves.

    Returns
    -------
    list of bytes
        At most ``ceil(log2(size))`` hashes.

    Raises
    ------
    ProofError
        If there is no such leaf.
    """
    if not 0 <= index < size:
        raise ProofError(f"There is no entry {index} in a log of {size}.")
    start, end = 0, size
    path = []
    while end - start > 1:
        middle = start + split(end - start)
        if index < middle:
            path.append(span(middle, end))
            end = middle
        else:
            path.append(span(start, middle))
            start = middle
    return path[::-1]


def consistency_path(old: int, new: int, span: Span) -> list[bytes]:
    """Return the proof that a tree begins with all the leaves of a smaller one (RFC 9162, 2.1.4.1).

    Parameters
    ----------
    old, new : int
        How many leaves the two have.
    span : callable
        Returns the hash over a range of leaves.

    Returns
    -------
    list of bytes
        Empty where there is nothing to show: both of one size, or the smaller one empty.

    Raises
    ------
    ProofError
        If the old one is not the smaller one.
    """
    if not 0 <= old <= new:
        raise ProofError(f"A log of {new} entries cannot have grown out of one of {old}.")
    if old in (0, new):
        return []
    start, end, whole = 0, new, True  # whole: the old tree is a subtree of the new one, so that its root is known
    path = []
    while end > old:
        middle = start + split(end - start)
        if old <= middle:
            path.append(span(middle, end))
            end = middle
        else:
            path.append(span(start, middle))
            start, whole = middle, False
    return path[::-1] if whole else [span(start, old), *path[::-1]]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf is in a tree (RFC 9162, 2.1.3.2); return nothing if it is.

    Parameters
    ----------
    leaf : bytes
        The hash of the leaf.
    index : int
        Where it is, from 0.
    size : int
        How many leaves the tree has.
    path : sequence of bytes
        The proof.
    root : bytes
        Of the tree.

    Raises
    ------
    ProofError
        In every other case, whatever the bytes are.
    """
    _check_form(path)
    if not 0 <= index < size:
        raise ProofError(f"There is no entry {index} in a log of {size}.")
    first, last = index, size - 1
    found = leaf
    for step in path:
        if last == 0:
            raise ProofError("The proof has more hashes than the way to the root has steps.")
        if first & 1 or first == last:
            found = node_hash(step, found)
            first, last = _to_left_edge(first, last)
        else:
            found = node_hash(found, step)
        first, last = first >> 1, last >> 1
    if last != 0 or found != root:
        raise ProofError(f"The proof does not lead from entry {index} to the root of the log at {size} entries.")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that a tree begins with all the leaves of a smaller one (RFC 9162, 2.1.4.2); return nothing if it does.

    Parameters
    ----------
    old, new : int
        How many leaves the two have.
    old_root, new_root : bytes
    path : sequence of bytes
        The proof; empty if both have one size, or the old one is empty.

    Raises
    ------
    ProofError
        In every other case, whatever the bytes are.
    """
    _check_form(path)
    if not 0 <= old <= new:
        raise ProofError(f"A log of {new} entries cannot have grown out of one of {old}.")
    if old in (0, new):
        if path or old_root != (new_root if old else EMPTY):
            raise ProofError(f"The roots of the log at {old} and at {new} entries contradict each other.")
        return
    steps = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not steps:
        raise ProofError("The proof of consistency is empty.")
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    found_old = found_new = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise ProofError("The proof has more hashes than the way to the root has steps.")
        if first & 1 or first == last:
            found_old, found_new = node_hash(step, found_old), node_hash(step, found_new)
            first, last = _to_left_edge(first, last)
        else:
            found_new = node_hash(found_new, step)
        first, last = first >> 1, last >> 1
    if last != 0 or found_old != old_root or found_new != new_root:
        raise ProofError(f"The log at {new} entries does not begin with the log that was seen at {old} entries.")


def _to_left_edge(first: int, last: int) -> tuple[int, int]:
    while first and not first & 1:
        first, last = first >> 1, last >> 1
    return first, last


def _check_form(path: Sequence[bytes]) -> None:
    if len(path) > MAX_PATH or any(len(step) != SIZE for step in path):
        raise ProofError(f"A proof is a list of at most {MAX_PATH} hashes of {SIZE} bytes.")
