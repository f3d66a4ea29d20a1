"""Real silos with stores, keys and a roster, each message answered by a process of its own that may be killed.

As in Flower's deployment: a message is handled by a fresh process, and what it keeps is on the disk or lost.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from quire.clients import contract
from quire.clients.arrays import decode
from quire.clients.client_app import SILO_KEY, app
from quire.clients.entropy import Seeded
from quire.clients.identity import load_identity, new_identity
from quire.clients.identity.rosters import Change, first_roster, sign_roster, write_new
from quire.clients.tasks import task_of
from quire.conf.compose import compose
from quire.privacy.identity.signed import SignedRoster
from quire.privacy.randomness import stream
from quire.simulation.grid import _NODE_GONE, InlineGrid, _runtime_error, _stamped, server_identity
from quire.strategies import server_app
from quire.strategies.folder import RunFolder

FIRST = 100  # the node of hospital-1
POLICY = "modes: [none], aggregation: [secure], code: [], min_cohort: 2, colluders: 0, test_seed: true"


def overrides_of(silos: int, rounds: int, more: str = "") -> str:
    return (
        f"task=breast_cancer partition=iid partition.silos={silos} strategy.rounds={rounds} "
        f"strategy.min_silos={silos - 1} aggregation=secure output.report=false output.baselines=false "
        f"output.progress=none {more}"
    ).strip()


def write_silos(folder: Path, count: int, policy: str = POLICY) -> dict[str, Path]:
    """Write the folders of silos that share out a shipped data set, and the roster that all of them have pinned."""
    members, files = {}, {}
    for place in range(count):
        name = f"hospital-{place + 1}"
        (folder / name).mkdir(parents=True)
        members[name] = new_identity(folder / name / "silo.key", name=name)
        files[name] = folder / name / "silo.yaml"
    admin, now = new_identity(folder / "admin.key"), int(datetime.now(UTC).timestamp())
    change = Change(members, {"anna": admin}, valid_from=now - 60, valid_to=now + 86_400)
    signed = sign_roster(SignedRoster(first_roster("hearts", change)), load_identity(folder / "admin.key"))
    write_new(folder / "roster.json", signed)
    for place, path in enumerate(files.values()):
        path.write_text(
            f"name: {path.parent.name}\ndata: {{connector: shipped, partition: {place}, partitions: {count}}}\n"
            f"population: {{name: breast-{place}, records: 100}}\n"
            f"roster: {{file: ../roster.json, hash: {signed.roster.hash}}}\npolicy: {{{policy}}}\n"
        )
    return files


def stages_of(folder: Path) -> list[int]:
    """Return the stages of secure aggregation that a silo has written down, in order."""
    path = folder / "store" / "counters.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    told = [json.loads(line) for line in lines if line.endswith("\n")]
    return [line["stage"] for line in told if str(line.get("session", "")).endswith(".secure")]


class Killed:
    """Where one process is to die.

    Parameters
    ----------
    moment : int or str
        At its so manyth fsync, counted from 1, or ``"reply"``: when everything is written, and nothing was sent.
    """

    def __init__(self, moment: int | str) -> None:
        self.moment = moment

    def arm(self) -> None:
        """Plant the SIGKILL in this process."""
        fsync, count = os.fsync, [0]

        def deadly(file: int) -> None:
            count[0] += 1
            if count[0] == self.moment:
                die()
            fsync(file)

        os.fsync = deadly  # type: ignore[assignment]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deployment(InlineGrid):
    """A grid of real silos. Every reply that leaves one is noted in a file first.

    Attributes
    ----------
    kills : dict
        By stage, round and silo: how the process that answers then dies. Struck off when it has.
    before : callable
        Told of every message before it is delivered: the place to kill the server at.
    """

    def __init__(self, files: Mapping[str, Path], run: int, overrides: str, left: Path) -> None:
        contexts = {
            FIRST + place: Context(run, FIRST + place, {SILO_KEY: str(path)}, RecordDict(), {"overrides": overrides})
            for place, path in enumerate(files.values())
        }
        super().__init__(app, contexts, {FIRST + place: name for place, name in enumerate(files)})
        self.left, self.kills, self.died = left, dict[tuple[str, str, str], Killed](), list[tuple[str, str, str]]()
        self.before: Callable[[Message], None] = lambda message: None
        self.in_silo: Callable[[], None] = lambda: None

    def _deliver(self, message: Message) -> Message:
        self.before(message)
        about, silo = message.metadata, self._names[message.metadata.dst_node_id]
        place = (about.message_type, about.group_id, silo)
        kill = self.kills.pop(place, None)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            self._live(message, silo, kill, read, write)
        os.close(write)
        with open(read, "rb") as pipe:
            sent = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            self.died.append(place)
            return _runtime_error(message, _NODE_GONE)
        return _stamped(pickle.loads(sent))

    def _live(self, message: Message, silo: str, kill: Killed | None, read: int, write: int) -> None:
        """Answer one message, in a process that ends with it."""
        try:
            os.close(read)
            self.in_silo()
            if kill is not None:
                kill.arm()
            node = message.metadata.dst_node_id
            TaskIdentity.node_id = node
            context = self._contexts[node]
            reply = app(message, Context(context.run_id, node, context.node_config, RecordDict(), context.run_config))
            if kill is not None and kill.moment == "reply":
                die()
            self._note(reply, silo, message)
            with open(write, "wb") as pipe:
                pipe.write(pickle.dumps(reply))
        finally:
            os._exit(0)

    def _note(self, reply: Message, silo: str, message: Message) -> None:
        about = message.metadata
        data = b"" if reply.has_error() or contract.PROTOCOL not in reply.content else answer_in(reply)
        line = {"silo": silo, "stage": about.message_type, "round": about.group_id, "run": about.run_id}
        with self.left.open("ab") as file:
            file.write(json.dumps({**line, "data": data.hex()}).encode() + b"\n")


def answer_in(reply: Message) -> bytes:
    (message,) = decode(reply.content[contract.PROTOCOL]).values()
    return message.tobytes()


def left_silos(path: Path, stage: str) -> list[dict[str, Any]]:
    """Return what left silos at a stage."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{**line, "data": bytes.fromhex(line["data"])} for line in found if line["stage"] == stage]


