"""YAML that people write, for a silo or a charter, read strictly: bounded, no tags, no aliases, no key twice.

Every mistake is one sentence that names the file, the line and the column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from quire.errors import DataError

MAX_BYTES = 256 * 1024
#: Numbers as people mean them. YAML 1.1 reads more as one: ``2:30`` in base 60, ``010`` in base 8, ``0b1``, ``1_000``.
_DECIMAL = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

Scalar = str | int | float | bool | None

# PyYAML's constructors fail in all these ways on a tag and a text that do not go together, as in ``!!bool maybe``.
_CONSTRUCTING = (
    *(yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError),
    *(KeyError, IndexError, AttributeError),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes; an alias would let a small file stand for a huge one."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="an alias (*name) is not allowed here", problem_mark=mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


@dataclass(frozen=True, eq=False)
class Entry:
    """One value of a YAML file, and where it stands.

    Attributes
    ----------
    file : pathlib.Path
    node : yaml.Node
    key : str
        What leads to it, for error messages.
    """

    file: Path
    node: yaml.Node
    key: str = ""

    def fail(self, words: str) -> NoReturn:
        """Refuse this value: raise a :class:`DataError` that says where it stands."""
        mark = self.node.start_mark
        raise DataError(f"{self.file}, line {mark.line + 1}, column {mark.column + 1}: {words}.")

    def entries(self) -> dict[str, Entry]:
        """Return the entries of a mapping whose keys are free, in the order of the file."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail(f"{self._name} must hold keys with values")
        found: dict[str, Entry] = {}
        for key_node, value in self.node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                Entry(self.file, key_node).fail("a key must be a word")
            if key_node.value in found:
                Entry(self.file, key_node).fail(f"'{key_node.value}' is there twice")
            found[key_node.value] = Entry(self.file, value, str(key_node.value))
        return found

    def mapping(self, required: Iterable[str] = (), optional: Iterable[str] = ()) -> dict[str, Entry]:
        """Return the entries of a mapping that must have some keys and may have some others, and no more."""
        required = list(required)
        known = [*required, *optional]
        found = self.entries()
        for key, entry in found.items():
            if key not in known:
                entry.fail(f"{self._name} has no key '{key[:60]}'; there are {', '.join(known)}")
        for key in required:
            if key not in found:
                self.fail(f"{self._name} lacks the key '{key}'")
        return found

    def items(self) -> list[Entry]:
        """Return the entries of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.fail(f"{self._name} must be a list, as in [a, b]")
        return [Entry(self.file, item, f"an entry of {self.key}") for item in self.node.value]

    def scalar(self) -> Scalar:
        """Return a text, a number, a truth value or nothing."""
        if not isinstance(self.node, yaml.ScalarNode):
            self.fail(f"{self._name} must be a single value")
        kind = self.node.tag.rpartition(":")[2]
        if self.node.tag != f"tag:yaml.org,2002:{kind}" or kind not in ("str", "int", "float", "bool", "null"):
            return str(self.node.value) if kind == "timestamp" else self.fail(f"{self._name} has a tag")
        try:
            value: Scalar = yaml.SafeLoader("").construct_object(self.node)
        except _CONSTRUCTING:
            self.fail(f"{self._name} cannot be read")
        return value

    def text(self) -> str:
        """Return a text that is not empty."""
        value = self.scalar()
        if not isinstance(value, str) or not value:
            self.fail(f"{self._name} must be a text; put it in quotes if it looks like a number or a truth value")
        return value

    def number(self) -> float:
        """Return a finite number, which is spelled in decimal: ``4``, ``4.0``, ``1e-5``."""
        self.scalar()
        number = float(self.node.value) if self._decimal else math.inf
        if not math.isfinite(number):
            self.fail(f"{self._name} must be a number; write it in plain decimal, as 1000, 0.5 or 1e-5")
        return number

    def whole(self, low: int, high: int) -> int:
        """Return a whole number between bounds."""
        value = self.scalar()
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.fail(f"{self._name} must be a whole number from {low} to {high}")
        if not self._decimal:
            self.fail(f"{self._name} must be a whole number in plain decimal digits, as 10 or 1000")
        return value

    def truth(self) -> bool:
        """Return true or false."""
        value = self.scalar()
        if not isinstance(value, bool):
            self.fail(f"{self._name} must be true or false")
        return value

    def label(self) -> str | float:
        """Return a label: a text, or a number as float. Truth values are refused: YAML reads ``no`` as one."""
        value = self.scalar()
        if isinstance(value, bool) or value is None:
            self.fail(f"{self._name} must be a text or a number; put yes, no, on, off and null in quotes")
        if isinstance(value, str):
            return value.strip()
        if not self._decimal or not math.isfinite(float(self.node.value)):
            self.fail(f"{self._name} must be a text or a number; put it in quotes unless it is a plain decimal number")
        return float(value)

    def labels(self) -> tuple[str | float, ...]:
        """Return a list of labels."""
        return tuple(item.label() for item in self.items())

    def texts(self) -> tuple[str, ...]:
        """Return a list of texts."""
        return tuple(item.text() for item in self.items())

    def plain(self) -> Any:
        """Return nested dicts, lists and scalars."""
        if isinstance(self.node, yaml.MappingNode):
            return {key: entry.plain() for key, entry in self.entries().items()}
        if isinstance(self.node, yaml.SequenceNode):
            return [entry.plain() for entry in self.items()]
        return self.scalar()

    @property
    def _decimal(self) -> bool:
        """Whether it is spelled as a decimal number, without quotes."""
        node = self.node
        return isinstance(node, yaml.ScalarNode) and node.style is None and bool(_DECIMAL.fullmatch(node.value))

    @property
    def _name(self) -> str:
        return f"'{self.key}'" if self.key and " " not in self.key else self.key or "the file"


def loaded(text: str) -> Any:
    """Return what YAML of a machine's making says, such as the settings of a run folder; nothing is bounded here.

    Raises
    ------
    ValueError
        If it is not YAML, whatever PyYAML stumbles over.
    """
    try:
        return yaml.safe_load(text)
    except _CONSTRUCTING as error:
        raise ValueError("it is not YAML that can be read") from error


def read_yaml(file: Path) -> Entry:
    """Read a YAML file.

    Raises
    ------
    DataError
        If it cannot be read, is too large, or is not YAML.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"{file} is larger than {MAX_BYTES} bytes, more than such a file needs.")
    try:
        node = yaml.compose(content.decode("utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise DataError(f"{file}{where}: it is not YAML as it should be: {error.problem}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{file} is not YAML in UTF-8.") from error
    if node is None:
        raise DataError(f"{file} is empty.")
    return Entry(file, node)
