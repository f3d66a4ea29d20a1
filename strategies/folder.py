"""The run folder: everything a run leaves behind, each piece safe against a kill at any moment.

``run.json`` and the checkpoint are replaced atomically; ``metrics.jsonl`` grows a line at a time, and is locked by the
process that writes it. A killed run can be reopened, and goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import quire
from quire.clients.arrays import fingerprint
from quire.conf.schema import Settings
from quire.errors import RunFailed, SettingsError
from quire.strategies.attacked import about_run
from quire.strategies.card import CardWriter, write_card
from quire.strategies.checkpoint import Checkpoint, Checkpoints, replace, safetensors
from quire.strategies.locks import locked
from quire.strategies.reading import Failure
from quire.strategies.report import RoundReport
from quire.strategies.rounds import Arrays, RoundState

LOG = logging.getLogger("quire.strategies")


class RunFolder:
    """Writes one run's folder. While it is open, no other process can.

    Parameters
    ----------
    path : pathlib.Path
        Made if it does not exist. A folder that already holds a run is refused, so that none is overwritten.
    reopen : bool
        Go on with a run that was killed, failed or was interrupted, instead.

    Raises
    ------
    SettingsError
        If the folder cannot be made or written, holds a run already, or, to reopen, holds none that can go on.
    """

    def __init__(self, path: Path, reopen: bool = False) -> None:
        self.path = path
        #: Tells what simulated silos remember, where the runtime can.
        self.silo_memory: Callable[[], Arrays] | None = None
        #: Flower's number of the run that writes, where the folder may be that of another one.
        self.run: str | None = None
        self._about: dict[str, Any] = read_about(path) if reopen else {}
        if self._about.get("status") == "completed":
            raise SettingsError(f"The run in '{path}' is complete: there is nothing to resume.")
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not reopen and (path / "run.json").exists():
                raise SettingsError(
                    f"The folder '{path}' already holds a run: choose another with hydra.run.dir=FOLDER."
                )
            self._journal = (path / "metrics.jsonl").open("a", encoding="utf-8")
        except OSError as error:
            raise SettingsError(
                f"The folder '{path}' cannot be written ({error.strerror}): choose another with hydra.run.dir=FOLDER."
            ) from error
        if not locked(self._journal, 1.0 if reopen else 0.0):  # `quire submit --resume` looks whether it is
            self._journal.close()
            raise SettingsError(f"The folder '{path}' is being written by a run that is still going on.")
        self._checkpoints = Checkpoints(path / "checkpoint")
        self._cards = CardWriter(path)
        self._state: RoundState | None = None
        self._started = time.perf_counter()
        self._selftest = bool(self._about.get("selftest"))

    @property
    def memory(self) -> Arrays:
        """What the server remembers after the last round."""
        return self._state.memory if self._state is not None else {}

    def begin(self, settings: Settings, runtime: str, code_hash: str) -> None:
        """Write the settings and mark the run as running."""
        import yaml

        tree = {**settings.as_dict(), "overrides": settings.overrides}
        replace(self.path / "settings.yaml", yaml.safe_dump(tree, sort_keys=False).encode())
        self._about = {
            "status": "running",
            "error": None,
            "started": _now(),
            "finished": None,
            "runtime": runtime,
            "rounds": 0,
            "model": None,
            "code": code_hash,
            **about_run(settings),
            "versions": {
                "quire": quire.__version__,
                **{name: version(name) for name in ("flwr", "torch", "numpy")},
                "python": platform.python_version(),
            },
        }
        self._selftest = settings.selftest
        self._write_about()

    def started(
        self, settings: Settings, silos: list[str], state: RoundState, noise: Mapping[str, Any] | None = None
    ) -> None:
        """Journal that the rounds begin, with the numbers of distributed noise, and keep the first model."""
        self._state = state
        self._line(
            {
                "event": "start",
                "rounds": settings.rounds,
                "silos": silos,
                "strategy": settings.strategy.name,
                "task": settings.task.name,
                "scored": "validation" if settings.data.validation_fraction else "test",
                "parameters": sum(array.size for array in state.model.values()),
                "model": fingerprint(state.model),
                **({"distributed": noise} if noise else {}),
            }
        )

    def left_out(self, absent: Sequence[Failure]) -> None:
        """Journal which nodes could not be enrolled, and why; nothing if all could."""
        if absent:
            self._line({"event": "enrolment", "failed": [asdict(failure) for failure in absent]})

    def resumed(self, state: RoundState) -> None:
        """Journal that the run goes on after this state's round."""
        self._line({"event": "resume", "round": state.round})

    def round_done(self, report: RoundReport, state: RoundState) -> None:
        """Checkpoint the state, then journal the round: a journalled round can always be resumed from."""
        self._state = state
        model_hash = fingerprint(state.model)
        line = {"event": "round", **report.journalled(), "model": model_hash}
        line["train"] = {name.removeprefix("train-").replace("-", "_"): value for name, value in report.train.items()}
        silos = self.silo_memory() if self.silo_memory is not None else None
        self._checkpoints.save(Checkpoint(state, line, silos))
        self._line(line)
        self._about.update(rounds=state.round, model=model_hash)
        self._cards.round_done(private=bool(report.receipts))
        scores = "".join(f", {name} {value:.4f}" for name, value in (report.evaluate or {}).items())
        LOG.info("Round %d: %d of %d silos replied%s", report.round, len(report.replied), len(report.cohort), scores)
        for failure in report.failed:
            LOG.warning("Round %d: %s failed in %s: %s", report.round, failure.silo, failure.stage, failure.words)

    def round_failed(self, report: RoundReport, error: str) -> None:
        """Journal a round that ends the run, under a name of its own: it is not counted, and has no model."""
        self._line({"event": "failed", **report.journalled(), "error": error})

    def check_same(self, began_with: Settings, settings: Settings, code_hash: str) -> None:
        """Refuse to go on with other settings or other code than the run began with: it would not be the same run.

        Raises
        ------
        SettingsError
        """
        different = difference(began_with, settings)
        if different:
            raise SettingsError(f"The run in '{self.path}' was started with {different}: it can only go on with that.")
        if self._about.get("code") != code_hash:
            raise SettingsError(
                f"The run in '{self.path}' was started with other code than is here now: it would not end with the "
                "same model; start it anew."
            )

    def hold_to(self, what: str, value: Any) -> None:
        """Note what a run began with; refuse to go on where it has become something else.

        Parameters
        ----------
        what : str
            For example the silos, by name and in order.
        value : object
            Of a kind that JSON holds exactly.

        Raises
        ------
        RunFailed
            If a resumed run began with another value.
        """
        held = self._about.setdefault("held_to", {})
        if what in held and held[what] != value:
            shown = f" ({', '.join(held[what])})" if what == "silos" else ""
            raise RunFailed(f"This run began with other {what}{shown}: it can only go on with those.")
        held[what] = value
        self._write_about()

    def resume(self) -> Checkpoint | None:
        """Take up a reopened run: cut its journal back to the last checkpoint and mark it as running.

        Returns
        -------
        Checkpoint or None
            Where to go on from; None to begin with the first round.

        Raises
        ------
        RunFailed
            If the checkpoint is damaged.
        """
        checkpoint = self._checkpoints.load()
        done = checkpoint.state.round if checkpoint is not None else 0
        journalled = _cut_back(self.path / "metrics.jsonl", checkpoint)
        for unfinished in self.path.rglob(".*.new"):
            unfinished.unlink()
        if checkpoint is not None:
            self._state = checkpoint.state
            self._about.update(model=checkpoint.line["model"])
            if not journalled:
                self._line(checkpoint.line)
        self._about.update(status="running", error=None, finished=None, rounds=done)
        self._write_about()
        return checkpoint

    def finish(self, status: str, error: str | None = None) -> None:
        """Write the last model and how the run ended."""
        if self._state is not None:
            if not self._selftest:  # then the model is made of noise alone, and nobody's result
                replace(self.path / "model.safetensors", safetensors(self._state.model))
            self._about["model"] = fingerprint(self._state.model)
        self._about.update(status=status, error=error, finished=_now())
        end = {"status": status, "rounds": self._about.get("rounds", 0), "model": self._about.get("model")}
        end |= {"error": error} if error is not None else {}
        self._line({"event": "end", **end, "seconds": time.perf_counter() - self._started})
        self._write_about()
        if not self._selftest:
            write_card(self.path)
        self.close()

    def close(self) -> None:
        """Let another process write the folder."""
        self._checkpoints.close()
        self._journal.close()

    def _line(self, event: Mapping[str, Any]) -> None:
        self._journal.write(json.dumps(event, allow_nan=False) + "\n")
        self._journal.flush()

    def _write_about(self) -> None:
        self._about.update({"run": self.run} if self.run else {})
        replace(self.path / "run.json", json.dumps(self._about, indent=2).encode())


