"""A silo's own file, ``silo.yaml``: where its rows are and how they are read. It never leaves the silo.

::

    name: cleveland              # what the silo is called in reports
    schema: schema.yaml          # the agreed form of the rows; beside this file by default
    data:
      connector: csv
      path: processed.cleveland.data
      names: [age, sex, num]     # keys of the connector
      missing: ["?"]             # marks of a missing value, in every column
      missing_in: {chol: [0]}    # and in one column
    test:                        # rows kept for testing; without it a share of `data`
      connector: csv
      path: test.csv
    plugins: [my_connector]      # what the operator has installed and approves
    consent:                     # whose rows are left out; see quire.clients.data.consent.section
      subject: patient_id
      withdrawn: {connector: csv, path: withdrawn.csv, key: patient_id}
    columns:                     # which columns leave the connector, and what is done to them first
      allow: [age, sex, num]
      rules: {age: {bucket: {width: 10}}}

A test over a data set that ships with Quire names its part of it instead::

    data: {connector: shipped, partition: 0, partitions: 3}

`columns` is read by :mod:`quire.clients.data.rules.columns`; what the operator lays down beside (population, store,
witness, identity, roster, charter, policy, dataset) by :mod:`quire.clients.policy.read`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from quire.clients.data.connectors import Connector, Source, connector_of
from quire.clients.data.consent.section import Consent, read_consent
from quire.clients.data.rules.columns import Columns, read_columns
from quire.clients.policy.model import SHIPPED, Operator
from quire.clients.policy.read import OPERATOR_KEYS, read_operator
from quire.clients.tasks.schema import Label, Schema, read_schema
from quire.conf.strict_yaml import Entry, read_yaml
from quire.errors import DataError

SCHEMA_FILE = "schema.yaml"
#: In a simulation by Flower: names the folder of silo files to every node.
SILOS_VARIABLE = "QUIRE_SILOS"
_KEYS = ("name", "schema", "test", "consent", "plugins", "columns", *OPERATOR_KEYS)
_MOST_SILOS = 100_000
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True, eq=False)
class Section:
    """Where some rows are: a connector with its source, the marks of missing values, and what becomes of columns."""

    connector: Connector
    source: Source
    missing: tuple[Label, ...]
    missing_in: dict[str, tuple[Label, ...]]
    columns: Columns | None = None


@dataclass(frozen=True, eq=False)
class SiloFile:
    """What a ``silo.yaml`` says whose silo reads its own rows."""

    path: Path
    name: str | None
    schema_path: Path
    schema: Schema
    data: Section
    test: Section | None
    plugins: tuple[str, ...]
    operator: Operator
    consent: Consent | None = None


@dataclass(frozen=True, eq=False)
class ShippedFile:
    """What a ``silo.yaml`` says whose silo holds one part of a data set that ships with Quire, for tests."""

    path: Path
    name: str | None
    partition: int
    partitions: int
    operator: Operator


def read_silo(path: Path) -> SiloFile:
    """Read the ``silo.yaml`` of a silo that reads its own rows, and the schema that it names.

    Neither is parsed again unless it has changed.

    Raises
    ------
    DataError
        If one of them cannot be read, or says something that it cannot say.
    """
    own = read_silo_file(path)
    if isinstance(own, ShippedFile):
        raise DataError(f"{path} names a part of a shipped data set, but here a silo must read its own rows.")
    return own


def read_silo_file(path: Path) -> SiloFile | ShippedFile:
    """Read a ``silo.yaml`` of either kind; see :func:`read_silo`."""
    root = _root_of(path)
    found = root.mapping(["data"], _KEYS)
    data = found["data"].entries()
    if "connector" in data and data["connector"].scalar() == SHIPPED:
        return _shipped(root)
    schema_path = path.parent / (found["schema"].text() if "schema" in found else SCHEMA_FILE)
    return _silo(root, schema_path, read_schema(schema_path))


def read_operator_of(path: Path) -> Operator:
    """Read what the operator lays down in a ``silo.yaml``; neither the schema nor any data is looked at.

    Raises
    ------
    DataError
        If the file cannot be read, or says something that it cannot say.
    """
    return _operator(_root_of(path))


def name_in(path: Path) -> str | None:
    """Return the name that a ``silo.yaml`` gives its silo; None if it leaves that to the settings of a run."""
    return _name(_root_of(path).mapping(["data"], _KEYS))


def silo_files(folder: Path) -> tuple[Path, ...]:
    """Return the silos' files in a folder, all ``*.yaml`` but the schema, in natural order of their names.

    Raises
    ------
    DataError
        If the folder does not exist, or holds no schema or no silo.
    """
    if not folder.is_dir():
        raise DataError(
            f"There is no folder {folder}: silos=FOLDER names one with {SCHEMA_FILE} and a YAML file per silo."
        )
    if not (folder / SCHEMA_FILE).is_file():
        raise DataError(f"The folder {folder} has no {SCHEMA_FILE}, the agreed form of the rows.")
    found = [path for path in folder.glob("*.yaml") if path.name != SCHEMA_FILE and path.is_file()]
    if not found:
        raise DataError(f"The folder {folder} has no YAML file of a silo beside {SCHEMA_FILE}.")
    return tuple(
        sorted(
            found,
            key=lambda path: [
                (part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", path.stem)
            ],
        )
    )


def _root_of(path: Path) -> Entry:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return _root(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=512)
def _root(path: Path, size: int, changed: int) -> Entry:
    return read_yaml(path)


@lru_cache(maxsize=512)
def _operator(root: Entry) -> Operator:
    return read_operator(root.mapping(["data"], _KEYS), root.file)


@lru_cache(maxsize=512)
def _silo(root: Entry, schema_path: Path, schema: Schema) -> SiloFile:
    found = root.mapping(["data"], _KEYS)
    plugins = found["plugins"].texts() if "plugins" in found else ()
    operator = _operator(root)
    consent = read_consent(found["consent"], schema, "population" in found) if "consent" in found else None
    also = () if consent is None else (consent.subject,)
    data = _ruled(_section(found["data"], schema, plugins, also), found, operator)
    test = _ruled(_section(found["test"], schema, plugins, also), found, operator) if "test" in found else None
    return SiloFile(root.file, _name(found), schema_path, schema, data, test, plugins, operator, consent)


@lru_cache(maxsize=512)
def _shipped(root: Entry) -> ShippedFile:
    found = root.mapping(["data"], _KEYS)
    for key in ("schema", "test", "columns", "consent"):
        if key in found:
            found[key].fail(f"a shipped data set has no '{key}' of its own: leave it out")
    data = found["data"].mapping(["connector", "partition", "partitions"])
    partitions = data["partitions"].whole(1, _MOST_SILOS)
    partition = data["partition"].whole(0, _MOST_SILOS)
    if partition >= partitions:
        data["partition"].fail(f"'partition' counts from 0: the last of {partitions} is {partitions - 1}")
    return ShippedFile(root.file, _name(found), partition, partitions, _operator(root))


def _name(found: dict[str, Entry]) -> str | None:
    name = found["name"].text() if "name" in found else None
    if name is not None and not _NAME.fullmatch(name):
        found["name"].fail("'name' must be at most 32 lower-case letters, digits and dashes, and begin with a letter")
    return name


def _section(entry: Entry, schema: Schema, plugins: tuple[str, ...], also: tuple[str, ...]) -> Section:
    found = entry.entries()
    if "connector" not in found:
        entry.fail(f"'{entry.key}' lacks the key 'connector'")
    name = found["connector"].text()
    try:
        connector = connector_of(name, plugins)
    except DataError as error:
        found["connector"].fail(f"'{name}' is none of Quire's connectors, and no plug-in to be used: {str(error)[:-1]}")
    found = entry.mapping(["connector"], ["missing", "missing_in", *sorted(connector.keys)])
    missing_in = (
        {key: item.labels() for key, item in found["missing_in"].entries().items()} if "missing_in" in found else {}
    )
    for column in missing_in:
        if column not in {known.name for known in schema.columns}:
            found["missing_in"].fail(f"the schema has no column '{column}'")
    options = {key: item for key, item in found.items() if key in connector.keys}
    missing = found["missing"].labels() if "missing" in found else ()
    return Section(connector, Source(entry, options, schema, also), missing, missing_in)


def _ruled(section: Section, found: dict[str, Entry], operator: Operator) -> Section:
    if "columns" not in found:
        return section
    schema = section.source.schema
    columns = read_columns(found["columns"], schema, operator.identity, section.missing, section.missing_in)
    return replace(section, columns=columns)
