"""Where a silo's own random numbers come from: named streams of a seed in simulation, the operating system else.

A seed that the server knows would let it take the noise off an update again, and tell which rows were in a batch.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from quire.privacy import randomness
from quire.privacy.randomness import Label

KEY_BYTES = 32


class Entropy(Protocol):
    """What a silo draws from. Labels name the purpose: ``entropy.generator("batches", round, silo)``."""

    def generator(self, *labels: Label) -> np.random.Generator:
        """Open a generator for one purpose: for shuffling, not for noise that must stay secret."""

    def key(self, *labels: Label) -> bytes:
        """Return 32 bytes that key a cryptographic generator, for noise and for sampling under privacy."""


@dataclass(frozen=True)
class Seeded:
    """The simulator's: the same seed and labels give the same numbers. Nothing drawn from it is secret."""

    seed: int

    def generator(self, *labels: Label) -> np.random.Generator:
        """Return the reproducible stream of this name; see :func:`quire.privacy.randomness.stream`."""
        return randomness.stream(self.seed, *labels)

    def key(self, *labels: Label) -> bytes:
        """Return the reproducible key of this name; see :func:`quire.privacy.randomness.key`."""
        return randomness.key(self.seed, *labels)


@dataclass(frozen=True)
class Fresh:
    """A real silo's: from the operating system, other numbers at every call. Labels count for nothing."""

    def generator(self, *labels: Label) -> np.random.Generator:
        """Return a generator with 256 fresh bits as its seed."""
        return np.random.Generator(np.random.PCG64(secrets.randbits(256)))

    def key(self, *labels: Label) -> bytes:
        """Return 32 fresh bytes."""
        return secrets.token_bytes(KEY_BYTES)
