"""``quire verify`` on what only rounds under masks can be: lost, with nothing opened and the model as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.conf.schema import SecureAggregation, Settings


def check_lost(line: Mapping[str, Any], settings: Settings | None, model: str) -> list[str]:
    """Say where a round that the journal calls lost is none.

    Parameters
    ----------
    line : mapping
        The journal's, of a round.
    settings : Settings or None
        As composed anew; None where they could not be.
    model : str
        SHA-256 of the model before the round.

    Returns
    -------
    list of str
        One sentence each; empty of a round that was not lost.
    """
    if "lost" not in line:
        return []
    where = f"Round {line['round']} is called lost"
    if not isinstance(line["lost"], str) or not line["lost"]:
        return [f"{where} without a word why."]
    if settings is not None and not isinstance(settings.aggregation, SecureAggregation):
        return [f"{where}, which only a round of secure aggregation can be."]
    wrong = [] if line["model"] == model else [f"{where}, and has another model than the round before."]
    if line["replied"] or line.get("receipts") or line.get("released"):
        wrong.append(f"{where}, and replies, receipts or probes are told of it.")
    return wrong


def check_short_cut(line: Mapping[str, Any], settings: Settings | None) -> list[str]:
    """Say where a round was summed otherwise than the settings have it: in clear, or under masks.

    Parameters
    ----------
    line : mapping
        The journal's, of a round.
    settings : Settings or None
        As composed anew; None where they could not be.

    Returns
    -------
    list of str
        One sentence, or none.
    """
    secure = line.get("secure")
    if settings is None or not isinstance(settings.aggregation, SecureAggregation) or not isinstance(secure, Mapping):
        return []
    summed = secure.get("simulate", "protocol")
    if not secure or summed == settings.aggregation.simulate:
        return []
    return [
        f"Round {line['round']}: its sum was not made as the settings say, which have aggregation.simulate="
        f"{settings.aggregation.simulate}."
    ]
