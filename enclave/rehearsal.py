"""What a worker may need, gone through once while its files are traced: rows of a silo's own, and every client module.

The rows are made up. A data set that ships with Quire would bring along what partitions, plots and fetches data sets,
which a silo with rows of its own never opens.
"""

from __future__ import annotations

import importlib
import pkgutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

SILOS, ROWS = 4, 20
SCHEMA = """columns: {age: {low: 0, high: 100}, ward: {categories: [a, b]}}
target: {name: sick, kind: classification, classes: [0, 1]}
"""
_QUICK = "task=tabular partition.silos=4 strategy.rounds=1 output.report=false output.baselines=false "
#: Settings of the federations that are run over made-up rows: in clear, and summed under masks with noise.
OWN_ROWS = (
    f"{_QUICK} output.progress=none data.preprocessing=federated",
    f"{_QUICK} output.progress=none aggregation=secure privacy=record_distributed "
    f"privacy.records={SILOS * ROWS} privacy.largest={ROWS}",
)
#: The rooms a silo's code lives in. Much of it is imported where it is needed, and real books are not simulated.
_ROOMS = ("quire.charter", "quire.clients", "quire.privacy", "quire.transparency")
_LIBRARIES = (
    *("encodings.cp437", "encodings.idna"),  # for names in bundles, and of hosts
    *("pyarrow.parquet", "quire.enclave.worker", "flwr.supercore.object_store", "flwr.supernode.nodestate"),
    *("flwr.supernode.fleet_http_connection", "flwr.supernode.start_client_internal", "flwr.supercore.task_identity"),
    *("flwr.supercore.inflatable.inflatable_object", "flwr.supercore.inflatable.inflatable_utils"),
)


def made_up(folder: Path) -> Path:
    """Write the files of silos whose rows mean nothing; return their folder, as ``silos=FOLDER`` wants it."""
    folder.mkdir()
    (folder / "schema.yaml").write_text(SCHEMA)
    for number in range(1, SILOS + 1):
        rows = (f"{20 + at},{'ab'[at % 2]},{at // 2 % 2}\n" for at in range(ROWS))
        (folder / f"{number}.csv").write_text("age,ward,sick\n" + "".join(rows))
        name = f"silo-{number}"
        (folder / f"{name}.yaml").write_text(f"name: {name}\ndata: {{connector: csv, path: {number}.csv}}\n")
    return folder


def rehearse_own_rows(overrides: Iterable[str] = OWN_ROWS) -> list[str]:
    """Run small federations over made-up rows in this process; return the fingerprints of their models.

    Raises
    ------
    QuireError
        If one had to stop.
    """
    from quire.simulation.inline import run

    with tempfile.TemporaryDirectory(prefix="quire-") as scratch:
        silos = made_up(Path(scratch) / "silos")
        return [run(told, Path(scratch) / f"run-{at}", silos=silos).model for at, told in enumerate(overrides)]


def import_all() -> list[str]:
    """Import what a worker imports, now or when it is asked; return the names of our own modules."""
    names = [
        one.name
        for room in _ROOMS
        for one in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}.")
        if not one.name.endswith("__main__")
    ]
    for name in (*names, *_LIBRARIES):
        importlib.import_module(name)
    return names


def connect_to_nobody() -> None:
    """Open what a connection over TLS does before it leads anywhere: much of it is imported as late as that."""
    import httpx

    with httpx.Client() as client, suppress(httpx.HTTPError):
        client.get("https://127.0.0.1:1/")
