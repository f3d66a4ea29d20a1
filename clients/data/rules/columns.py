"""``columns:`` of a ``silo.yaml``: which columns leave the connector, and what is done to them first. Read strictly.

::

    columns:
      allow: [age, postcode, admitted, ward, patient, outcome]
      rules:
        name: drop
        age: {bucket: {width: 10}}             # or {edges: [0, 18, 40, 65, 110]}
        postcode: {generalise: {keep: 2}}
        admitted: {generalise: {date: month}}  # or year; `format: "%d.%m.%Y"` where dates are not in ISO 8601
        ward: {generalise: {map: {icu: acute, er: acute}, other: other}}
        patient: {hash: {buckets: 16}}         # or hash
      key: hash.key                            # for hashes; without it, from the silo's own identity
      confirmed: "A. Vogel, 2026-11-22"
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path

import yaml

from quire.clients.data.rules.cells import Bucket, Day, Hash, Keep, Mapped, Rule, gives
from quire.clients.tasks.schema import Label, Schema
from quire.conf.strict_yaml import Entry

DROP, HASH, BUCKET, GENERALISE = "drop", "hash", "bucket", "generalise"
RULES = (DROP, HASH, BUCKET, GENERALISE)
MAX_HASH_BUCKETS = 10_000
MAX_KEPT = 64
_CONFIRMED = re.compile(r"(.*\S), ([0-9]{4}-[0-9]{2}-[0-9]{2})")


@dataclass(frozen=True)
class Columns:
    """What a silo's file says about columns.

    Attributes
    ----------
    allow : frozenset of str or None
        The columns that leave the connector; None: all but those that are dropped.
    dropped : frozenset of str
    rules : tuple of (str, Rule)
        By column.
    key : pathlib.Path or None
        The secret that hashes are made under; None: the silo's identity.
    identity : pathlib.Path
        The silo's own key.
    confirmed : str or None
        Who looked at it, and when.
    """

    allow: frozenset[str] | None
    dropped: frozenset[str]
    rules: tuple[tuple[str, Rule], ...]
    key: Path | None
    identity: Path
    confirmed: str | None

    @property
    def hashes(self) -> bool:
        """Whether a column is hashed, so that a key is needed."""
        return any(isinstance(rule, Hash) for _, rule in self.rules)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that rows depend on: that of the key under which there are hashes, if it is there."""
        path = self.key or self.identity
        return (path,) if self.hashes and path.exists() else ()

    def lets(self, name: str) -> bool:
        """Tell whether a column leaves the connector."""
        return name not in self.dropped and (self.allow is None or name in self.allow)


def read_columns(
    entry: Entry, schema: Schema, identity: Path, marks: tuple[Label, ...], marks_in: Mapping[str, tuple[Label, ...]]
) -> Columns:
    """Read ``columns``, and hold it against the schema.

    Parameters
    ----------
    entry : Entry
    schema : Schema
    identity : pathlib.Path
        The silo's own key.
    marks : tuple
        Marks of missing values in every column.
    marks_in : mapping of str to tuple
        Further ones, by column.

    Raises
    ------
    DataError
        If it says something that it cannot say, or the schema asks for a column that does not leave the connector.
    """
    if schema.image is not None:
        entry.fail("'columns' is for tables, and the schema has images: leave it out")
    found = entry.mapping((), ["allow", "rules", "key", "confirmed"])
    if "allow" not in found and "rules" not in found:
        entry.fail("'columns' must have 'allow', 'rules' or both")
    allow = _allowed(found["allow"]) if "allow" in found else None
    wanted = [*(column.name for column in schema.columns), schema.target.name]
    dropped, rules = set(), []
    for name, said in found["rules"].entries().items() if "rules" in found else ():
        rule = _rule(said)
        if rule is None:
            if allow is not None and name in allow:
                said.fail(f"the column '{name}' is allowed and dropped: leave out one of the two")
            dropped.add(name)
        elif allow is not None and name not in allow:
            said.fail(f"the column '{name}' has a rule, and 'allow' does not name it: add it there, or drop it")
        elif allow is None and name not in wanted:
            said.fail(f"the column '{name}' has a rule, and the schema has no such column: no row would meet it")
        else:
            for mark in (*marks, *marks_in.get(name, ())):
                if gives(rule, mark):
                    said.fail(
                        f"the rule of '{name}' gives a value that is a mark of missing values: change one of the two"
                    )
            rules.append((name, rule))
    for name in wanted:
        if name in dropped or (allow is not None and name not in allow):
            entry.fail(f"the schema asks for the column '{name}', which these columns do not let out of the connector")
    return Columns(
        allow=allow,
        dropped=frozenset(dropped),
        rules=tuple(rules),
        key=entry.file.parent / found["key"].text() if "key" in found else None,
        identity=identity,
        confirmed=read_confirmed(found["confirmed"]) if "confirmed" in found else None,
    )


