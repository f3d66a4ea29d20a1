"""What a privacy card says in words: every sentence follows from the receipts, the unwelcome ones too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quire.strategies import card_noise, secure_words
from quire.strategies.card_noise import Shared
from quire.strategies.secure_words import SHORT_CUT, Masked


@dataclass(frozen=True)
class Facts:
    """What the sentences depend on.

    Attributes
    ----------
    unit : str
        ``record`` or ``silo``.
    noiseless : bool
        Whether epsilon is infinite.
    discrete : bool
        Whether the noise is discrete.
    sampled : bool
    aggregation : str
        The option of that group.
    simulated, test_seed : bool
        Whether any silo was simulated, or let a seed decide its randomness.
    unguarded : int
        Silos whose code no gate checked.
    silos : int
    signatures : str
        ``simulated``, ``roster`` or ``unchecked``.
    adaptive : bool
        Whether the clip moved from round to round.
    masked : Masked or None
        Under secure aggregation, what its sentences depend on.
    shared : Shared or None
        Under distributed noise, what its sentences depend on.
    """

    unit: str
    noiseless: bool
    discrete: bool
    sampled: bool
    aggregation: str
    simulated: bool
    test_seed: bool
    unguarded: int
    silos: int
    signatures: str
    adaptive: bool = False
    masked: Masked | None = None
    shared: Shared | None = None

    @property
    def clear(self) -> bool:
        """Whether nothing was masked where secure aggregation was asked for, by the short cut of a simulation."""
        return self.masked is not None and self.masked.clear


def standing(facts: Facts) -> str:
    """Return in one word what the card is worth: ``none``, ``simulation``, ``test``, or ``stated``."""
    if facts.noiseless:
        return "none"
    if facts.simulated:
        return "simulation"
    return "test" if facts.test_seed else "stated"


def verdict(facts: Facts, epsilon: Any, delta: float) -> str:
    """Return the card in one sentence, from the largest epsilon and the largest delta of any silo."""
    short = f" It had no secure aggregation ({SHORT_CUT})." if facts.clear else ""
    if facts.noiseless:
        why = "privacy.epsilon=inf, so updates were clipped and no noise was added; epsilon is infinite."
        return f"No guarantee: {why}{short}"
    promise = f"epsilon {epsilon:.3g} at delta {delta:g} for one {facts.unit}"
    if facts.simulated:
        return (
            f"Invalid as a guarantee: this was a simulation, whose noise comes from a seed.{short} The same run with "
            f"real silos{' and the whole protocol' if short else ''} would state {promise}."
        )
    if facts.test_seed:
        return (
            f"Invalid as a guarantee: at least one silo let a seed decide its noise (policy.test_seed). Without it the "
            f"run would state {promise}."
        )
    stated = f"Every {facts.unit} has epsilon {epsilon:.3g} at delta {delta:g}, or better"
    if (shared := facts.shared) is None:
        return f"{stated}."
    if shared.broken:
        return f"Not to be relied upon: {stated[0].lower()}{stated[1:]}, was promised. {shared.alarm}"
    return f"{stated}, as long as {shared.condition}."


def words(facts: Facts) -> dict[str, list[str]]:
    """Return the card's sentences, by heading."""
    return {
        "protects": _protects(facts),
        "mechanism": _mechanism(facts),
        "trusted": _trusted(facts),
        "sees": _sees(facts),
        "not_protected": _not_protected(facts),
        "signatures": [_signatures(facts)],
    }


def _protects(facts: Facts) -> list[str]:
    if facts.noiseless:
        return ["Nothing: without noise an update can tell of any record."]
    if facts.shared is not None:
        return card_noise.protects(facts.unit)
    if facts.unit == "record":
        return [
            "One record, which is one row, of a silo's declared population: whoever sees all that left the silo can "
            "hardly tell whether that record was there or had been left out (neighbours: add or remove one record).",
            *card_noise.RECORDS,
        ]
    return [
        "One silo's whole contribution: whoever sees the global models can hardly tell them from those in which the "
        "silo's updates had been zero (neighbours: zero out one silo, who took part being public).",
        "For one record inside a silo it is weaker: a record can move the clipped update by twice the clip, so the "
        "noise counts half for it, which is what the silos' ledgers are charged; against the server it has nothing.",
    ]


