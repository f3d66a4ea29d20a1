"""What a privacy card says of noise that silos share: the run's numbers, what the probes showed, and who is trusted.

The numbers are those that the journal begins with. ``quire verify`` works them out anew from settings and roster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.spending import Spending
from quire.privacy.receipts import SHARED, Receipt
from quire.strategies.distributed import alarm_words, probes_of

#: Key of the journal's first line, and of the card.
KEY = "distributed"

_ROUNDING = 1e-9  # of a sum of charges, over the same number of rounds at once


@dataclass(frozen=True)
class Shared:
    """What the sentences depend on.

    Attributes
    ----------
    members, colluders, min_survivors, shares : int
        n, c, U_min, and how many shares carry the stated noise.
    alone : float
        The largest epsilon of any silo if all others are dishonest.
    rounds : int
        Whose probes were looked at.
    ratio : float
        Observed over promised variance of the noise.
    alarm : str
        What the probes' alarm says; empty without one.
    broken : bool
        Whether they found too little noise.
    """

    members: int
    colluders: int
    min_survivors: int
    shares: int
    alone: float
    rounds: int
    ratio: float
    alarm: str
    broken: bool

    @property
    def condition(self) -> str:
        """What the stated epsilon rests on, in words."""
        if not self.colluders:
            return "no silo leaves its noise out or tells it"
        verbs = "leaves its noise out or tells it" if self.colluders == 1 else "leave their noise out or tell it"
        return f"no more than {self.colluders} of the {self.members} silos {verbs}"


def noise_in(start: Mapping[str, Any]) -> tuple[SharedNoise, Encoding] | None:
    """Read the numbers of distributed noise from the journal's first line; None if there are none.

    Raises
    ------
    PrivacyError
        If they are malformed.
    """
    told = start.get(KEY)
    if told is None:
        return None
    if not isinstance(told, Mapping) or set(told) != {"noise", "encoding", "forecast"}:
        raise PrivacyError("The journal's numbers of distributed noise are not what a run writes.")
    numbers = told["noise"]
    names = {item.name for item in fields(SharedNoise)}
    if not isinstance(numbers, Mapping) or set(numbers) != names or numbers["unit"] not in list(Unit):
        raise PrivacyError("The journal's numbers of distributed noise are not what a run writes.")
    for name in names - {"unit", "kappa"}:
        real = name in ("clip", "noise_multiplier", "sampling_rate", "denominator")
        if isinstance(numbers[name], bool) or not isinstance(numbers[name], float if real else int):
            raise PrivacyError(f"The journal's {name} of distributed noise is not a number of the right kind.")
    if numbers["kappa"] is not None and not isinstance(numbers["kappa"], float):
        raise PrivacyError("The journal's kappa of distributed noise is no number.")
    return SharedNoise(**{**numbers, "unit": Unit(numbers["unit"])}), Encoding.from_json(told["encoding"])


def card_part(noise: SharedNoise, encoding: Encoding, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the card's part about the noise.

    Raises
    ------
    PrivacyError
        If the journal's lines do not say what the probes came to.
    """
    try:
        test = probes_of(list(rounds))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise PrivacyError("The journal does not say what the noise probes came to.") from error
    return {
        "noise": {**asdict(noise), "unit": str(noise.unit)},
        "known_shares": noise.colluders + 1,
        "shares": noise.shares,
        "encoding": encoding.to_json(),
        "probes": {
            "rounds": test.looks,
            "ratio": test.ratio if test.looks else None,
            "too_little": test.too_little,
            "too_much": test.too_much,
            "words": alarm_words(test) if test.alarm else "",
        },
    }


def add_part(
    start: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
    silos: Sequence[dict[str, Any]],
    receipts: Mapping[str, Sequence[Receipt]],
) -> dict[str, Any]:
    """Return the card's part about the noise by its key, and tell every silo's epsilon if all others are dishonest.

    How many members there are, how many of them may collude and how many have to survive is what the silos have signed,
    each for itself; the journal only may not say otherwise.

    Raises
    ------
    PrivacyError
        If the journal does not say it, or other numbers than any of the receipts.
    """
    found = noise_in(start)
    if found is None:
        raise PrivacyError("The journal does not begin with the numbers of distributed noise.")
    for receipt in (one for signed in receipts.values() for one in signed):
        for key in SHARED:
            if receipt.body.get(key) != (told := getattr(found[0], key)):
                raise PrivacyError(
                    f"The receipt of {receipt.body['silo'][:80]} in round {receipt.body['round']} is signed for "
                    f"{key}={receipt.body.get(key)}, and the journal says {told}."
                )
    for silo in silos:
        # Each attempt has a vector of its own under a share of its own, be its sum opened or not.
        name = silo["statement"]["silo"]
        tried = sum(attempts_of(line, name) for line in rounds if name in line["cohort"])
        silo["if_alone"] = {"rdp": alone(found[0], max(tried, 1), silo["statement"]["delta"])}
    return {KEY: card_part(*found, [line for line in rounds if line["event"] == "round"])}


def alone(noise: SharedNoise, attempts: int, delta: float) -> float | str:
    """Return a silo's epsilon after so many attempts if all other silos are dishonest, as JSON has it."""
    epsilon = Spending.of(noise.released_alone(attempts)).epsilon(delta)
    return "inf" if math.isinf(epsilon) else epsilon


