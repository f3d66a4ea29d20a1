"""The server's side as a Flower ``ServerApp``: the same app in every runtime."""

from __future__ import annotations

import logging
import os
from contextlib import closing
from pathlib import Path
from typing import Protocol, runtime_checkable

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from quire.clients import contract
from quire.clients.arrays import encode
from quire.clients.code import code_hash
from quire.clients.tasks import numeric_features
from quire.clients.tasks.schema import Schema, read_schema
from quire.conf.compose import compose
from quire.conf.schema import FilesData, SecureAggregation, Settings
from quire.errors import DataError, Interrupted, QuireError, RunFailed
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.roster import Roster
from quire.privacy.identity.signed import SignedRoster
from quire.privacy.receipts import simulated_roster
from quire.strategies import enclaves
from quire.strategies.approvals import Approvals
from quire.strategies.attacked import check_attack, note_attack
from quire.strategies.build import build_strategy, silos_remember
from quire.strategies.charter import CHARTER_KEY, CHARTER_VARIABLE, charter_of_run
from quire.strategies.checkpoint import Checkpoint, replace
from quire.strategies.cohort import enrol
from quire.strategies.folder import RunFolder, read_overrides
from quire.strategies.members import MEMBERS_VARIABLE, read_members
from quire.strategies.message_size import check_message_size
from quire.strategies.moments import agree_on_statistics, as_config
from quire.strategies.receipts import ROSTER_FILE, Receipts, read_server_roster
from quire.strategies.rounds import Arrays, RoundState
from quire.strategies.run_log import LOG_FOLDER, RunLog
from quire.strategies.secure import SecureRounds
from quire.strategies.secure_words import check_short_cut
from quire.strategies.selftest import finish
from quire.strategies.suspicion.build import let_vote
from quire.strategies.transcripts import TRANSCRIPTS_FOLDER, Transcripts
from quire.strategies.witnessed import newest_receipts

LOG = logging.getLogger("quire.strategies")

#: Names the run folder to a ServerApp that Flower starts; the in-process runtime names it in the node config.
RUN_DIR_VARIABLE = "QUIRE_RUN_DIR"
#: Key of the server's node config that names the run folder.
RUN_DIR_KEY = "run-dir"

#: The same, to go on with the run in that folder.
RESUME_VARIABLE, RESUME_KEY = "QUIRE_RESUME", "resume"

#: Names the server's copy of schema.yaml, where silos read their own rows; in-process, a key of the node config does.
SCHEMA_VARIABLE, SCHEMA_KEY = "QUIRE_SCHEMA", "schema"

#: Names the roster that silos' receipts are checked against in a deployment; in-process, a key of the node config does.
ROSTER_VARIABLE, ROSTER_KEY = "QUIRE_ROSTER", "roster"

#: Key of the node config that says where the silos of a simulation train, if not on the CPU as ever.
DEVICE_KEY = "device"

#: Names the key file with which the run's transparency log is signed; without one no log is written.
LOG_KEY_VARIABLE, LOG_KEY_KEY = "QUIRE_LOG_KEY", "log-key"

CODE_HASH = code_hash()

_RUNTIMES = {
    # Apps and server on one machine.
    **dict.fromkeys(("InlineGrid", "BatchedGrid", "WorkersGrid", "PoisonedGrid"), "inline"),
    "InMemoryGrid": "flower",
}

app = ServerApp()


@runtime_checkable
class KeepsSilos(Protocol):
    """A grid that holds its silos in its own hands, as a simulation can."""

    def silo_memory(self) -> Arrays:
        """Return what all silos remember."""

    def restore_silo_memory(self, memory: Arrays) -> None:
        """Give silos back what they remembered."""


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
    check_attack(settings, grid, _runtime(grid) != "deployment")
    resume = bool(context.node_config.get(RESUME_KEY) or os.environ.get(RESUME_VARIABLE))
    with closing(RunFolder(_folder(context), reopen=resume)) as folder:
        LOG.info("Results go to %s", folder.path)
        folder.run = str(context.run_id) if _runtime(grid) == "deployment" else None
        if resume:
            folder.check_same(compose(read_overrides(folder.path)), settings, CODE_HASH)
        else:
            folder.begin(settings, runtime=_runtime(grid), code_hash=CODE_HASH)
        _run(grid, context, settings, folder, resume)
        LOG.info("Results are in %s", folder.path)