def read_confirmed(entry: Entry) -> str:
    """Read who confirmed something and when: ``NAME, YYYY-MM-DD``."""
    value = entry.scalar()
    parts = _CONFIRMED.fullmatch(value) if isinstance(value, str) and value.isprintable() else None
    try:
        if parts is not None and len(parts[1]) <= 200 and date.fromisoformat(parts[2]):
            return parts[0]
    except ValueError:
        pass
    entry.fail("'confirmed' must say who and when, as in \"A. Vogel, 2026-11-22\"")


def _allowed(entry: Entry) -> frozenset[str]:
    names = entry.texts()
    for name in names:
        if names.count(name) > 1:
            entry.fail(f"'allow' has '{name[:60]}' twice")
    if not names:
        entry.fail("'allow' must name at least one column")
    return frozenset(names)


def _rule(entry: Entry) -> Rule | None:
    """Read one rule; None: drop."""
    if isinstance(entry.node, yaml.ScalarNode):
        word = entry.scalar()
        if word == DROP:
            return None
        if word == HASH:
            return Hash()
        entry.fail(f"a rule is {DROP}, {HASH}, or one of {', '.join(RULES[1:])} with what it needs")
    found = entry.mapping((), RULES[1:])
    if len(found) != 1:
        entry.fail(f"a column has one rule: {', '.join(RULES)}")
    name, said = next(iter(found.items()))
    if name == HASH:
        return Hash(said.mapping(["buckets"])["buckets"].whole(2, MAX_HASH_BUCKETS))
    return _bucket(said) if name == BUCKET else _generalise(said)


def _bucket(entry: Entry) -> Bucket:
    found = entry.mapping((), ["width", "edges"])
    if len(found) != 1:
        entry.fail("'bucket' must have either 'width' or 'edges'")
    if "width" in found:
        width = found["width"].number()
        if width <= 0:
            found["width"].fail("'width' must be greater than 0")
        return Bucket(width=width)
    edges = tuple(item.number() for item in found["edges"].items())
    if len(edges) < 3 or any(low >= high for low, high in pairwise(edges)):
        found["edges"].fail("'edges' must be at least three numbers, each greater than the one before")
    return Bucket(edges=edges)


def _generalise(entry: Entry) -> Rule:
    found = entry.mapping((), ["keep", "date", "format", "map", "other"])
    ways = [key for key in ("keep", "date", "map") if key in found]
    if len(ways) != 1:
        entry.fail("'generalise' must have one of 'keep', 'date' and 'map'")
    for key, way in (("format", "date"), ("other", "map")):
        if key in found and ways != [way]:
            found[key].fail(f"'{key}' goes with '{way}'")
    if "keep" in found:
        return Keep(found["keep"].whole(1, MAX_KEPT))
    if "date" in found:
        part = found["date"].text()
        if part not in ("month", "year"):
            found["date"].fail("'date' must be month or year")
        return Day(part, _form(found["format"]) if "format" in found else None)
    named = tuple((text.strip(), item.label()) for text, item in found["map"].entries().items())
    if not named:
        found["map"].fail("'map' must name at least one value")
    return Mapped(named, found["other"].label() if "other" in found else None)


def _form(entry: Entry) -> str:
    form, day = entry.text(), datetime(2001, 12, 31)
    try:
        if datetime.strptime(day.strftime(form), form).date().replace(day=1) == day.date().replace(day=1):
            return form
    except ValueError:
        pass
    entry.fail("'format' must tell how year and month are written, as in \"%d.%m.%Y\"")
