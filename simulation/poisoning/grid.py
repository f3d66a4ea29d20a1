"""The in-process grid with colluders in it: every silo trains by its own, unchanged app, then some answers change.

The silos' code knows nothing of attacks. A round's answers are held back until all are there, so that colluders can
know what the setting says that they know; then each colluder's update is replaced. What fails by itself stays failed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from quire.clients import contract
from quire.clients.arrays import Arrays, decode, encode
from quire.clients.data.own import Where, load
from quire.clients.data.preprocess import prepare, preprocessing_of
from quire.conf.attack_rules import colluders_of
from quire.conf.schema import Attack, Settings
from quire.privacy.randomness import stream
from quire.simulation.grid import InlineGrid, all_replies
from quire.simulation.poisoning.rows import ON_ROWS, poisoned
from quire.simulation.poisoning.updates import crafted
from quire.strategies.cohort import natural

LOG = logging.getLogger("quire.simulation")


def colluding(attack: Attack, seed: int, names: Iterable[str]) -> tuple[str, ...]:
    """Draw the colluders, in roster order: the same settings and silos give the same.

    Parameters
    ----------
    attack : Attack
    seed : int
        Of the run.
    names : iterable of str
        All silos.
    """
    roster = sorted(names, key=natural)
    count = colluders_of(attack.fraction, len(roster))
    places = stream(seed, "attack", "colluders").choice(len(roster), size=count, replace=False)
    return tuple(roster[place] for place in sorted(places.tolist()))


class PoisonedGrid(Grid):
    """Delivers as the grid inside does, but for what colluders answer to ``train``.

    Parameters
    ----------
    inner : InlineGrid
    settings : Settings
        Whose ``attack`` is one.
    names : mapping of int to str
        Of all silos, by node id.
    where : mapping of int to int or SiloFile
        Where the rows of each are.
    """

    def __init__(
        self, inner: InlineGrid, settings: Settings, names: Mapping[int, str], where: Mapping[int, Where]
    ) -> None:
        if not isinstance(settings.attack, Attack):
            raise TypeError("the settings name no attack")
        self._inner, self._settings, self._attack = inner, settings, settings.attack
        self._names, self._where = dict(names), dict(where)
        self.colluders = colluding(settings.attack, settings.seed, names.values())
        self._asked: dict[str, tuple[Message, list[str]]] = {}
        self._ready: dict[str, Message] = {}
        LOG.warning("attack=%s: %s collude in this simulation.", self._attack.name, ", ".join(self.colluders))

    def set_run(self, run: Run) -> None:
        """Refused, as by the grid inside."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """Not offered, as by the grid inside."""
        return self._inner.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message (deprecated in Flower: call ``Message`` instead)."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Accept messages for delivery and return their ids; those to train are one round's."""
        kept = list(messages)
        ids = list(self._inner.push_messages(kept))
        asked = {
            own: message
            for own, message in zip(ids, kept, strict=True)
            if message.metadata.message_type == contract.TRAIN
        }
        together = list(asked)
        self._asked.update({own: (message, together) for own, message in asked.items()})
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return a reply; the first of a round's once all of them are there."""
        wanted = list(message_ids)
        for own in wanted:
            if own in self._asked:
                self._hold_round(self._asked[own][1])
            if own in self._ready:
                return [self._ready.pop(own)]
        return self._inner.pull_messages(wanted)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and return all replies. ``timeout`` shortens the messages' time to live."""
        return all_replies(self, messages, timeout)

    def silo_memory(self) -> Arrays:
        """Return what all silos remember."""
        return self._inner.silo_memory()

    def restore_silo_memory(self, memory: Arrays) -> None:
        """Give silos back what they remembered."""
        self._inner.restore_silo_memory(memory)

    def about(self) -> dict[str, Any]:
        """Return who attacks, for ``run.json``."""
        return {"name": self._attack.name, "colluders": list(self.colluders)}

    def _hold_round(self, ids: Sequence[str]) -> None:
        """Let all silos of a round answer, and replace what the colluders do."""
        replies: dict[str, Message] = {}
        while arrived := list(self._inner.pull_messages(ids)):
            replies.update({reply.metadata.reply_to_message_id: reply for reply in arrived})
        asked = {own: self._asked.pop(own)[0] for own in ids}
        self._ready.update({own: replies[own] for own in ids if own in replies})
        usable = {own: reply for own, reply in replies.items() if _is_update(reply)}
        if not usable:
            return
        request = next(iter(asked.values()))
        round_number = _round(request)
        if round_number < self._attack.start:
            return
        ours = [own for own in ids if own in usable and self._name(asked[own]) in self.colluders]
        if ours:
            self._replace(ours, [own for own in ids if own in usable and own not in ours], asked, usable, round_number)

    def _replace(
        self,
        ours: Sequence[str],
        honest: Sequence[str],
        asked: Mapping[str, Message],
        usable: Mapping[str, Message],
        round_number: int,
    ) -> None:
        updates = {own: _arrays(usable[own], contract.UPDATE) for own in (*ours, *honest)}
        form = updates[ours[0]]
        if isinstance(self._attack, ON_ROWS):
            for own in ours:
                updates[own] = self._trained(asked[own], round_number)
        rows = {own: _flat(update) for own, update in updates.items()}
        size = len(rows[ours[0]])
        others = np.stack([rows[own] for own in honest]) if honest else np.zeros((0, size))
        seed = self._settings.seed
        generators = [stream(seed, "attack", "noise", round_number, self._name(asked[own])) for own in ours]
        sent = crafted(self._attack, np.stack([rows[own] for own in ours]), others, generators)
        for own, vector in zip(ours, sent, strict=True):
            usable[own].content[contract.UPDATE] = encode(_shaped(vector, form))

    def _trained(self, message: Message, round_number: int) -> Arrays:
        """Train as the silo's app does, on poisoned rows."""
        from quire.clients.local import train_locally
        from quire.clients.tasks import task_of
        from quire.clients.training import workbench

        settings, name = self._settings, self._name(message)
        where = self._where[message.metadata.dst_node_id]
        data = prepare(load(settings, where, name), preprocessing_of(settings), None)
        task = task_of(settings)
        rows = poisoned(self._attack, data.train, task.classes, stream(settings.seed, "attack", "rows", name))
        rng = stream(settings.seed, "batches", round_number, name)
        return train_locally(workbench(task), rows, settings, rng, _arrays(message, contract.ARRAYS), {}, {}).update

    def _name(self, message: Message) -> str:
        return self._names[message.metadata.dst_node_id]


