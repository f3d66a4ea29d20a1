"""Send a run to a consortium's SuperLink, follow it, and tell how it ended, which Flower's exit status does not."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.clients.gate.approvals import Approval, approve, login
from quire.clients.gate.bundle import Bundle, read_bundle
from quire.conf.schema import SecureAggregation, Settings
from quire.consortium.layout import OperatorFolder
from quire.consortium.registry import Connection, RegistryError, members_in
from quire.consortium.superlink import read_running, runs_folder
from quire.consortium.tickets import RESUME_CONFIG, continued
from quire.errors import QuireError, RunFailed, SettingsError
from quire.simulation.flower_app import stage
from quire.strategies.folder import read_about

if TYPE_CHECKING:
    from flwr.proto.run_pb2 import Run

_POLL = 1.0
# Seconds that a SuperLink may be away while a run is followed: its supervisor starts it again.
_PATIENCE = 180.0


def make_bundle() -> Bundle:
    """Pack the code that runs here, as every run that is submitted from here ships it."""
    with tempfile.TemporaryDirectory(prefix="quire-bundle-") as name:
        return read_bundle(stage(Path(name) / "quire"))


def submit(folder: OperatorFolder, settings: Settings, word: str = "") -> tuple[int, Bundle]:
    """Start a run.

    Parameters
    ----------
    folder : OperatorFolder
        Of a server that is up.
    settings : Settings
        Of the run; its string of overrides is what travels.
    word : str
        For the ticket with which it goes on with another run (:mod:`quire.consortium.resume`).

    Returns
    -------
    tuple of int and Bundle
        The run's id, and what was shipped.

    Raises
    ------
    SettingsError
        If the settings want more silos than the consortium has, or a short cut that is for simulations.
    RegistryError
        If the SuperLink refuses, or does not answer.
    ApprovalError
        If the list of what the server's side runs cannot be written.
    """
    from flwr.common.serde import fab_to_proto, user_config_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.fab import Fab

    if isinstance(settings.aggregation, SecureAggregation) and settings.aggregation.exact:
        raise SettingsError(
            "aggregation.simulate=exact_sum is a short cut for simulations, without any secure aggregation, and every "
            "silo of a consortium refuses it: leave it out, or simulate with `quire run`."
        )
    if settings.attack.name != "none":
        raise SettingsError(
            f"attack={settings.attack.name} is for simulations, and every silo of a consortium refuses it: leave it "
            "out, or simulate with `quire run`."
        )
    connection = read_running(folder).connection
    members = len(members_in(folder))
    if settings.partition.silos > members:
        raise SettingsError(
            f"partition.silos={settings.partition.silos}, but the consortium has {members} members: say "
            f"partition.silos={members}, or fewer."
        )
    bundle = make_bundle()
    approve(folder.approvals, Approval((bundle.content, bundle.fab), "shipped by quire submit", login(), _now()))
    with connection.client() as client:
        answer = client.StartRun(
            StartRunRequest(
                fab=fab_to_proto(Fab(hashlib.sha256(bundle.raw).hexdigest(), bundle.raw, {})),
                override_config=user_config_to_proto({"overrides": settings.overrides, RESUME_CONFIG: word}),
            )
        )
    if not answer.HasField("run_id"):
        raise RegistryError(f"The SuperLink at {connection.address} did not take the run.")
    return int(answer.run_id), bundle


def follow(folder: OperatorFolder, run: int, say: Callable[[str], None], told: int = 0) -> Path:
    """Wait for the end of a run, telling of every round; a SuperLink that is killed meanwhile is waited for.

    Parameters
    ----------
    folder : OperatorFolder
    run : int
    say : callable
        Told a line for every round.
    told : int
        How much of the journal of a run that this one goes on with need not be told.

    Returns
    -------
    pathlib.Path
        The run folder.

    Raises
    ------
    RunFailed
        If the run did not complete.
    RegistryError
        If the SuperLink was away for too long.
    """
    place = runs_folder(folder) / str(run)
    seen = time.monotonic()
    while True:
        told = _tell_rounds(place, told, say)
        try:
            found = {one.run: one for one in list_runs(folder, strict=True)}.get(run)
            seen = time.monotonic()
        except RegistryError:
            if time.monotonic() - seen > _PATIENCE:
                raise
            found = None
        if found is not None and found.over:
            _tell_rounds(place, told, say)
            if found.status != "completed":
                raise RunFailed(f"Run {run} is {found.status}: {found.error or 'it left no words'}")
            return place
        time.sleep(_POLL)


@dataclass(frozen=True)
class RunLine:
    """One run, as SuperLink and run folder tell it together.

    Attributes
    ----------
    run : int
    status : str
        pending, running, completed, failed, interrupted, stopped, lost; continued: another run went on with it.
    rounds, of : int or None
        Rounds done, and planned.
    submitted, started, finished : str or None
        ISO 8601.
    model : str or None
        SHA-256 of the final model.
    error : str or None
        One sentence.
    folder : str or None
        Where its results are.
    continues, continued : int or None
        The run that it goes on with, and the one that went on with it.
    """

    run: int
    status: str
    rounds: int | None
    of: int | None
    submitted: str | None
    started: str | None
    finished: str | None
    model: str | None
    error: str | None
    folder: str | None
    continues: int | None = None
    continued: int | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status not in ("pending", "running")


def list_runs(folder: OperatorFolder, strict: bool = False) -> list[RunLine]:
    """List the runs that the SuperLink knows of, and those whose folders are there, oldest first.

    Parameters
    ----------
    folder : OperatorFolder
    strict : bool
        Do not go on with the folders alone if the SuperLink does not answer.

    Raises
    ------
    RegistryError
        If it does not answer, and ``strict``.
    """
    known: dict[int, Run] = {}
    answered = True
    try:
        known = _known(read_running(folder).connection)
    except QuireError:
        if strict:
            raise
        answered = False
    places = {int(path.name): path for path in _folders(folder)}
    older = continued(runs_folder(folder))
    newer = {old: new for new, old in older.items()}
    lines = [
        _line(run, known.get(run), places.get(run), answered, older.get(run), newer.get(run))
        for run in {**known, **places}
    ]
    return sorted(lines, key=lambda line: (line.submitted or line.started or "", line.run))


def _known(connection: Connection) -> dict[int, Run]:
    from flwr.proto.control_pb2 import ListRunsRequest

    with connection.client() as client:
        return dict(client.ListRuns(ListRunsRequest()).run_dict)


def _folders(folder: OperatorFolder) -> list[Path]:
    root = runs_folder(folder)
    return [path for path in root.iterdir() if path.name.isdecimal()] if root.is_dir() else []


def _line(
    run: int,
    known: Run | None,
    place: Path | None,
    answered: bool,
    continues: int | None = None,
    continued: int | None = None,
) -> RunLine:
    about = _about(place) if continued is None else {}  # the folder speaks of the newest run in it
    not_yet = continues is not None and about.get("run") != str(run)  # or of the one before, if this one never began
    if not_yet:
        about = {key: about.get(key) for key in ("rounds", "model")}
    status, error = about.get("status"), about.get("error")
    if continued is not None:
        status, error = "continued", f"run {continued} goes on with it"
    elif known is not None:
        ended = known.status.status == "finished"
        details = known.status.details.rpartition("with exception: ")[2] or None
        if status in (None, "running"):
            status = (known.status.sub_status if ended else known.status.status) or "pending"
            if ended and about and status == "failed" and not (not_yet and details):
                status, error = "lost", f"its process ended without a word; `flwr log {run}` shows what it printed"
            status = "pending" if status == "starting" else status
        elif status == "completed" and not ended:
            status = "running"  # its process is still handing in
        error = error or details
    elif (not_yet or status == "running") and answered:
        status, error = "lost", "the SuperLink does not know of it any more"
    return RunLine(
        run=run,
        status=status or "unknown",
        rounds=about.get("rounds"),
        of=_planned(place),
        submitted=(known.pending_at or None) if known is not None else None,
        started=about.get("started"),
        finished=about.get("finished"),
        model=about.get("model"),
        error=error,
        folder=str(place) if place is not None else None,
        continues=continues,
        continued=continued,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _about(place: Path | None) -> dict[str, Any]:
    if place is None:
        return {}
    try:
        return read_about(place)
    except SettingsError:  # the ServerApp has not begun
        return {}


def _events(place: Path) -> list[dict[str, Any]]:
    try:
        lines = (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]
    except (OSError, ValueError):
        return []


def _planned(place: Path | None) -> int | None:
    return next((event["rounds"] for event in _events(place) if event["event"] == "start"), None) if place else None


def told_of(place: Path) -> tuple[int, int]:
    """Return how many rounds of a run are done, and how much :func:`follow` need not tell if it is gone on with."""
    rounds = max((event["round"] for event in _events(place) if event["event"] == "round"), default=0)
    return rounds, _tell_rounds(place, 0, lambda words: None) if rounds else 0


def _tell_rounds(place: Path, told: int, say: Callable[[str], None]) -> int:
    """Tell of who was left out and of the rounds, as far as that was not told, and return how much has been now."""
    rounds = [event for event in _events(place) if event["event"] in ("enrolment", "round")]
    for event in rounds[told:]:
        failed = [f"{one['silo']} {one.get('code', '')}".strip() for one in event.get("failed", [])]
        if event["event"] == "enrolment":
            say(f"left out: {', '.join(failed)}")
            continue
        words = f"round {event['round']}: {len(event['replied'])} silos, {sum(event['seconds'].values()):.1f} s"
        say(words + (f"; failed: {', '.join(failed)}" if failed else ""))
    return max(told, len(rounds))
