"""Distributed noise at the server: what is said before the first round, and what the probes say after each.

The server adds no noise and checks none by trust: it decodes a sum that is noisy already, and holds the all-zero
coordinates in it against what the survivors have promised together. An alarm stops nothing. It is logged, journalled,
and stays on the report and the card, for what was released is released.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quire.clients.arrays import Arrays
from quire.clients.secure.agreement import Agreement
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.forecast import DROWNING, Forecast, forecast
from quire.privacy.dp.probes import ProbeTest, p_value
from quire.privacy.dp.shares import watch
from quire.privacy.dp.wire import centred
from quire.privacy.secagg.masks import Words

LOG = logging.getLogger("quire.strategies")

#: Where the state of a round keeps what the probes have come to, so that a resumed run goes on with their test.
MEMORY = "probes"
#: Where it keeps, in a self-test of the noise, the opened sums of all rounds, and how many silos are in each.
SUMS, SILOS = "selftest-sums", "selftest-silos"
#: And after a round that was lost, how many were in a row, and whether any sum of the run was taken.
SETBACKS = "setbacks"
#: All that a state holds for this layer: no algorithm's, and no part of the model chain.
OWN = (MEMORY, SUMS, SILOS, SETBACKS)


@dataclass(frozen=True)
class Collected:
    """What a round of secure aggregation came to.

    Attributes
    ----------
    mean : dict of str to numpy.ndarray
        Mean of the survivors' updates, float64: weighted, or over a public number under distributed noise.
    metrics : dict of str to float
        Weighted means.
    silos : list of str
        Whose updates are in it, in roster order.
    kept : dict of str to numpy.ndarray
        What the server has to remember until the next round.
    released : dict of str to float
        For the journal: what the probes of this round came to.
    """

    mean: Arrays
    metrics: dict[str, float]
    silos: list[str]
    kept: Arrays = field(default_factory=dict)
    released: dict[str, float] = field(default_factory=dict)


def collected(agreement: Agreement, total: Words, silos: list[str], memory: Mapping[str, np.ndarray]) -> Collected:
    """Decode an opened sum; under distributed noise, test its probes.

    Parameters
    ----------
    agreement : Agreement
    total : numpy.ndarray of uint32
    silos : list of str
        Whose vectors are in the sum.
    memory : mapping of str to numpy.ndarray
        What the server remembers of the rounds before.

    Raises
    ------
    EncodingError
        If the sum has no mean.
    """
    mean, metrics = agreement.decode(total)
    if agreement.terms.noise is None or not isinstance(agreement.point, Encoding) or not agreement.point.noise_variance:
        return Collected(mean, metrics, silos)
    probes = agreement.point.released(total)
    before = _test(memory.get(MEMORY))
    after = watch(before, agreement.point, probes, len(silos))
    statistic = after.statistic - before.statistic
    if after.alarm and not before.alarm:
        LOG.warning("%s", alarm_words(after))
    released = {
        "probes": float(len(probes)),
        "probe_statistic": statistic,
        "probe_p": p_value(len(probes), statistic),
        "probe_alarm": float(after.alarm),
    }
    kept = {MEMORY: _numbers(after)}
    if agreement.terms.selftest:
        kept |= opened(memory, agreement.point, total, len(silos))
    return Collected(mean, metrics, silos, kept, released)


def opened(memory: Mapping[str, np.ndarray], encoding: Encoding, total: Words, silos: int) -> Arrays:
    """Return what the server remembers of a self-test of the noise, with one more opened sum of so many silos."""
    now: Arrays = {SUMS: centred(total, encoding.bits).astype(np.int32)[None], SILOS: np.array([silos])}
    return {name: np.concatenate([memory[name], part]) if name in memory else part for name, part in now.items()}


def probes_of(rounds: list[Mapping[str, Any]]) -> ProbeTest:
    """Put the test of a run's probes together once more, from what the journal says of each round.

    Raises
    ------
    TypeError, ValueError
        If a line does not say it.
    """
    test = ProbeTest()
    for line in rounds:
        released = line.get("released") or {}
        test = test.add(int(released["probes"]), float(released["probe_statistic"])) if "probes" in released else test
    return test


def alarm_words(test: ProbeTest) -> str:
    """Say what an alarm means."""
    if test.too_little is not None:
        return (
            f"Noise probes: after {test.too_little} rounds the noise in the sums is {test.ratio:.3g} times the "
            "variance that was promised, too little by more than chance allows; the stated epsilon cannot be relied "
            "upon. Some silo adds less than its share."
        )
    return (
        f"Noise probes: after {test.too_much} rounds the noise in the sums is {test.ratio:.3g} times the variance that "
        "was promised, too much by more than chance allows: accuracy is lost, privacy is not."
    )


def announce(agreement: Agreement) -> dict[str, Any]:
    """Log how large the noise will be beside the signal, and return for the journal what the run's noise is.

    Parameters
    ----------
    agreement : Agreement

    Returns
    -------
    dict
        ``noise``, ``encoding`` and ``forecast``, as JSON has them; empty without distributed noise.
    """
    noise, encoding = agreement.terms.noise, agreement.point
    if noise is None or not isinstance(encoding, Encoding):
        return {}
    told = forecast(noise, agreement.layout.size)
    for words in forecast_words(told, str(noise.unit)):
        (LOG.warning if told.drowned else LOG.info)("%s", words)
    said: dict[str, Any] = json.loads(
        json.dumps({"noise": asdict(noise), "encoding": encoding.to_json(), "forecast": asdict(told)})
    )
    return said


def forecast_words(told: Forecast, unit: str) -> list[str]:
    """Say how large the noise of a run will be, and what to do where it drowns the signal."""
    what = "every record's gradient" if unit == "record" else "every silo's update"
    text = [
        f"Noise beside signal: with {what} at the clip and all of them aligned, which no real one is, the noise of a "
        f"round is {told.step:.3g} times the signal, and over {told.rounds} rounds {told.run:.3g} times."
    ]
    if told.drowned:
        more = f"{told.parties_needed} silos like these" + (", with as many records each" if unit == "record" else "")
        smaller = f" or at most {told.dimension_needed} parameters" if told.dimension_needed else ""
        text.append(
            f"That drowns the signal (more than {DROWNING:g} times it over the run): expect little of the model. "
            f"It takes {more}{smaller} instead of {told.dimension}, or a larger privacy.epsilon; "
            "more or fewer rounds barely help."
        )
    return text


def _test(kept: NDArray[np.float64] | None) -> ProbeTest:
    if kept is None:
        return ProbeTest()
    looks, probes, statistic, little, much = (float(number) for number in kept)
    return ProbeTest(int(looks), int(probes), statistic, too_little=int(little) or None, too_much=int(much) or None)


def _numbers(test: ProbeTest) -> NDArray[np.float64]:
    return np.array([test.looks, test.probes, test.statistic, test.too_little or 0, test.too_much or 0], np.float64)
