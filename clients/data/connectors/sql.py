"""``connector: sql``: the rows of one query, through SQLAlchemy.

Address and query are in the silo's own file and nowhere else. User and password may come from environment variables
that the file names, so that it need not hold them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quire.clients.data.connectors.base import Connector, Raw, Source
from quire.errors import DataError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


def read(source: Source) -> Raw:
    """Run the query in a transaction that is rolled back, and read its rows."""
    import sqlalchemy

    url = _url(source)
    query = source.text("query")
    try:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection:
            result = connection.exec_driver_sql(query)
            names = list(result.keys()) if result.returns_rows else []
            rows = result.fetchall() if names else []
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        why = str(getattr(error, "orig", None) or error).splitlines()[0][:200].rstrip(".")
        raise DataError(f"{_where(source)}: the database answered with an error: {why}.") from error
    source.check_columns(names, f"{_where(source)}: the result of the query")
    columns = {}
    for name in source.wanted:
        place = names.index(name)
        columns[name] = np.array([row[place] for row in rows], dtype=object)
    return Raw(columns)


def files(source: Source) -> tuple[Path, ...]:
    """Name the file of an SQLite database; other databases have none."""
    url = _url(source)
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return ()
    return (Path(url.database),)


def _url(source: Source) -> URL:
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(source.text("url"))
    except sqlalchemy.exc.ArgumentError:
        source.options["url"].fail("this is not an address that SQLAlchemy understands, as in sqlite:///patients.db")
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        path = source.folder / url.database
        if not path.is_file():  # SQLite would make an empty one
            source.options["url"].fail(f"there is no {path}")
        url = url.set(database=str(path))
    if "user_env" in source.options:
        url = url.set(username=_variable(source, "user_env"))
    if "password_env" in source.options:
        url = url.set(password=_variable(source, "password_env"))
    return url


def _variable(source: Source, key: str) -> str:
    name = source.text(key)
    if name not in os.environ:
        source.options[key].fail(f"the environment has no variable '{name}'")
    return os.environ[name]


def _where(source: Source) -> str:
    return f"{source.entry.file}, line {source.options['query'].node.start_mark.line + 1}"


CONNECTOR = Connector("sql", frozenset({"url", "query", "user_env", "password_env"}), read, files)
