"""Silos that add to a sum what no honest one adds: words of their own choice, under their own masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from quire.clients.secure import handlers
from quire.clients.secure.agreement import Agreement
from quire.privacy.dp.wire import centred, to_ring

Share = Callable[[Agreement, np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def giant(agreement: Agreement, honest: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An eighth of the ring in every coordinate of the update; the rest is as it was."""
    integers = honest.copy()
    integers[: agreement.layout.size] = 2 ** (agreement.point.bits - 3)
    return integers


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
