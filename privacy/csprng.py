"""Random numbers that nobody can predict: the keystream of AES-256-CTR under a key that the caller hands in.

Everything that differential privacy rests on (noise, stochastic rounding, which records a batch holds) is drawn here
and never from a generator of numpy or torch. In a deployment the caller draws a fresh key from the operating system,
``Csprng(os.urandom(32))``, for every purpose and every attempt; in a simulation the key is
``quire.privacy.randomness.key(seed, ...)`` and the run can be repeated. A source belongs to the process that made it:
after a fork the child's draws would repeat the parent's, so they are refused.

Not constant in time: rejection and table look-ups depend on what was drawn. Noise is drawn inside the silo, where only
the total time of a step can be seen from outside.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

KEY_BYTES = 32
_BLOCK = 1 << 16  # bytes handed to the cipher at a time: they stay in the first-level cache
_ZEROS = bytes(_BLOCK)
_CHUNK = 1 << 15  # numbers worked on at a time, for the same reason
_WORD = 1 << 64


class RandomnessError(ValueError):
    """A source of random numbers was made or asked for something that it cannot give."""


class Csprng:
    """A source of independent uniform random bits, as strong as AES-256, that is used up from front to back.

    Parameters
    ----------
    key : bytes
        32 bytes, secret in a deployment, never used for two sources: equal keys yield equal numbers.

    Raises
    ------
    RandomnessError
        If the key does not have 32 bytes.

    Notes
    -----
    The counter starts at zero, which is sound because a key serves one source only. Numbers are read little-endian,
    so a seeded simulation draws the same ones on every machine.
    """

    __slots__ = ("_begun", "_cipher", "_key", "_process")

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise RandomnessError(f"the key of a random source must be {KEY_BYTES} bytes: draw it with os.urandom(32)")
        self._key = key
        self._process, self._begun = os.getpid(), False
        self._cipher: CipherContext = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def __repr__(self) -> str:
        return "Csprng(<secret key>)"

    def __reduce__(self) -> NoReturn:
        raise RandomnessError("a random source cannot be copied or sent to another process: make one there")

    def child(self, *labels: str | int) -> Csprng:
        """Derive an independent source for a named purpose, whatever was drawn from this one before.

        Parameters
        ----------
        labels : str or int
            The name, as in ``source.child("step", 7)``. Labels of different types or splits never collide.
        """
        digest = hashlib.sha256(b"quire/csprng/child/1" + self._key)
        for label in labels:
            text = f"{type(label).__name__}:{label}".encode()
            digest.update(len(text).to_bytes(8, "big") + text)
        return Csprng(digest.digest())

    def take_over(self, other: Csprng) -> bool:
        """Go on where another source of the same key stands, as if what it has drawn had been drawn here.

        From then on the two are one: what either draws, neither draws again.

        Returns
        -------
        bool
            Whether that was done: not where the keys differ, or something was drawn here already.
        """
        if self._begun or not hmac.compare_digest(self._key, other._key):
            return False
        self._own()
        other._own()
        self._cipher = other._cipher
        return True

    def _own(self) -> None:
        if os.getpid() != self._process:
            raise RandomnessError("a random source was carried over a fork and would repeat itself: make a new one")
        self._begun = True

    def _fill(self, buffer: NDArray[Any]) -> None:
        self._own()
        # The cipher may ask for room for one block more than it writes: the last bytes take a detour.
        view = buffer.view(np.uint8).reshape(-1).data
        done, total = 0, len(view)
        while total - done >= _BLOCK + 16:
            self._cipher.update_into(_ZEROS, view[done:])
            done += _BLOCK
        if done < total:
            rest = self._cipher.update(bytes(total - done))
            view[done:] = rest

    def bytes(self, count: int) -> bytes:
        """Return ``count`` random bytes."""
        if _checked(count) < _BLOCK:
            self._own()
            return self._cipher.update(bytes(count))
        buffer = np.empty(count, dtype=np.uint8)
        self._fill(buffer)
        return buffer.tobytes()

    def uint64(self, count: int) -> NDArray[np.uint64]:
        """Return ``count`` integers, uniform on [0, 2**64)."""
        words = np.empty(_checked(count), dtype="<u8")
        self._fill(words)
        return words.astype(np.uint64, copy=False)

    def uint32(self, count: int) -> NDArray[np.uint32]:
        """Return ``count`` integers, uniform on [0, 2**32)."""
        words = np.empty(_checked(count), dtype="<u4")
        self._fill(words)
        return words.astype(np.uint32, copy=False)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` numbers, uniform on the multiples of 2**-53 in [0, 1)."""
        words = self.uint64(count)
        words >>= np.uint64(11)
        numbers = words.astype(np.float64)
        numbers *= 2.0**-53
        return numbers

    def signs(self, count: int) -> NDArray[np.int8]:
        """Return ``count`` fair signs, -1 or 1."""
        packed = np.frombuffer(self.bytes((_checked(count) + 7) // 8), dtype=np.uint8)
        return np.unpackbits(packed, count=count, bitorder="little").astype(np.int8) * np.int8(2) - np.int8(1)

    def below(self, limit: int) -> int:
        """Return one integer, uniform on [0, limit), of any size, by rejection: without bias.

        Raises
        ------
        RandomnessError
            If ``limit`` is not at least 1.
        """
        if limit < 1:
            raise RandomnessError(f"there is no integer in [0, {limit})")
        bits = (limit - 1).bit_length()
        size, spare = (bits + 7) // 8, -bits % 8
        while True:
            value = int.from_bytes(self.bytes(size), "little") >> spare
            if value < limit:
                return value

    def integers(self, limit: int, count: int) -> NDArray[np.int64]:
        """Return ``count`` integers, uniform on [0, limit), by rejection: without bias.

        Parameters
        ----------
        limit : int
            From 1 to 2**63.
        count : int

        Raises
        ------
        RandomnessError
            If ``limit`` is outside its range.
        """
        if not 1 <= limit <= 1 << 63:
            raise RandomnessError(f"integers are drawn below a limit from 1 to 2**63, not {limit}")
        result = np.empty(_checked(count), dtype=np.int64)
        last = np.uint64(_WORD // limit * limit - 1)  # the words up to here hold every remainder equally often
        missing = np.arange(count)
        while len(missing):
            words = self.uint64(len(missing))
            good = words <= last
            result[missing[good]] = (words[good] % np.uint64(limit)).astype(np.int64)
            missing = missing[~good]
        return result

    def bernoulli(self, probability: float | Fraction, count: int) -> NDArray[np.bool_]:
        """Return ``count`` independent events of exactly this probability.

        A 64-bit word decides, and where the word does not (it equals the first 64 bits of the probability, once in
        2**64 draws) the next bits of the probability do: no bias, not even a small one.

        Parameters
        ----------
        probability : float or fractions.Fraction
            In [0, 1]. A float stands for the rational number that it is.
        count : int

        Raises
        ------
        RandomnessError
            If the probability is not in [0, 1].
        """
        if not 0 <= probability <= 1:
            raise RandomnessError(f"{probability} is not a probability")
        threshold, rest = divmod(Fraction(probability) * _WORD, 1)
        if threshold == _WORD:
            return np.ones(_checked(count), dtype=np.bool_)
        words = self.uint64(count)
        events = words < np.uint64(threshold)
        if rest:
            ties = np.flatnonzero(words == np.uint64(threshold))
            if len(ties):
                events[ties] = self.bernoulli(rest, len(ties))
        return events

    def poisson_sample(self, population: int, rate: float | Fraction) -> NDArray[np.int64]:
        """Choose a batch: each of the records is in it with probability ``rate``, independently.

        This is the sampling that privacy amplification is proved for: a batch of fixed size, or a shuffled pass over
        the records, is not.

        Parameters
        ----------
        population : int
            How many records there are.
        rate : float or fractions.Fraction
            In [0, 1].

        Returns
        -------
        numpy.ndarray of int64
            The positions chosen, ascending; possibly none.
        """
        return np.flatnonzero(self.bernoulli(rate, population)).astype(np.int64, copy=False)

    def normals(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` standard normal numbers in float64 (Box and Muller 1958).

        These are floating-point numbers: what is proved of the Gaussian distribution holds for them only nearly
        (Mironov 2012), and none is larger than 8.6. ``quire.privacy.dp.discrete_gaussian`` has the exact one.
        """
        result = np.empty(_checked(count) + count % 2)
        pairs = result.reshape(-1, 2)
        for start in range(0, len(pairs), _CHUNK):
            part = pairs[start : start + _CHUNK]
            uniform = self.uniform(2 * len(part)).reshape(2, -1)
            radius = np.sqrt(-2.0 * np.log1p(-uniform[0]))
            angle = (2.0 * np.pi) * uniform[1]
            np.multiply(radius, np.cos(angle), out=part[:, 0])
            np.multiply(radius, np.sin(angle), out=part[:, 1])
        return result[:count]


def _checked(count: int) -> int:
    if count < 0:
        raise RandomnessError(f"cannot draw {count} numbers")
    return count
