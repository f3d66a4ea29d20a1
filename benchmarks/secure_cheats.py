"""Silos that cheat under secure aggregation, in this process: patches of what the silos' own apps do, for a while.

An ``attack=`` of the simulation replaces updates that travel in clear, and under masks there is none to replace. So a
cheat is put where a real one would be: at the silo, before anything is masked. The server's part is as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np

#: Classes of ``task=digits``, the only task whose labels are flipped here.
DIGITS = 10


@dataclass(frozen=True)
class Cheat:
    """What a silo does instead of its part.

    Attributes
    ----------
    factor : float
        What its update is multiplied by, before its app cuts it to what the settings allow.
    reverse : bool
        Whether it sends the last step of the global model, which every silo has seen, in place of its update.
    flip : bool
        Whether it trains on labels ``9 - y``.
    full : bool
        Whether it states as many rows as the settings let a silo count, whatever it has.
    limit : bool
        Whether it fills up all that the alarm leaves to the whole sum; see :func:`filled`.
    giant : bool
        Whether it adds an eighth of the ring to each coordinate.
    silent : bool
        Whether it does not answer what begins a round.
    every : int
        Does none of it in each round whose number this divides; 0: cheats in every round.
    """

    factor: float = 1.0
    reverse: bool = False
    flip: bool = False
    full: bool = False
    limit: bool = False
    giant: bool = False
    silent: bool = False
    every: int = 0


def filled(integers: np.ndarray, body: int, members: int, cheats: int, kept: float) -> np.ndarray:
    """Lengthen what one silo would add at its full weight, so that the sum lies just within what the alarm allows.

    The alarm knows only the sum: with ``m`` members its weight is at most that of m full silos, and its length what
    these could come to. One who sends against the others may add as much as all of them, and state the weight that the
    others leave.

    Parameters
    ----------
    integers : numpy.ndarray of int64
        A silo's vector at full weight: update, weight, and what is averaged beside it.
    body : int
        Coordinates of the update.
    members, cheats : int
        Of the sum.
    kept : float
        Weight of the honest members together, in full silos.
    """
    folds = max(1, int((members - kept) / cheats))
    longer = integers * folds
    # Shorter by a hundredth, so that rounding rings no alarm; and the weight that is missing is nobody's length.
    longer[:body] = np.rint(integers[:body] * (0.99 * (kept + cheats * folds) / cheats))
    return longer


@contextlib.contextmanager
def cheating(silos: Collection[str], cheat: Cheat, sums: int = 1) -> Iterator[None]:
    """Let some simulated silos cheat for as long as the context lasts.

    Parameters
    ----------
    silos : collection of str
        Spread evenly over the sums, as silos of consecutive numbers are over groups.
    cheat : Cheat
    sums : int
        Groups; 1 where all silos are summed together.
    """
    from quire.clients import work
    from quire.clients.secure import handlers, training
    from quire.conf.numbers import rows_of
    from quire.privacy.dp.wire import centred, to_ring

    prepare, update, ready = work._prepare, training._update, handlers.ready_for
    seen: dict[int, dict[str, np.ndarray]] = {}

    def at_it(name: str, round_number: int) -> bool:
        return name in silos and not (cheat.every and round_number % cheat.every == 0)

    def prepared(settings: Any, where: Any, silo: str, *rest: Any) -> Any:
        data = prepare(settings, where, silo, *rest)
        if silo not in silos or not cheat.flip:
            return data
        flipped = dataclasses.replace(data.train, y=DIGITS - 1 - data.train.y)
        return dataclasses.replace(data, train=flipped)

    def trained(silo: Any, context: Any, model: Any, round_number: int, note: Any) -> Any:
        found = update(silo, context, model, round_number, note)
        seen.setdefault(round_number, {name: part.copy() for name, part in model.items()})
        if not at_it(silo.member.name, round_number):
            return found
        sent = found.update
        if cheat.reverse and (before := seen.get(round_number - 1)) is not None:
            sent = {name: model[name] - before[name] for name in sent}
        changed = {name: (cheat.factor * part).astype(part.dtype) for name, part in sent.items()}
        return dataclasses.replace(found, update=changed, rows=10**9 if cheat.full else found.rows)

    def lying(silo: Any, context: Any, agreement: Any, *rest: Any) -> Any:
        if cheat.silent and silo.member.name in silos:
            raise RuntimeError("this silo does not answer")
        vector, shown = ready(silo, context, agreement, *rest)
        if not (cheat.limit or cheat.giant) or not at_it(silo.member.name, vector.round):
            return vector, shown
        point, members = agreement.point, agreement.terms.members
        integers = centred(np.frombuffer(vector.words, "<u4").astype(np.uint32), point.bits).astype(np.int64)
        if cheat.giant:
            integers[: point.body] = 2 ** (point.bits - 3)
        else:
            cheats, data = -(-len(silos) // sums), silo.settings.data
            trained_on = rows_of(data) * (1.0 - data.test_fraction) / silo.settings.partition.silos
            kept = (members - cheats) * min(1.0, trained_on / point.max_weight)
            integers = filled(integers, point.body, members, cheats, kept)
        return dataclasses.replace(vector, words=to_ring(integers).astype("<u4").tobytes()), shown

    with (
        patch.object(work, "_prepare", prepared),
        patch.object(training, "_update", trained),
        patch.object(handlers, "ready_for", lying),
    ):
        yield