def serve(grid: Deployment, run: int, folder: Path, roster: Path, overrides: str, resume: bool = False) -> list[Any]:
    """Be the server of a run; return the reports and states of its rounds."""
    seen: list[Any] = []
    round_done = RunFolder.round_done

    def watched(self: RunFolder, report: Any, state: Any) -> None:
        round_done(self, report, state)
        seen.append((report, state))

    config = {
        server_app.RUN_DIR_KEY: str(folder),
        server_app.ROSTER_KEY: str(roster),
        server_app.RESUME_KEY: resume,
    }
    context = Context(run, 1, config, RecordDict(), {"overrides": overrides})
    RunFolder.round_done = watched  # type: ignore[method-assign]
    try:
        with server_identity(run):
            server_app.app(grid, context)
    finally:
        RunFolder.round_done = round_done  # type: ignore[method-assign]
    return seen


def plain_mean(overrides: str, model: Mapping[str, np.ndarray], silos: list[str], number: int) -> dict[str, np.ndarray]:
    """Return the model after a round, by the plain weighted mean of what these silos train, without a server's code."""
    from quire.clients.work import train_update

    settings = compose(overrides)
    total, weight = {name: np.zeros(part.shape) for name, part in model.items()}, 0
    for silo in silos:
        place = int(silo.split("-")[1]) - 1
        trained = train_update(settings, place, silo, dict(model), {}, {}, number, Seeded(settings.seed), None)
        total = {name: total[name] + trained.rows * trained.update[name].astype(np.float64) for name in total}
        weight += trained.rows
    return {name: model[name] + total[name] / weight for name in total}


def warm(overrides: str) -> None:
    """Do in this process what a silo does, so that those that it forks have it all imported."""
    import torch

    import quire.clients.policy.books
    import quire.clients.store  # noqa: F401

    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    plain_mean(overrides, first_model(overrides), ["hospital-1"], 1)


def first_model(overrides: str) -> dict[str, np.ndarray]:
    """Return the model that a run begins with."""
    settings = compose(overrides)
    return task_of(settings).initial_arrays(stream(settings.seed, "model"))