def _run(grid: Grid, context: Context, settings: Settings, folder: RunFolder, resume: bool) -> None:
    """Federate, and write into the folder how it ended, however it ends; into its log as well, if it has one."""
    log: RunLog | None = None
    try:
        checkpoint = folder.resume() if resume else None
        log = _log(context, folder)
        _federate(grid, context, settings, _schema(context, settings), folder, checkpoint, log)
    except KeyboardInterrupt:
        _finish(folder, log, "interrupted", "The run was interrupted.")
        raise Interrupted(f"Interrupted: what was reached is in {folder.path}.") from None
    except QuireError as error:
        _finish(folder, log, "failed", str(error))
        raise
    except Exception as error:
        text = f"An unexpected error stopped the run: {type(error).__name__}; see the log."
        _finish(folder, log, "failed", text)
        raise
    _finish(folder, log, "completed")


def _finish(folder: RunFolder, log: RunLog | None, status: str, error: str | None = None) -> None:
    folder.finish(status, error)
    if log is not None:
        try:
            log.ended()
        except (QuireError, OSError) as wrong:  # why the run ended counts for more
            LOG.error("The transparency log does not say how the run ended: %s", wrong)
        finally:
            log.close()


def _log(context: Context, folder: RunFolder) -> RunLog | None:
    """Open the run's transparency log, if this server has a key for it."""
    named = context.node_config.get(LOG_KEY_KEY) or os.environ.get(LOG_KEY_VARIABLE)
    if not named and (folder.path / LOG_FOLDER).exists():
        raise RunFailed(
            f"The run in '{folder.path}' has a transparency log, and goes on only with the key of that: set "
            f"{LOG_KEY_VARIABLE} to its file."
        )
    return RunLog.named(folder, Path(str(named)), str(context.run_id)) if named else None


def _federate(
    grid: Grid,
    context: Context,
    settings: Settings,
    schema: Schema | None,
    folder: RunFolder,
    checkpoint: Checkpoint | None,
    log: RunLog | None,
) -> None:
    simulated = _runtime(grid) != "deployment"
    check_short_cut(settings.aggregation, simulated, logged=log is not None)
    note_attack(grid, folder)
    named = context.node_config.get(CHARTER_KEY) or os.environ.get(CHARTER_VARIABLE)
    charter = charter_of_run(str(named) if named else None, settings)
    if charter is not None:
        folder.hold_to("charter", {"charter": charter.hash, "version": charter.version, "previous": charter.previous})
    strategy = build_strategy(settings, simulated)
    approvals = _approvals(context, settings, simulated)
    inside: dict[str, str] = {}
    roster, absent = enrol(
        grid,
        expected=settings.partition.silos,
        minimum=settings.strategy.min_silos,
        code_hash=CODE_HASH,
        join_timeout=settings.runtime.join_timeout,
        simulated=simulated,
        schema=schema.sha256 if schema is not None else None,
        private=strategy.private,
        members=_members(simulated),
        approvals=approvals,
        enclaves=inside,
        witnessed=newest_receipts(folder.path, _given_roster(context, simulated)),
    )
    enclaves.keep(folder.path, inside, _given_roster(context, simulated), roster.names)
    for failure in absent:
        LOG.warning("%s is left out: %s", failure.silo, failure.words)
    folder.left_out(absent)
    told = ConfigRecord()
    if getattr(settings.data, "preprocessing", "public") == "federated":
        features, minimum = numeric_features(settings, schema), settings.strategy.min_silos
        statistics, roster = agree_on_statistics(
            grid, roster, features, minimum, strategy.deadlines.seconds(contract.MOMENTS)
        )
        told = as_config(statistics)
        folder.hold_to("statistics", {key: list(told[key]) for key in told})  # type: ignore[arg-type]
    if DEVICE_KEY in context.node_config:
        folder.hold_to("device", context.node_config[DEVICE_KEY])
    folder.hold_to("silos", roster.names)
    folder.hold_to("schema", schema.sha256 if schema is not None else None)
    if strategy.private:
        signed = _signed_roster(context, settings, roster.names, simulated)
        run = None if simulated else str(context.run_id)
        strategy.receipts = Receipts(settings, CODE_HASH, signed.roster if signed else None, run)
        folder.hold_to("roster", signed.roster.hash if signed else None)
        if signed is not None:
            replace(folder.path / ROSTER_FILE, signed.encode())
    if isinstance(settings.aggregation, SecureAggregation):
        strategy.secure = _secure(context, settings, settings.aggregation, roster.names, simulated, folder.path, log)
    if silos_remember(settings):
        _keep_silo_memory(grid, folder, checkpoint)
    if checkpoint is not None:
        state = checkpoint.state
        folder.resumed(state)
    else:
        from quire.clients.tasks import task_of
        from quire.clients.tasks.local_layers import first_model

        state = RoundState(0, first_model(task_of(settings, schema), settings))
        check_message_size(strategy, state)
        folder.started(
            settings, roster.names, state, strategy.secure.announce(state.model) if strategy.secure else None
        )
    let_vote(strategy, grid, roster, told)
    if log is not None:
        log.began(settings, CODE_HASH)
        log.decided(approvals.statements)
    approvals.keep(folder.path)  # after the log has them: what lies in the folder without being logged was put there
    strategy.start(
        grid,
        encode(state.model),
        num_rounds=settings.rounds,
        timeout=settings.strategy.deadline,
        train_config=told,
        evaluate_config=told,
        roster=roster,
        observer=log or folder,
        resume_from=state if checkpoint is not None else None,
    )
    if settings.selftest:
        finish(folder.path, folder.memory)


