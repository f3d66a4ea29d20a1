"""Where random numbers come from: one explicit generator for every purpose, never a global seed.

A simulation is reproducible because every draw is named: by the run's seed, and by what it is for (for example
round 3, silo "hospital-2", purpose "batches"). Draws with different names are independent, and no draw depends on
how many others were made before it, so the order in which silos happen to work cannot change a result.
"""

from __future__ import annotations

import hashlib

import numpy as np

Label = str | int


def derive_seed(seed: int, *labels: Label) -> int:
    """Derive a 256-bit seed from a run's seed and the name of a purpose.

    Parameters
    ----------
    seed : int
        The run's seed, at least 0.
    labels : str or int
        The name of the draw. Labels of different types or different splits never collide.

    Returns
    -------
    int
        SHA-256 over the length-prefixed labels, read as an integer in [0, 2**256).
    """
    digest = hashlib.sha256(b"quire-seed-1")
    for label in (seed, *labels):
        text = f"{type(label).__name__}:{label}".encode()
        digest.update(len(text).to_bytes(8, "big"))
        digest.update(text)
    return int.from_bytes(digest.digest(), "big")


def stream(seed: int, *labels: Label) -> np.random.Generator:
    """Open the reproducible stream of random numbers with this name. For simulation only: it is not secret.

    Parameters
    ----------
    seed : int
        The run's seed, at least 0.
    labels : str or int
        The name of the draw, as in ``stream(seed, "batches", round, silo)``.

    Returns
    -------
    numpy.random.Generator
        A fresh generator; two calls with the same name yield the same numbers.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(_words(derive_seed(seed, *labels)))))


def _words(number: int) -> np.ndarray:
    """Return the 32-bit words that NumPy makes of a seed, which takes it as long as all the rest of seeding."""
    length = max(1, -(-number.bit_length() // 32))
    return np.frombuffer(number.to_bytes(4 * length, "little"), dtype="<u4").astype(np.uint32, copy=False)


def key(seed: int, *labels: Label) -> bytes:
    """Derive the key of a simulated :class:`quire.privacy.csprng.Csprng`. A deployment draws its keys from the system.

    Parameters
    ----------
    seed : int
        The run's seed, at least 0.
    labels : str or int
        The name of the draw, as in ``key(seed, "noise", round, silo, step)``.

    Returns
    -------
    bytes
        32 bytes; unrelated to the numbers of ``stream`` under the same name.
    """
    return derive_seed(seed, "key", *labels).to_bytes(32, "big")
