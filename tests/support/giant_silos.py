"""Silos that add to a sum what no honest one adds: words of their own choice, under their own masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from quire.clients.secure import handlers
from quire.clients.secure.agreement import Agreement
from quire.privacy.dp.wire import centred, to_ring
from quire.privacy.secagg.plausible import largest_norm

Share = Callable[[Agreement, np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def giant(agreement: Agreement, honest: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An eighth of the ring in every coordinate of the update; the rest is as it was."""
    integers = honest.copy()
    integers[: agreement.layout.size] = 2 ** (agreement.point.bits - 3)
    return integers


def backwards(others: int) -> Share:
    """Undo what so many silos like this one add, and turn back as far as the alarm leaves room, at full weight."""

    def add(agreement: Any, honest: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        point, integers = agreement.point, honest.copy()
        body, end = honest[: point.body].astype(float), point.body + point._digits(point.max_weight.bit_length())
        weight = point._gathered(honest[point.body : end])
        room = 0.8 * largest_norm(point, others * weight + point.max_weight, others + 1, agreement.terms.norm_bound)
        integers[: point.body] = np.rint(-body * (others + room / np.linalg.norm(body)))
        integers[point.body : end] = point._spread(point.max_weight, point.max_weight.bit_length())
        return integers

    return add


def adds(monkeypatch: Any, silo: str, share: Share, rounds: tuple[int, ...]) -> None:
    """Let a simulated silo add something else than its update, in some rounds."""
    ready = handlers.ready_for

    def lying(one: Any, context: Any, agreement: Agreement, *rest: Any) -> Any:
        vector, shown = ready(one, context, agreement, *rest)
        if one.member.name == silo and vector.round in rounds:
            honest = centred(np.frombuffer(vector.words, "<u4").astype(np.uint32), agreement.point.bits)
            vector = replace(vector, words=to_ring(share(agreement, honest)).astype("<u4").tobytes())
        return vector, shown

    monkeypatch.setattr(handlers, "ready_for", lying)
