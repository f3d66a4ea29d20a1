"""``runtime=inline``: the unchanged apps in this process, without Ray, daemon or sockets."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, RecordDict

from quire.clients.contract import silo_name
from quire.conf.compose import compose
from quire.conf.schema import InlineRuntime, Settings
from quire.errors import SettingsError
from quire.simulation.faults import Fault
from quire.simulation.grid import InlineGrid, server_identity

_FIRST_NODE = 1000


@dataclass(frozen=True)
class RunResult:
    """Where a run's results lie, and the fingerprint of its last model."""

    folder: Path
    model: str


def run(overrides: str, folder: Path | str) -> RunResult:
    """Run a federation in this process.

    Parameters
    ----------
    overrides : str
        Settings, as on the command line: ``"task=breast_cancer strategy=fedprox"``.
    folder : path
        The run folder. It must not hold a run yet.

    Returns
    -------
    RunResult

    Raises
    ------
    QuireError
        If the settings are refused or the run had to stop.
    """
    settings = compose(overrides)
    if not isinstance(settings.runtime, InlineRuntime):
        raise SettingsError(f"runtime={settings.runtime.name} does not run in this process: use `quire run`.")
    return run_inline(settings, Path(folder))


def run_inline(settings: Settings, folder: Path) -> RunResult:
    """Run a federation in this process, from composed settings; see :func:`run`."""
    import torch

    from quire.clients.client_app import app as client_app
    from quire.clients.data.simulated import federation
    from quire.strategies.folder import read_about
    from quire.strategies.server_app import RUN_DIR_KEY
    from quire.strategies.server_app import app as server_app

    torch.set_num_threads(settings.runtime.threads)
    federation(settings)  # rows that cannot be shared out as asked are refused here, in words
    run_id = secrets.randbits(62)
    silos = settings.partition.silos
    nodes = {partition: _FIRST_NODE + partition for partition in range(silos)}
    run_config = {"overrides": settings.overrides}
    contexts = {
        node: Context(
            run_id, node, {"partition-id": partition, "num-partitions": silos}, RecordDict(), dict(run_config)
        )
        for partition, node in nodes.items()
    }
    names = {node: silo_name(settings.task.silo_label, partition) for partition, node in nodes.items()}
    faults = [Fault.parse(text) for text in getattr(settings.runtime, "faults", ())]
    grid = InlineGrid(client_app, contexts, names, faults)
    server_context = Context(run_id, 1, {RUN_DIR_KEY: str(folder)}, RecordDict(), dict(run_config))
    with server_identity(run_id):
        server_app(grid, server_context)
    return RunResult(folder, str(read_about(folder)["model"]))
