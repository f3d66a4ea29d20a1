"""The section ``consent:`` of ``silo.yaml``. It never travels.

::

    consent:
      subject: patient_id                 # the column of the silo's own rows that says whose a row is
      withdrawn:                          # opt-out: a row of this table means withdrawn
        connector: csv                    # csv, parquet or sql, with their keys
        path: withdrawn.csv
        key: patient_id                   # the table's column of subject ids
        since: date                       # optional: from which day

    consent:
      subject: patient_id
      given:                              # opt-in: only who is in this table with a positive flag
        {connector: sql, url: "sqlite:///consent.db", query: "...", key: id, flag: research, yes: ["1", "yes"]}

Without either table nothing but requests for erasure leaves rows out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quire.clients.data.connectors import BUILT_IN, Connector, Source
from quire.clients.tasks.schema import Schema
from quire.conf.strict_yaml import Entry
from quire.errors import DataError

WITHDRAWN, GIVEN = "withdrawn", "given"
CONNECTORS = ("csv", "parquet", "sql")
_YES = ("1", "true", "yes")


@dataclass(frozen=True, eq=False)
class TableSource(Source):
    """The consent table as a connector sees it: no schema says which columns there are, the section does.

    Attributes
    ----------
    names : tuple of str
    """

    names: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[str]:
        """Names of the columns that the section names."""
        return list(self.names)

    def check_columns(self, there: Sequence[str], where: object) -> None:
        """Refuse a table that lacks one of them, or has it twice."""
        for name in self.names:
            if list(there).count(name) != 1:
                many = "more than one column" if name in there else "no column"
                raise DataError(f"{where} has {many} '{name}', which 'consent' in {self.entry.file} names.")


@dataclass(frozen=True, eq=False)
class Table:
    """The table that says who is out, or who is in.

    Attributes
    ----------
    means : str
        ``withdrawn``: a row of it means out. ``given``: only a row with a positive flag means in.
    connector : Connector
    source : TableSource
    key : str
        Its column of subject ids.
    since : str or None
        Of withdrawals: the column of the day from which on they count.
    flag : str or None
        Of consent given: the column that says yes.
    yes : frozenset of str
        What it says then, in lower case.
    """

    means: str
    connector: Connector
    source: TableSource
    key: str
    since: str | None = None
    flag: str | None = None
    yes: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Consent:
    """What a silo's file says about consent.

    Attributes
    ----------
    subject : str
        The column of the silo's own rows that says whose a row is.
    table : Table or None
        None: rows are left out for requests for erasure alone.
    """

    subject: str
    table: Table | None


def read_consent(entry: Entry, schema: Schema, populated: bool) -> Consent:
    """Read the section.

    Parameters
    ----------
    entry : Entry
    schema : Schema
        The agreed form of the rows, which must not ask for the column of subjects.
    populated : bool
        Whether the file declares a ``population``.

    Raises
    ------
    DataError
        If it says something that it cannot say.
    """
    found = entry.mapping(["subject"], [WITHDRAWN, GIVEN])
    subject = found["subject"].text()
    if subject in {*(column.name for column in schema.columns), schema.target.name}:
        found["subject"].fail(
            f"the schema asks for the column '{subject}', and who a row is about is not to be learned from: take it "
            "out of the schema"
        )
    if not populated:
        entry.fail(
            "'consent' needs 'population: {name: NAME, records: NUMBER}' beside it: how many rows there are changes as "
            "subjects withdraw, and only a declared number may leave"
        )
    if WITHDRAWN in found and GIVEN in found:
        found[GIVEN].fail("'consent' has a table of those who withdrew or of those who consented, not both")
    if WITHDRAWN in found:
        return Consent(subject, _table(found[WITHDRAWN], WITHDRAWN, schema, [], ["since"]))
    if GIVEN in found:
        return Consent(subject, _table(found[GIVEN], GIVEN, schema, ["flag"], ["yes"]))
    return Consent(subject, None)


def _table(entry: Entry, means: str, schema: Schema, required: list[str], optional: list[str]) -> Table:
    named = entry.entries()
    if "connector" not in named:
        entry.fail(f"'{means}' lacks the key 'connector'")
    name = named["connector"].text()
    if name not in CONNECTORS:
        named["connector"].fail(f"a consent table is read by {', '.join(CONNECTORS)}, not by '{name[:60]}'")
    connector = BUILT_IN[name]
    found = entry.mapping(["connector", "key", *required], [*optional, *sorted(connector.keys)])
    columns = {role: found[role].text() for role in ("key", "since", "flag") if role in found}
    if len(set(columns.values())) != len(columns):
        entry.fail(f"'{means}' names one column for two things")
    options = {option: item for option, item in found.items() if option in connector.keys}
    source = TableSource(entry, options, schema, names=tuple(columns.values()))
    return Table(means, connector, source, columns["key"], columns.get("since"), columns.get("flag"), _yes(found))


def _yes(found: Mapping[str, Entry]) -> frozenset[str]:
    given = found["yes"].texts() if "yes" in found else _YES
    return frozenset(text.strip().lower() for text in given)
