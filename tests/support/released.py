"""Registries with small envelopes in them, recipients with keys from seeds, and runs that can be released."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

import numpy as np

from quire.clients.arrays import fingerprint
from quire.privacy.identity.canonical import dumps
from quire.privacy.identity.keys import PrivateIdentity
from quire.releases.envelope import Envelope, seal
from quire.releases.header import GIVEN, MODEL, RUN, SETTINGS, Header, Origin, Part
from quire.releases.recipients import SEED_SIZE, Recipient, RecipientKey
from quire.releases.registry import Registry, envelope_file, opened
from quire.strategies.checkpoint import safetensors

NOW, DAY = 1_800_000_000, 24 * 3600
RELEASER = PrivateIdentity.from_seed(b"releaser".ljust(32))
STRANGER = PrivateIdentity.from_seed(b"stranger".ljust(32))
PIN = RELEASER.public.fingerprint


@cache
def key_of(name: str) -> RecipientKey:
    """Return a recipient's secret keys: always the same."""
    return RecipientKey(name, name.encode().ljust(SEED_SIZE, b"."))


def recipient_of(name: str) -> Recipient:
    """Return a recipient's public key."""
    return Recipient(name, key_of(name).key)


def key_file(folder: Path, name: str) -> Path:
    """Write a recipient's secret file."""
    path = folder / f"{name}.recipient"
    seed = name.encode().ljust(SEED_SIZE, b".").hex()
    path.write_bytes(dumps({"format": "quire-recipient-secret-1", "name": name, "seed": seed}))
    path.chmod(0o600)
    return path


def arrays_of(number: int = 1) -> dict[str, np.ndarray]:
    """Return a small model."""
    return {"weight": np.full((2, 3), float(number), np.float32)}


def header_of(parts: dict[str, bytes], *names: str, identity: PrivateIdentity = RELEASER, **changes: object) -> Header:
    """Return a header that fits parts and recipients."""
    model = fingerprint(arrays_of())
    told = {
        **{"name": "heart", "version": 1, "previous": None, "registry": "ab" * 32, "releaser": identity.public},
        **{"issued": NOW, "expires": NOW + 30 * DAY, "purpose": "Research, Zürich.", "model": model},
        "parts": tuple(Part(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in parts.items()),
        "recipients": tuple(recipient_of(name).id for name in names),
        "origin": Origin(model, None, GIVEN, "cd" * 32, False),
    }
    return Header(**{**told, **changes})  # type: ignore[arg-type]


def parts_of(number: int = 1) -> dict[str, bytes]:
    """Return what an envelope must hold at least."""
    return {MODEL: safetensors(arrays_of(number)), SETTINGS: b"seed: 1\n", RUN: b"{}\n"}


def envelope_of(*names: str, identity: PrivateIdentity = RELEASER, **changes: object) -> Envelope:
    """Return an envelope for these recipients."""
    parts = parts_of()
    header = header_of(parts, *names, identity=identity, **changes)
    return seal(header, parts, [recipient_of(name) for name in names], identity)


def released(registry: Registry, *names: str, number: int = 1, **changes: object) -> Path:
    """Release a small model as the next version."""
    known = registry.book.models.get("heart")
    last = known.versions[-1] if known else None
    told = {
        **{"registry": registry.book.id, "version": last.number + 1 if last else 1},
        **{"previous": last.envelope if last else None, "model": fingerprint(arrays_of(number))},
    }
    parts = parts_of(number)
    header = header_of(parts, *names, **{**told, **changes})
    return registry.release(seal(header, parts, [recipient_of(name) for name in names], RELEASER))


def registry_of(folder: Path, versions: int = 2, *names: str) -> Path:
    """Begin a registry with some versions of one model."""
    with opened(folder, RELEASER, NOW, new=True) as registry:
        for number in range(1, versions + 1):
            released(registry, *(names or ("berlin",)), number=number)
    return folder


def file_of(folder: Path, version: int) -> Path:
    """Return where a version's envelope lies."""
    return envelope_file(folder, "heart", version)


def files_of(folder: Path) -> set[str]:
    """Return what lies in a registry, but for its lock."""
    return {os.fspath(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"lock"}
