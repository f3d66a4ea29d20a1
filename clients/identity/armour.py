"""The text form of key files: a few lines for people, base64 for the rest, a checksum over all of it.

::

    -----BEGIN QUIRE PUBLIC IDENTITY-----
    Format: 1
    Name: hospital-1
    Keys: Ed25519
    Fingerprint: 7c1d...

    AQE...

    Checksum: 90ab...
    -----END QUIRE PUBLIC IDENTITY-----

The checksum finds damage, not malice: what protects a public key is its fingerprint, compared by people, and what
protects a secret key is the file's mode and its passphrase.
"""

from __future__ import annotations

import base64
import binascii
import re
import textwrap

from quire.privacy.identity.errors import BadEncoding
from quire.privacy.identity.hashing import tagged_hash

PUBLIC, PRIVATE = "PUBLIC", "PRIVATE"
#: More than any key file has; a file that is larger is something else.
MAX_BYTES = 16 * 1024

_TAG = "quire/armour/1"
_FIRST_LINE = re.compile(r"-----BEGIN QUIRE (PUBLIC|PRIVATE) IDENTITY-----")
_HEADER = re.compile(r"([A-Z][a-z]+): ([!-~]+)")


def write(kind: str, headers: dict[str, str], body: bytes) -> bytes:
    """Return the text form of a public or private identity."""
    lines = [f"{key}: {value}" for key, value in headers.items()]
    lines += ["", *textwrap.wrap(base64.b64encode(body).decode(), 64), ""]
    checksum = tagged_hash(_TAG, kind.encode(), "\n".join(lines).encode()).hex()
    text = [f"-----BEGIN QUIRE {kind} IDENTITY-----", *lines, f"Checksum: {checksum}"]
    return "\n".join([*text, f"-----END QUIRE {kind} IDENTITY-----", ""]).encode("ascii")


def read(data: bytes) -> tuple[str, dict[str, str], bytes]:
    """Read the text form: its kind, its headers and its body.

    Line ends of mail programs and editors are forgiven, nothing else is.

    Raises
    ------
    BadEncoding
        If it is something else, or was damaged.
    """
    try:
        text = data.decode("ascii").replace("\r\n", "\n").strip() + "\n"
    except UnicodeDecodeError:
        raise BadEncoding("this is not a key file of Quire's.") from None
    first = _FIRST_LINE.match(text)
    if first is None:
        raise BadEncoding("this is not a key file of Quire's.")
    kind = first.group(1)
    sections = text.split("\n\n")
    if len(sections) != 3:
        raise BadEncoding("the key file is damaged or incomplete.")
    headers = {}
    for line in sections[0].split("\n")[1:]:
        if (found := _HEADER.fullmatch(line)) is not None:
            headers[found.group(1)] = found.group(2)
    try:
        body = base64.b64decode(sections[1].replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        raise BadEncoding("the key file is damaged or incomplete.") from None
    if write(kind, headers, body) != text.encode():
        raise BadEncoding("the key file is damaged or incomplete.")
    return kind, headers, body
