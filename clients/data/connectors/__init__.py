"""How rows are read: a closed registry of connectors by name, and what the silo's operator has added and approved."""

from __future__ import annotations

from collections.abc import Collection

from quire.clients.data.connectors import csv_file, idx, images, parquet, sql
from quire.clients.data.connectors.base import Connector, Raw, Source
from quire.clients.plugins import CONNECTORS, load_plugin

__all__ = ["Connector", "Raw", "Source", "connector_of"]

_CONNECTORS: tuple[Connector, ...] = (
    csv_file.CONNECTOR,
    parquet.CONNECTOR,
    sql.CONNECTOR,
    idx.CONNECTOR,
    images.CONNECTOR,
)
BUILT_IN = {connector.name: connector for connector in _CONNECTORS}


def connector_of(name: str, approved: Collection[str]) -> Connector:
    """Return the connector of this name; Quire's own come first.

    Raises
    ------
    DataError
        If there is none, or if it is a plug-in that is not approved, not installed, or not what it says.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    return load_plugin(CONNECTORS, name, Connector, approved)