def _members(simulated: bool) -> dict[bytes, str] | None:
    named = os.environ.get(MEMBERS_VARIABLE)
    return read_members(Path(named)) if named and not simulated else None


def _approvals(context: Context, settings: Settings, simulated: bool) -> Approvals:
    return Approvals.of(str(context.run_id), CODE_HASH, settings, _given_roster(context, simulated))


def _given_roster(context: Context, simulated: bool) -> Roster | None:
    named = None if simulated else context.node_config.get(ROSTER_KEY) or os.environ.get(ROSTER_VARIABLE)
    return read_server_roster(Path(str(named))).roster if named else None


def _signed_roster(context: Context, settings: Settings, silos: list[str], simulated: bool) -> SignedRoster | None:
    """Return the roster that receipts are held against: a simulation's own, or the one that this server is given."""
    if simulated:
        return SignedRoster(simulated_roster(settings.seed, silos))
    named = context.node_config.get(ROSTER_KEY) or os.environ.get(ROSTER_VARIABLE)
    if named:
        return read_server_roster(Path(str(named)))
    LOG.warning("The server has no roster (%s): the signatures of receipts are not checked.", ROSTER_VARIABLE)
    return None


def _secure(
    context: Context,
    settings: Settings,
    secure: SecureAggregation,
    silos: list[str],
    simulated: bool,
    folder: Path,
    log: RunLog | None,
) -> SecureRounds:
    signed = _signed_roster(context, settings, silos, simulated)
    if signed is None:
        raise RunFailed(
            f"aggregation=secure needs the roster that the silos have pinned, to pass their keys on: set "
            f"{ROSTER_VARIABLE} to its path before the SuperLink starts."
        )
    try:
        shown = log.log if log is not None else None
        kept = Transcripts(folder / TRANSCRIPTS_FOLDER) if settings.output.transcripts else None
        rounds = SecureRounds(settings, secure, signed.roster, context.run_id, simulated, shown, kept)
    except PrivacyError as error:
        raise RunFailed(f"The noise of this run cannot be planned: {error}") from error
    if settings.output.transcripts:
        replace(folder / ROSTER_FILE, signed.encode())  # by whose keys they are audited
    return rounds


def _keep_silo_memory(grid: Grid, folder: RunFolder, checkpoint: Checkpoint | None) -> None:
    """Checkpoint what silos remember where the runtime can tell, and give it back when a run is resumed."""
    if isinstance(grid, KeepsSilos):
        folder.silo_memory = grid.silo_memory
    if checkpoint is None:
        return
    if not isinstance(grid, KeepsSilos) or checkpoint.silos is None:
        raise RunFailed(
            "This run cannot go on: its silos remember something from round to round, and only runtime=inline can "
            "give it back to them."
        )
    grid.restore_silo_memory(checkpoint.silos)


def _schema(context: Context, settings: Settings) -> Schema | None:
    """Read the server's own copy of the agreed form of the rows, where silos read their own."""
    if not isinstance(settings.data, FilesData):
        return None
    named = context.node_config.get(SCHEMA_KEY) or os.environ.get(SCHEMA_VARIABLE)
    if not named:
        raise DataError(
            f"The server has no schema.yaml: set {SCHEMA_VARIABLE} to its path before the SuperLink starts."
        )
    return read_schema(Path(str(named)))


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
    return _RUNTIMES.get(type(grid).__name__, "deployment")
