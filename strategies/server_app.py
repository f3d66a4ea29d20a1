"""The server's side as a Flower ``ServerApp``: the same app in every runtime."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from quire.clients.arrays import encode
from quire.clients.code import code_hash
from quire.conf.compose import compose
from quire.conf.schema import Settings
from quire.errors import Interrupted, QuireError
from quire.privacy.randomness import stream
from quire.strategies.build import build_strategy
from quire.strategies.cohort import enrol
from quire.strategies.folder import RunFolder
from quire.strategies.rounds import RoundState

LOG = logging.getLogger("quire.strategies")

#: Names the run folder to a ServerApp that Flower starts; the in-process runtime names it in the node config.
RUN_DIR_VARIABLE = "QUIRE_RUN_DIR"
#: Key of the server's node config that names the run folder.
RUN_DIR_KEY = "run-dir"

CODE_HASH = code_hash()

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run a federation as the settings say, and leave a run folder behind.

    Raises
    ------
    QuireError
        If the settings are refused or the run has to stop; the folder says so too, and holds what was reached.
    """
    if _runtime(grid) != "inline":
        _log_to_flower()
    settings = compose(str(context.run_config.get("overrides", "")))
    folder = RunFolder(_folder(context))
    LOG.info("Results go to %s", folder.path)
    folder.begin(settings, runtime=_runtime(grid), code_hash=CODE_HASH)
    try:
        _federate(grid, settings, folder)
    except KeyboardInterrupt:
        folder.finish("interrupted", "The run was interrupted.")
        raise Interrupted(f"Interrupted: what was reached is in {folder.path}.") from None
    except QuireError as error:
        folder.finish("failed", str(error))
        raise
    except Exception as error:
        folder.finish("failed", f"An unexpected error stopped the run: {type(error).__name__}; see the log.")
        raise
    folder.finish("completed")
    LOG.info("Results are in %s", folder.path)


def _federate(grid: Grid, settings: Settings, folder: RunFolder) -> None:
    roster, absent = enrol(
        grid,
        expected=settings.partition.silos,
        minimum=settings.strategy.min_silos,
        code_hash=CODE_HASH,
        join_timeout=settings.runtime.join_timeout,
        simulated=_runtime(grid) != "deployment",
    )
    for failure in absent:
        LOG.warning("%s is left out: %s", failure.silo, failure.words)
    from quire.clients.tasks import task_of

    model = task_of(settings).initial_arrays(stream(settings.seed, "model"))
    folder.started(settings, roster.names, RoundState(0, model))
    build_strategy(settings).start(
        grid,
        encode(model),
        num_rounds=settings.strategy.rounds,
        timeout=settings.strategy.deadline,
        roster=roster,
        observer=folder,
    )


def _folder(context: Context) -> Path:
    named = context.node_config.get(RUN_DIR_KEY) or os.environ.get(RUN_DIR_VARIABLE)
    if named:
        return Path(str(named))
    home = Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr")
    return home / "quire-runs" / str(context.run_id)


def _log_to_flower() -> None:
    """Print what Quire logs: Flower sends to the user what this process prints, and sets up its own logger only."""
    logger = logging.getLogger("quire")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s :      %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def _runtime(grid: Grid) -> str:
    return {"InlineGrid": "inline", "InMemoryGrid": "flower"}.get(type(grid).__name__, "deployment")
