"""``connector: csv``: a text file with one row a line, plain or compressed (``.gz``)."""

from __future__ import annotations

import csv
import re
import warnings
import zlib
from typing import Any

from quire.clients.data.connectors.base import Connector, Raw, Source, one_file
from quire.errors import DataError


def read(source: Source) -> Raw:
    """Read all cells as text: what is a number, and what is missing, the schema and ``missing`` decide."""
    import pandas as pd

    path, names = source.path(), list(source.texts("names"))
    header = source.flag("header", not names)
    form: dict[str, Any] = {
        "sep": source.text("separator", ","),
        "dtype": str,
        "keep_default_na": False,
        "na_filter": False,
        "skipinitialspace": True,
        "encoding": source.text("encoding", "utf-8"),
        "engine": "c" if len(source.text("separator", ",")) == 1 else "python",
    }
    try:
        with warnings.catch_warnings():
            # A row that is longer than the header would be read shifted by a column, with a warning only.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, header=0 if header else None, names=names or None, index_col=False, on_bad_lines="error", **form
            )
            # As they are in the file: above, the second of two columns of one name has got another.
            there = names or (pd.read_csv(path, header=None, nrows=1, **form).iloc[0] if header else table.columns)
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty.") from None
    except (
        ValueError,
        LookupError,
        OSError,
        EOFError,
        pd.errors.ParserWarning,
        csv.Error,
        re.error,
        zlib.error,
    ) as error:  # parser errors and bad encodings are ValueErrors
        raise DataError(f"{path} cannot be read as CSV: {' '.join(str(error).split())[:200].rstrip('.')}.") from error
    source.check_columns([str(name) for name in there], path)
    if not set(source.wanted) <= set(table.columns):  # a name that is empty in the file, and another one in the table
        raise DataError(f"{path} has a column without a name.")
    return Raw({name: table[name].to_numpy(dtype=object) for name in source.wanted})


CONNECTOR = Connector("csv", frozenset({"path", "separator", "header", "names", "encoding"}), read, one_file)