def signed_beyond(receipts: Mapping[str, Sequence[Receipt]], silos: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what silos have signed for, where it is more than the journal's attempts come to.

    A silo charges for each attempt before it touches data, and its receipt states what the run has come to so far. A
    server that leaves attempts out of its journal cannot change that.

    Parameters
    ----------
    receipts : mapping of str to sequence of Receipt
        By silo.
    silos : sequence of mapping
        The card's, under distributed noise.

    Returns
    -------
    dict of str to float
        The largest epsilon that a ledger states, by silo. Nothing under the silo unit, whose ledger counts records at
        half the noise, and nothing where a seed decides the noise, for which a ledger is charged everything.
    """
    found = {}
    for silo in silos:
        name, delta = silo["statement"]["silo"], silo["statement"]["delta"]
        bodies = [receipt.body for receipt in receipts[name]]
        if silo["statement"]["unit"] != Unit.RECORD or any(body["test_seed"] for body in bodies):
            continue
        signed = [float(body["ledger"]["epsilon"]) for body in bodies if body["ledger"] is not None]
        told = float(silo["if_all_asked"]["rdp"])
        if any(body["ledger"]["delta"] != delta for body in bodies if body["ledger"] is not None):
            found[name] = math.inf
        elif signed and max(signed) > told * (1.0 + _ROUNDING):
            found[name] = max(signed)
    return found


def shared_facts(part: Mapping[str, Any], silos: Sequence[Mapping[str, Any]]) -> Shared:
    """Return what the card's sentences depend on."""
    noise, probes = part["noise"], part["probes"]
    return Shared(
        noise["members"],
        noise["colluders"],
        noise["min_survivors"],
        part["shares"],
        max(float(silo["if_alone"]["rdp"]) for silo in silos),
        probes["rounds"],
        probes["ratio"] or 0.0,
        probes["words"],
        probes["too_little"] is not None,
    )


def attempts_of(line: Mapping[str, Any], silo: str) -> int:
    """Return how many attempts of a round asked a silo: each is charged, whatever became of it."""
    tried = (line.get("secure") or {}).get("attempts")
    if not isinstance(tried, list):
        return 1
    named = [one.get("cohort") for one in tried if isinstance(one, Mapping)]
    return max(1, sum(isinstance(cohort, list) and silo in cohort for cohort in named))


#: Said wherever the unit is a record.
RECORDS = (
    "It says record, not patient: somebody with several records has several times the epsilon, and a larger delta.",
    "Silos are taken to hold different records, so the run promises each record what its own silo promises; for one "
    "that two silos hold, the epsilons of both add up.",
)


def protects(unit: str) -> list[str]:
    """Say what is protected, from whom."""
    if unit == "record":
        return [
            "One record, which is one row, of a silo's declared population: whoever sees the sums and the models can "
            "hardly tell whether that record was there or had been left out (neighbours: add or remove one record).",
            *RECORDS,
        ]
    return [
        "One silo's whole contribution: whoever sees the sums and the models can hardly tell them from those in which "
        "the silo's updates had been zero (neighbours: zero out one silo, who took part being public).",
        "For one record inside a silo it is weaker: a record can move the clipped update by twice the clip, so the "
        "noise counts half for it, which is what the silos' ledgers are charged.",
    ]


def mechanism(shared: Shared, unit: str) -> list[str]:
    """Say how it is done."""
    noiseless = math.isinf(shared.alone)
    share = "" if noiseless else " with its share of the noise"
    first = (
        "One step of gradient descent a round: inside each silo every record is drawn independently with the sampling "
        f"rate (Poisson), its gradient is clipped, and the silo sends the sum{share}, under the mask."
        if unit == "record"
        else f"Every silo clips its whole update, and sends it as whole numbers of a checked norm{share}, under the "
        "mask."
    )
    first += " What is opened is the sum over the silos that survive, divided by a public number."
    if noiseless:
        return [first]
    out = f"{shared.colluders} may leave theirs out or tell it" if shared.colluders else "none leaves its own out"
    text = [
        first,
        f"{shared.shares} shares carry the stated noise: at least {shared.min_survivors} silos are in a sum, of which "
        f"{out}, and whoever looks knows one more, its own. Where more survive there is more noise than stated.",
    ]
    if shared.rounds:
        text.append(
            f"All-zero coordinates in every sum show the noise: over {shared.rounds} rounds its variance was "
            f"{shared.ratio:.4g} times the one promised"
            + (". " + shared.alarm if shared.alarm else ", which is within chance.")
        )
    return text


def trusted(shared: Shared) -> list[str]:
    """Say who is trusted with the noise."""
    if math.isinf(shared.alone):
        return ["There is no noise that anybody could be trusted with."]
    return [
        f"Nobody is trusted with the noise by itself, and the server not at all: every silo adds a share. The stated "
        f"epsilon holds as long as {shared.condition}.",
        "If all other silos are dishonest, a silo's own share is the only noise on its part: epsilon would then be "
        f"{shared.alone:.3g}" + (", which protects little." if shared.alone > 10 else "."),
    ]
