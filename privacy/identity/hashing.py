"""One hash with a tag for every use, so that a digest made for one purpose can never stand for another.

The encoding is injective: every part, and the tag, is preceded by its length, so that no two different lists of
parts are the same bytes before hashing, whatever the parts hold.
"""

from __future__ import annotations

import hashlib

#: Bytes in a digest.
DIGEST_SIZE = 32


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    """Return ``SHA256(len64(tag) || tag || len64(p1) || p1 || ...)``.

    Parameters
    ----------
    tag : str
        What the digest is for, as in ``"quire/roster/1"``; encoded in UTF-8. Every use has a tag of its own.
    parts : bytes
        What is hashed. Lengths are 64-bit big-endian counts of bytes.

    Returns
    -------
    bytes
        The 32 bytes of the digest.
    """
    digest = hashlib.sha256()
    for part in (tag.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
