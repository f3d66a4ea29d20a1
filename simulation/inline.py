"""``runtime=inline``: the unchanged apps in this process, without Ray, daemon or sockets."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig

from quire.conf.compose import compose
from quire.conf.schema import BatchedRuntime, InlineRuntime, Settings
from quire.errors import SettingsError
from quire.simulation.batched_grid import BatchedGrid
from quire.simulation.faults import Fault
from quire.simulation.grid import InlineGrid, server_identity
from quire.simulation.memory import keep_freed_memory
from quire.simulation.poisoning.grid import with_attack
from quire.simulation.workers import WorkersGrid, processes

LOG = logging.getLogger("quire.simulation")

#: The node that the first silo of the roster is simulated as.
FIRST_NODE = 1000


@dataclass(frozen=True)
class RunResult:
    """Where a run's results lie, and the fingerprint of its last model."""

    folder: Path
    model: str


def run(overrides: str, folder: Path | str, silos: Path | str | None = None) -> RunResult:
    """Run a federation in this process.

    Parameters
    ----------
    overrides : str
        Settings, as on the command line: ``"task=breast_cancer strategy=fedprox"``.
    folder : path
        The run folder. It must not hold a run yet.
    silos : path, optional
        For ``task=tabular``, ``task=images`` and ``task=plugin``: the folder with the schema and the silos' files.

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
    return run_inline(settings, Path(folder), silos=Path(silos) if silos is not None else None)


def run_inline(
    settings: Settings,
    folder: Path,
    resume: bool = False,
    silos: Path | None = None,
    listener: Callable[[Message, Message], None] | None = None,
    absent: Collection[str] = (),
) -> RunResult:
    """Run a federation in this process, or go on with the one in the folder; see :func:`run`.

    A ``listener`` is shown every message with its reply, in one process (``runtime.workers=1``) only. Silos in
    ``absent`` do not join: the federation is that of the others.
    """
    import torch

    from quire.clients.client_app import SILO_KEY
    from quire.clients.client_app import app as client_app
    from quire.clients.data.silo_file import SiloFile
    from quire.clients.device import CPU, choose
    from quire.simulation.silos import check_rows, hold_to_rows, local_silos
    from quire.strategies.folder import read_about
    from quire.strategies.server_app import DEVICE_KEY, RESUME_KEY, RUN_DIR_KEY, SCHEMA_KEY
    from quire.strategies.server_app import app as server_app

    keep_freed_memory()
    torch.set_num_threads(settings.runtime.threads)
    device = choose(settings)
    local = local_silos(settings, silos)
    check_rows(settings, local)
    hold_to_rows(settings, local, folder, resume)
    run_id = secrets.randbits(62)
    run_config = {"overrides": settings.overrides}
    contexts, names = {}, {}
    for partition, (name, where) in enumerate(zip(local.names, local.where, strict=True)):
        node = FIRST_NODE + partition
        config: UserConfig = {"partition-id": partition, "num-partitions": len(local.names)}
        if isinstance(where, SiloFile):
            config[SILO_KEY] = str(where.path)
        contexts[node], names[node] = Context(run_id, node, config, RecordDict(), dict(run_config)), name
    faults = [Fault("drop", "*", "*", name) for name in absent]
    faults += [Fault.parse(text) for text in getattr(settings.runtime, "faults", ())]
    kind = BatchedGrid if isinstance(settings.runtime, BatchedRuntime) else InlineGrid
    grid = kind(client_app, contexts, names, faults)
    grid.listener = listener
    server_config: UserConfig = {RUN_DIR_KEY: str(folder), RESUME_KEY: resume}
    if device.asked != CPU:
        LOG.info("Silos train on %s", device.words())
        server_config[DEVICE_KEY] = device.words()
    if local.schema is not None:
        server_config[SCHEMA_KEY] = str(local.schema)
    server_context = Context(run_id, 1, server_config, RecordDict(), dict(run_config))
    count = processes(settings.runtime.workers) if isinstance(settings.runtime, InlineRuntime) else 1
    with server_identity(run_id), WorkersGrid(grid, count) if count > 1 else nullcontext(grid) as over:
        server_app(with_attack(over, settings, names, dict(zip(names, local.where, strict=True))), server_context)
    return RunResult(folder, str(read_about(folder)["model"]))
