"""The binary encoding: every message has exactly one, and nothing is allocated before its length was checked.

Numbers are big-endian. A message is ``"QSQ"``, a version byte, a byte for its kind, then its fields in order. Fields
have fixed sizes, or a count in front of them that is held against a limit and against the bytes that are left.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Protocol, Self

from quire.privacy.secagg.errors import MalformedMessage, SecAggError
from quire.privacy.secagg.params import MAX_COHORT

MAGIC = b"QSQ"
VERSION = 1

#: The most bytes of any message but the one with the masked vector.
MAX_MESSAGE = 16 * 2**20


class Reader:
    """Takes fields off the front of some bytes.

    Parameters
    ----------
    data : bytes
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    @property
    def left(self) -> int:
        """Return how many bytes have not been read."""
        return len(self._data) - self._at

    def take(self, size: int) -> memoryview:
        """Return the next bytes.

        Raises
        ------
        MalformedMessage
            If there are not that many.
        """
        start, end = self._at, self._at + size
        if end > len(self._data):
            raise MalformedMessage("A message ends before its last field.")
        self._at = end
        return self._data[start:end]

    def number(self, size: int) -> int:
        """Return the next number of so many bytes."""
        return int.from_bytes(self.take(size), "big")


class Field(Protocol):
    """How one field is written and read."""

    def write(self, out: bytearray, value: Any) -> None:
        """Append the field."""

    def read(self, reader: Reader) -> Any:
        """Take the field off, or raise :class:`MalformedMessage`."""


@dataclass(frozen=True)
class Number:
    """A number of ``size`` bytes."""

    size: int

    def write(self, out: bytearray, value: int) -> None:
        """Append the number."""
        try:
            out += value.to_bytes(self.size, "big")
        except OverflowError:
            raise MalformedMessage(f"A number does not fit into {self.size} bytes.") from None

    def read(self, reader: Reader) -> int:
        """Take the number off."""
        return reader.number(self.size)


@dataclass(frozen=True)
class Fixed:
    """Exactly ``size`` bytes."""

    size: int

    def write(self, out: bytearray, value: bytes) -> None:
        """Append the bytes."""
        if len(value) != self.size:
            raise MalformedMessage(f"A field of {self.size} bytes was given {len(value)}.")
        out += value

    def read(self, reader: Reader) -> bytes:
        """Take the bytes off."""
        return bytes(reader.take(self.size))


@dataclass(frozen=True)
class Variable:
    """At most ``limit`` bytes, after their number in four bytes."""

    limit: int

    def write(self, out: bytearray, value: bytes) -> None:
        """Append the bytes with their number."""
        if len(value) > self.limit:
            raise MalformedMessage(f"A field of at most {self.limit} bytes was given {len(value)}.")
        out += len(value).to_bytes(4, "big")
        out += value

    def read(self, reader: Reader) -> bytes:
        """Take the bytes off."""
        size = reader.number(4)
        if size > self.limit:
            raise MalformedMessage(f"A field of at most {self.limit} bytes claims {size}.")
        return bytes(reader.take(size))


@dataclass(frozen=True)
class Indices:
    """Roster indices of two bytes each, strictly increasing; ``wrong`` is raised where they are not."""

    wrong: type[SecAggError] = MalformedMessage

    def write(self, out: bytearray, value: tuple[int, ...]) -> None:
        """Append their number and the indices."""
        out += len(value).to_bytes(2, "big")
        try:
            out += struct.pack(f">{len(value)}H", *value)
        except struct.error:
            raise MalformedMessage("A number does not fit into 2 bytes.") from None

    def read(self, reader: Reader) -> tuple[int, ...]:
        """Take the indices off."""
        data = reader.take(2 * _count(reader))
        indices: tuple[int, ...] = struct.unpack(f">{len(data) // 2}H", data)
        _ascending(indices, self.wrong)
        return indices


class Records:
    """A table: a roster index, strictly increasing, and for each the same fields.

    Parameters
    ----------
    columns : Field
        What follows the index.
    wrong : type of SecAggError
        What is raised if the indices are not strictly increasing.
    """

    def __init__(self, *columns: Field, wrong: type[SecAggError] = MalformedMessage) -> None:
        self._columns = columns
        self._wrong = wrong

    def write(self, out: bytearray, value: dict[int, tuple[Any, ...]]) -> None:
        """Append the rows in the order of their indices."""
        out += len(value).to_bytes(2, "big")
        for index in sorted(value):
            Number(2).write(out, index)
            for column, item in zip(self._columns, value[index], strict=True):
                column.write(out, item)

    def read(self, reader: Reader) -> dict[int, tuple[Any, ...]]:
        """Take the rows off, into a dictionary in the order of the indices."""
        rows: dict[int, tuple[Any, ...]] = {}
        last = -1
        for _ in range(_count(reader)):
            index = reader.number(2)
            if index <= last:
                raise self._wrong("A table lists a member twice or out of order.", index)
            rows[index] = tuple(column.read(reader) for column in self._columns)
            last = index
        return rows


def _count(reader: Reader) -> int:
    count = reader.number(2)
    if count > MAX_COHORT:
        raise MalformedMessage(f"A list of at most {MAX_COHORT} members claims {count}.")
    return count


def _ascending(indices: tuple[int, ...], wrong: type[SecAggError]) -> None:
    for one, following in pairwise(indices):
        if following <= one:
            raise wrong("A list names a member twice or out of order.", following)


@dataclass(frozen=True)
class Message:
    """Base of all messages: a frozen dataclass, whose fields are written in their order.

    A field called ``signature`` covers all before it, the kind and the version included.

    Attributes
    ----------
    KIND : int
        The byte that tells messages apart.
    FORM : dict of str to Field
        How each field is written.
    LIMIT : int
        The most bytes that are read.
    """

    KIND: ClassVar[int]
    FORM: ClassVar[dict[str, Field]]
    LIMIT: ClassVar[int] = MAX_MESSAGE

    def encode(self) -> bytes:
        """Return the one encoding of this message."""
        return self._write(None)

    def signed_part(self) -> bytes:
        """Return what a signature covers: the encoding up to the signature."""
        return self._write("signature")

    def _write(self, until: str | None) -> bytes:
        out = bytearray(MAGIC + bytes((VERSION, self.KIND)))
        for name, field in self.FORM.items():
            if name == until:
                break
            field.write(out, getattr(self, name))
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Self:
        """Read a message of this kind.

        Raises
        ------
        MalformedMessage
            If the bytes are not the one encoding of such a message.
        SecAggError
            The error that a list has of its own, if its members are not distinct and in order.
        """
        if len(data) > cls.LIMIT:
            raise MalformedMessage(f"A message of at most {cls.LIMIT} bytes has {len(data)}.")
        reader = Reader(data)
        if reader.take(3) != MAGIC or reader.number(1) != VERSION or reader.number(1) != cls.KIND:
            raise MalformedMessage(f"This is no message of version {VERSION} and the kind {cls.__name__}.")
        values = {name: field.read(reader) for name, field in cls.FORM.items()}
        if reader.left:
            raise MalformedMessage(f"{reader.left} bytes follow the last field of a message.")
        return cls(**values)

    def __repr__(self) -> str:
        """Show sizes only: contents may be secret, and are long."""
        return f"{type(self).__name__}({', '.join(field.name for field in fields(self))})"
