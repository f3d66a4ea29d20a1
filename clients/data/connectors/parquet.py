"""``connector: parquet``: an Apache Parquet file."""

from __future__ import annotations

import numpy as np

from quire.clients.data.connectors.base import Connector, Raw, Source, one_file
from quire.errors import DataError


def read(source: Source) -> Raw:
    """Read the columns that the schema asks for; a null is a missing value."""
    import pyarrow
    import pyarrow.parquet

    path = source.path()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            source.check_columns(file.schema_arrow.names, path)
            table = file.read(columns=source.wanted)
        columns = {name: np.asarray(table.column(name).to_pandas()) for name in source.wanted}
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0][:200].rstrip('.')}.") from error
    return Raw(columns)


CONNECTOR = Connector("parquet", frozenset({"path"}), read, one_file)