def with_attack(
    grid: InlineGrid, settings: Settings, names: Mapping[int, str], where: Mapping[int, Where]
) -> InlineGrid | PoisonedGrid:
    """Return the grid with the colluders that the settings ask for; the grid itself without an attack."""
    return PoisonedGrid(grid, settings, names, where) if isinstance(settings.attack, Attack) else grid


def _is_update(reply: Message) -> bool:
    return reply.has_content() and isinstance(reply.content.get(contract.UPDATE), ArrayRecord)


def _round(message: Message) -> int:
    config = message.content[contract.CONFIG]
    number = config[contract.ROUND] if isinstance(config, ConfigRecord) else None
    if not isinstance(number, int):
        raise TypeError("the message names no round")
    return number


def _arrays(message: Message, name: str) -> Arrays:
    record = message.content[name]
    if not isinstance(record, ArrayRecord):
        raise TypeError("the message holds no arrays")
    return decode(record)


def _flat(update: Arrays) -> np.ndarray:
    return np.concatenate([part.reshape(-1) for part in update.values()])


def _shaped(vector: np.ndarray, form: Arrays) -> Arrays:
    """Return a flat vector in the shapes and dtypes of an update; what its dtype cannot hold becomes infinite."""
    shaped, start = {}, 0
    with np.errstate(over="ignore", invalid="ignore"):
        for name, part in form.items():
            shaped[name] = vector[start : start + part.size].reshape(part.shape).astype(part.dtype)
            start += part.size
    return shaped