def _mechanism(facts: Facts) -> list[str]:
    if facts.shared is not None:
        text = card_noise.mechanism(facts.shared, facts.unit)
    elif facts.unit == "record":
        text = [
            "DP-SGD in every silo: in each step every record is drawn independently with the sampling rate (Poisson), "
            "its gradient is clipped, and noise is added to the sum, which is divided by a public number."
        ]
    else:
        text = ["Every silo clips its whole update; the server adds the noise once, to the sum of each round."]
    if facts.adaptive:
        text.append(
            "The clip moves with the noisy share of updates within it (Andrew et al. 2021): the one stated here, with "
            "sensitivity and noise, is that of a silo's first round; the journal has each round's. The noise "
            "multiplier is that of a round as a whole; the sum of updates has a little more, which pays for the share."
        )
    if not facts.noiseless:
        kind = "discrete Gaussian, exact on integers" if facts.discrete else "Gaussian in floating point"
        text.append(f"The noise is {kind}; its standard deviation is the noise multiplier times the clip.")
        text.append(
            "Epsilon comes from Renyi differential privacy on a fixed grid of orders (RDP, the figure of record); the "
            "tighter one, from privacy loss distributions (PLD), is an estimate."
        )
    amplified = "inside a silo, record by record" if facts.sampled else "nowhere"
    text.append(f"Amplification by sampling is counted {amplified}; never for the choice of silos.")
    return text


def _trusted(facts: Facts) -> list[str]:
    text = []
    if facts.shared is not None:
        text += card_noise.trusted(facts.shared)
    elif facts.unit == "record":
        text.append("Nobody is trusted with the records: each silo adds its own noise before an update leaves it.")
    else:
        text.append(
            "The server is trusted: it receives every silo's clipped update without noise, and is relied upon to add "
            "the noise, of the stated size, before anybody sees the model. Silos sign for the clip, not for the noise."
        )
    if facts.unguarded:
        text.append(
            f"At {facts.unguarded} of {facts.silos} silos no gate checked the code, so the server that sent it is "
            "taken to be honest but curious: it runs the published code and learns what it can."
        )
    else:
        text.append("Every silo says that its gate let in this code, and no other.")
    if facts.masked is not None:
        text += secure_words.trusted(facts.masked)
    return text


def _sees(facts: Facts) -> list[str]:
    if facts.masked is not None:
        server = secure_words.sees(facts.masked)
    elif facts.unit == "record":
        update = "without noise" if facts.noiseless else "with the silo's noise in it"
        server = [f"The server sees each silo's update on its own, {update}."]
    else:
        server = ["The server sees each silo's clipped update on its own, before there is noise in it."]
    return [
        *server,
        "The silos, and whoever gets the model, see the global model of each round.",
        "Everybody sees this card, and the receipts that it is made of.",
    ]


def _not_protected(facts: Facts) -> list[str]:
    text = [
        "Who took part in which round, under which name, and each silo's declared number of records: all public.",
        "The forward and backward pass run in floating point; what rounding or timing there tells is not accounted."
        if facts.discrete
        else "Noise is added in floating point, whose low bits can leak (Mironov 2012); that is not accounted.",
    ]
    if facts.masked is not None:
        text += secure_words.not_protected(facts.masked)
    if facts.simulated:
        text.append(
            "Losses, scores and signal-to-noise in this folder: only a simulated silo shows them. Real silos keep "
            "them; no epsilon covers them."
        )
    else:
        text.append("Scores: silos keep them; nothing was evaluated in this run.")
    text.append(
        "Settings chosen by trying: every other run on the same records has its own epsilon, and this card counts one "
        "run. What a silo's records spent over all runs is in its ledger."
    )
    text.append(
        "What was sent and never used: a round that failed, or a reply that came too late, is in the silo's ledger "
        "and not here. The column for all rounds asked bounds it for the rounds that were finished."
    )
    return text


def _signatures(facts: Facts) -> str:
    if facts.signatures == "simulated":
        return (
            "Receipts are signed with keys made from the run's seed: they show that nothing was changed since, to "
            "people who trust whoever knows the seed."
        )
    if facts.signatures == "roster":
        return "Receipts are signed by the silos, and the server checked them against the consortium's roster."
    return "Receipts are signed by the silos; the server had no roster, so nobody has checked whose keys these are."


def rounds_words(done: int, planned: object, silent: Sequence[str], failed: Mapping[int, bool]) -> str:
    """Say how much of the run the card is about; of rounds that failed, whether a sum of theirs was opened."""
    text = f"It covers {done} of {planned} planned rounds."
    for number, opened in failed.items():
        what = (
            "its sum was opened, and counts as released"
            if opened
            else "no sum of it was opened; the attempts at it count where all attempts do"
        )
        text += f" Round {number} failed and ended the run: {what}."
    if silent:
        names = ", ".join(silent[:8]) + (f" and {len(silent) - 8} more" if len(silent) > 8 else "")
        text += f" No receipt came from {names}."
    return text