def difference(before: Settings, after: Settings) -> str:
    """Say in what way settings differ, in words such as ``training.lr=0.1, not 0.2``; empty if they do not."""
    for group, old in before.as_dict().items():
        if group in ("output", "tracking"):  # the launcher's own: the model is the same
            continue
        new = after.as_dict()[group]
        pairs = [(group, old, new)] if not isinstance(old, dict) else []
        if isinstance(old, dict):
            if old["name"] != new["name"]:
                return f"{group}={old['name']}, not {new['name']}"
            pairs = [(f"{group}.{key}", value, new[key]) for key, value in old.items()]
        for key, one, other in pairs:
            if one != other:
                return f"{key}={one}, not {other}"
    return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_about(path: Path) -> dict[str, Any]:
    """Read ``run.json`` of a run folder.

    Raises
    ------
    SettingsError
        If the folder holds no run.
    """
    try:
        return {**json.loads((path / "run.json").read_text(encoding="utf-8"))}
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise SettingsError(f"'{path}' is not the folder of a run: it holds no readable run.json.") from error


def close_abandoned(path: Path, status: str, error: str) -> None:
    """Write how a run ended whose own process can no longer say so, and keep the last model that it checkpointed.

    Does nothing to a folder whose run has ended, or never began.

    Parameters
    ----------
    path : pathlib.Path
        The run folder.
    status : {"failed", "interrupted"}
    error : str
        One sentence.
    """
    try:
        if read_about(path).get("status") != "running":
            return
        folder = RunFolder(path, reopen=True)
    except SettingsError:
        return
    folder.resume()
    folder.finish(status, error)


