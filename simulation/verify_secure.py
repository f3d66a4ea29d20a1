"""``quire verify`` on what only rounds under masks can be: lost, with nothing opened and the model as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.clients.secure.agreement import Agreement
from quire.conf.schema import SecureAggregation, Settings
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.secagg.masks import Words


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
    secure = line.get("secure")
    rejected = isinstance(secure, Mapping) and secure.get("rejected", False)
    if "lost" not in line:
        ended = line.get("event") != "round"  # that of a round that ended the run says in other words that it did
        return [f"Round {line['round']} is called rejected, and not lost."] if rejected and not ended else []
    where = f"Round {line['round']} is called lost"
    if not isinstance(line["lost"], str) or not line["lost"]:
        return [f"{where} without a word why."]
    if settings is not None and not isinstance(settings.aggregation, SecureAggregation):
        return [f"{where}, which only a round of secure aggregation can be."]
    wrong = [] if line["model"] == model else [f"{where}, and has another model than the round before."]
    if rejected is not False:
        # Its sum was opened, so that there are receipts. Whether it was too large only a transcript says.
        if rejected is not True or not line["replied"] or line.get("released"):
            wrong.append(f"{where} by the alarm, and no sum is told of it, or probes of its noise are.")
    elif isinstance(secure, Mapping) and "groups" in secure:
        if line.get("receipts") or line.get("released"):  # some of its sums may have been opened
            wrong.append(f"{where}, and receipts or probes are told of it.")
    elif line["replied"] or line.get("receipts") or line.get("released"):
        wrong.append(f"{where}, and replies, receipts or probes are told of it.")
    return wrong


def check_opened(
    line: Mapping[str, Any], agreement: Agreement, total: Words | None, silos: int, required: bool
) -> list[str]:
    """Say where a transcript contradicts the journal, which calls its round lost.

    Parameters
    ----------
    line : mapping
        The journal's, of a lost round.
    agreement : Agreement
    total : numpy.ndarray of uint32 or None
        The sum that the round's transcripts open, if they open one.
    silos : int
        How many there are in it.
    required : bool
        Whether every round has transcripts.

    Returns
    -------
    list of str
        One sentence, or none.
    """
    secure, where = line.get("secure"), f"Round {line['round']}"
    rejected = isinstance(secure, Mapping) and secure.get("rejected") is True
    if total is None:
        return [f"{where}: its sum is called rejected, and no transcript opens it."] if rejected and required else []
    if not rejected:
        return [f"{where}: it is called lost, and its transcript opens a sum."]
    try:
        reach = agreement.check(total, silos)
    except EncodingError:
        return []
    share = f"{100 * reach:.3g} % of what the alarm allows"
    return [f"{where}: its sum is called rejected, and is one that honest silos can come to, with {share}."]


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
