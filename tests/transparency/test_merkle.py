"""The tree against the definition, a naive recursion, and the published vectors of Certificate Transparency."""

import hashlib
import math
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quire.transparency import merkle
from quire.transparency.errors import ProofError
from quire.transparency.tree import CHUNK, Tree

# The test leaves of the Certificate Transparency reference implementation, and the roots of the first n of them.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive(leaves: list[bytes]) -> bytes:
    """Return MTH of RFC 6962, 2.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + naive(leaves[:half]) + naive(leaves[half:])).digest()


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """Return PATH of RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    half = merkle.split(len(leaves))
    if index < half:
        return [*naive_path(index, leaves[:half]), naive(leaves[half:])]
    return [*naive_path(index - half, leaves[half:]), naive(leaves[:half])]


def naive_proof(old: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """Return SUBPROOF of RFC 6962, 2.1.2."""
    if old == len(leaves):
        return [] if whole else [naive(leaves)]
    half = merkle.split(len(leaves))
    if old <= half:
        return [*naive_proof(old, leaves[:half], whole), naive(leaves[half:])]
    return [*naive_proof(old - half, leaves[half:], False), naive(leaves[:half])]


def tree_of(leaves: list[bytes], cuts: list[int] | None = None) -> Tree:
    """Grow a tree in batches that end at ``cuts``."""
    hashes = merkle.leaf_hashes(leaves)
    tree = Tree(lambda start, end: hashes[start:end])
    edges = sorted({0, len(leaves), *(cut % (len(leaves) + 1) for cut in cuts or [])})
    for start, end in pairwise(edges):
        tree.extend(hashes[start:end])
    return tree


def numbered(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots(size):
    assert merkle.EMPTY.hex() == ROOTS[0]
    assert naive(LEAVES[:size]).hex() == ROOTS[size]
    tree = tree_of(LEAVES[:size], [1, 3, 4])
    assert tree.root().hex() == ROOTS[size]
    assert tree_of(LEAVES).span(0, size).hex() == ROOTS[size]


def test_the_example_of_the_rfc():
    """RFC 6962, 2.1.3: seven leaves, the paths and proofs that it spells out in letters."""
    a, b, c, d, e, f, j = merkle.leaf_hashes(numbered(7))
    g, h, i = merkle.node_hash(a, b), merkle.node_hash(c, d), merkle.node_hash(e, f)
    k = merkle.node_hash(g, h)
    ell = merkle.node_hash(i, j)
    tree = tree_of(numbered(7))
    assert tree.inclusion(0) == [b, h, ell]
    assert tree.inclusion(3) == [c, g, ell]
    assert tree.inclusion(4) == [f, j, k]
    assert tree.inclusion(6) == [i, k]
    assert tree.consistency(3) == [c, d, g, ell]
    assert tree.consistency(4) == [ell]
    assert tree.consistency(6) == [i, j, k]


@given(st.integers(0, 70), st.lists(st.integers(0, 70), max_size=5), st.data())
def test_roots_and_proofs_are_those_of_the_definition(size, cuts, data):
    leaves = numbered(size)
    tree = tree_of(leaves, cuts)
    assert tree.root() == naive(leaves)
    if size:
        part = data.draw(st.integers(1, size))
        index = data.draw(st.integers(0, part - 1))
        path = tree.inclusion(index, part)
        assert path == naive_path(index, leaves[:part])
        assert len(path) <= math.ceil(math.log2(part))
        merkle.verify_inclusion(merkle.leaf_hash(leaves[index]), index, part, path, naive(leaves[:part]))
        old = data.draw(st.integers(1, part))
        proof = tree.consistency(old, part)
        assert proof == naive_proof(old, leaves[:part])
        merkle.verify_consistency(old, naive(leaves[:old]), part, naive(leaves[:part]), proof)


@settings(max_examples=20, deadline=None)
@given(st.integers(CHUNK - 2, 4 * CHUNK + 3), st.lists(st.integers(0, 5 * CHUNK), max_size=4), st.data())
@example(4 * CHUNK, [], None)
@example(CHUNK, [1], None)
def test_trees_beyond_one_chunk(size, cuts, data):
    leaves = numbered(size)
    tree = tree_of(leaves, cuts)
    assert tree.root() == naive(leaves)
    part, index = (size, size // 2) if data is None else (data.draw(st.integers(1, size)), data.draw(st.integers(0)))
    index %= part
    assert tree.inclusion(index, part) == naive_path(index, leaves[:part])
    assert tree.consistency(index + 1, part) == naive_proof(index + 1, leaves[:part])
    assert tree.span(0, part) == naive(leaves[:part])


def test_nothing_grows_out_of_an_empty_log_but_anything_may():
    tree = tree_of(numbered(5))
    assert tree.consistency(0) == tree.consistency(5) == []
    merkle.verify_consistency(0, merkle.EMPTY, 5, tree.root(), [])
    merkle.verify_consistency(5, tree.root(), 5, tree.root(), [])
    for old, root, new, path in [
        (0, bytes(32), 5, []),
        (0, merkle.EMPTY, 5, [bytes(32)]),
        (5, bytes(32), 5, []),
        (5, tree.root(), 5, [bytes(32)]),
        (6, tree.root(), 5, []),
        (-1, tree.root(), 5, []),
        (3, tree.root(), 5, []),
    ]:
        with pytest.raises(ProofError):
            merkle.verify_consistency(old, root, new, tree.root(), path)


@settings(max_examples=40)
@given(st.integers(1, 40), st.data())
def test_a_changed_proof_of_inclusion_is_refused(size, data):
    leaves = numbered(size)
    tree, index = tree_of(leaves), data.draw(st.integers(0, size - 1))
    path, leaf = tree.inclusion(index), merkle.leaf_hash(leaves[index])
    other = data.draw(st.integers(-2, size + 2).filter(lambda value: value != index))
    wrong = [(leaf, other, size, path), (bytes(32), index, size, path), (leaf, index, size, [*path, bytes(32)])]
    wrong += [(leaf, index, size, path[:-1])] if path else []
    wrong += [(leaf, index, size, [*path[:at], bytes(32), *path[at + 1 :]]) for at in range(len(path))]
    wrong += [(leaf, index, size, [b"short"])]
    for case in wrong:
        with pytest.raises(ProofError):
            merkle.verify_inclusion(*case, tree.root())


@given(st.integers(2, 40), st.data())
def test_a_changed_proof_of_consistency_is_refused(size, data):
    leaves = numbered(size)
    tree, old = tree_of(leaves), data.draw(st.integers(1, size - 1))
    path, before = tree.consistency(old), tree.span(0, old)
    merkle.verify_consistency(old, before, size, tree.root(), path)
    wrong = [(old, bytes(32), path), (old, before, [*path, bytes(32)]), (old, before, path[:-1])]
    wrong += [(old, before, [*path[:at], bytes(32), *path[at + 1 :]]) for at in range(len(path))]
    for number, root, proof in wrong:
        with pytest.raises(ProofError):
            merkle.verify_consistency(number, root, size, tree.root(), proof)
    # The other log has another entry, somewhere in what was seen.
    changed = data.draw(st.integers(0, old - 1))
    other = tree_of([*leaves[:changed], b"changed", *leaves[changed + 1 :]])
    with pytest.raises(ProofError):
        merkle.verify_consistency(old, before, size, other.root(), other.consistency(old))


def test_no_proof_is_made_of_what_is_not_there():
    tree = tree_of(numbered(5))
    for ask in (
        lambda: tree.inclusion(5),
        lambda: tree.inclusion(-1),
        lambda: tree.inclusion(0, 6),
        lambda: tree.consistency(6),
        lambda: tree.consistency(2, 6),
        lambda: tree.consistency(4, 3),
        lambda: tree.span(2, 6),
    ):
        with pytest.raises(ProofError):
            ask()


def test_a_leaf_is_no_node():
    left, right = merkle.leaf_hashes([b"a", b"b"])
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)