def _cut_back(journal: Path, checkpoint: Checkpoint | None) -> bool:
    """Cut the journal behind the line of the checkpoint's round; tell whether that line is there.

    What is cut off is torn, or says how the run had ended, or speaks of rounds that will be run again. Cutting needs
    no second write, so a kill in the middle of it loses nothing.
    """
    last = checkpoint.state.round if checkpoint is not None else 0
    end = rounds = 0
    for text in journal.read_bytes().splitlines(keepends=True):
        try:
            event = json.loads(text) if text.endswith(b"\n") else {"event": "end"}
        except ValueError:
            break
        rounds = max(rounds, int(event.get("round", 0)) if event.get("event") == "round" else 0)
        if event.get("event") in ("end", "failed") or rounds > last or checkpoint is None:
            break
        end += len(text)
    os.truncate(journal, end)  # in place: the file is open, and locked, under this very name
    return rounds >= last


def read_overrides(path: Path) -> str:
    """Read from ``settings.yaml`` the overrides that a run was started with.

    Raises
    ------
    SettingsError
        If the folder holds no readable settings.
    """
    from quire.conf.strict_yaml import loaded

    try:
        return str(loaded((path / "settings.yaml").read_text(encoding="utf-8"))["overrides"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"'{path}' is not the folder of a run: it holds no readable settings.yaml.") from error
