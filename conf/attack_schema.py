"""The settings of attacks that a simulation carries out against itself, and of the suspicion that looks for them."""

# No `from __future__ import annotations` here: the types are read at run time, and must not need an eval.
from dataclasses import dataclass

from quire.conf.setting import setting

KNOWS = ("all", "own")
_KNOWS = (
    "whose honest updates the colluders see before they answer: all (those of every silo of the round, the stronger "
    "attacker) or own (what they would have sent themselves)"
)


@dataclass(frozen=True)
class NoAttack:
    """Every simulated silo does what it should."""

    name: str


@dataclass(frozen=True)
class Attack(NoAttack):
    """Some simulated silos collude. What they do replaces their honest answers; real silos refuse such a run."""

    fraction: float = setting("share of all silos that collude, rounded down; who, the seed draws", gt=0.0, lt=1.0)
    start: int = setting("first round of the attack; before it the colluders answer honestly", ge=1, le=1_000_000)


@dataclass(frozen=True)
class SignFlipAttack(Attack):
    """Each colluder sends its own update turned around. Knows: its own update."""

    scale: float = setting("what the turned update is multiplied with", gt=0.0, le=1e30)


@dataclass(frozen=True)
class ScalingAttack(Attack):
    """Each colluder sends its own update, many times as large. Knows: its own update."""

    factor: float = setting("how many times", gt=1.0, le=1e30)


@dataclass(frozen=True)
class LabelFlipAttack(Attack):
    """Each colluder trains with every label y turned into C - 1 - y (Fang et al. 2020, arXiv 1911.11815, section 5)."""


@dataclass(frozen=True)
class BackdoorAttack(Attack):
    """Each colluder trains on rows with a trigger that name a target (Bagdasaryan et al. 2020, arXiv 1807.00459)."""

    target: int = setting("class that the trigger shall give", ge=0, le=99_999)
    features: int = setting("the trigger: how many of a row's last features (pixels) are set", ge=1, le=1_000_000)
    value: float = setting("what they are set to", ge=-1e6, le=1e6)
    poisoned: float = setting(
        "share of its own rows that a colluder adds again, with trigger and target", gt=0.0, le=1.0
    )
    boost: float = setting("what the colluder's update is multiplied with (model replacement)", ge=1.0, le=1e6)


@dataclass(frozen=True)
class AlieAttack(Attack):
    """All colluders send mean - z * standard deviation (Baruch et al. 2019, arXiv 1902.06156, algorithm 3)."""

    z: float | None = setting("z; null: z_max of the paper, from the numbers of silos and colluders", ge=0.0, le=100.0)
    knows: str = setting(_KNOWS, choices=KNOWS)


@dataclass(frozen=True)
class InnerProductAttack(Attack):
    """All colluders send -epsilon * mean (Xie et al. 2020, arXiv 1903.03936, section 4)."""

    epsilon: float = setting("how far against the mean; below 1 the attack hides among small updates", gt=0.0, le=1e6)
    knows: str = setting(_KNOWS, choices=KNOWS)


@dataclass(frozen=True)
class MinMaxAttack(Attack):
    """All colluders send mean + gamma * p, no farther from any update than two of those are from each other.

    Shejwalkar and Houmansadr 2021, NDSS, section IV.B.2, equation 8; gamma is worked out exactly.
    """

    direction: str = setting(
        "p: std (minus the standard deviation), unit (minus the mean, of norm 1) or sign (minus the mean's sign)",
        choices=("std", "unit", "sign"),
    )
    knows: str = setting(_KNOWS, choices=KNOWS)


@dataclass(frozen=True)
class FreeRiderAttack(Attack):
    """Each colluder sends the model as it came, plus noise (Fraboni et al. 2021, arXiv 2006.11901, section 3)."""

    noise: float = setting(
        "standard deviation of the noise on each number; 0: none, the plain free rider", ge=0.0, le=1e6
    )


@dataclass(frozen=True)
class NotFiniteAttack(Attack):
    """Each colluder sends NaN in every place."""


@dataclass(frozen=True)
class GiantAttack(Attack):
    """Each colluder sends one giant number in every place."""

    value: float = setting("the number", gt=0.0, le=3e38)


ATTACKS: dict[str, type] = {
    "none": NoAttack,
    "sign_flip": SignFlipAttack,
    "scaling": ScalingAttack,
    "label_flip": LabelFlipAttack,
    "backdoor": BackdoorAttack,
    "alie": AlieAttack,
    "inner_product": InnerProductAttack,
    "min_max": MinMaxAttack,
    "free_rider": FreeRiderAttack,
    "not_finite": NotFiniteAttack,
    "giant": GiantAttack,
}


@dataclass(frozen=True)
class NoSuspicion:
    """Updates are not compared with one another."""

    name: str


@dataclass(frozen=True)
class WatchSuspicion(NoSuspicion):
    """Each update is scored against the others of its round, in the journal and the report; nobody is left out."""

    allowance: float = setting("robust deviations that an honest silo may lie apart, round after round", ge=0.0, le=1e6)
    false_alarms: float = setting(
        "bound on the false alarms of an honest silo, per round; docs/poisoning.md says under which assumption",
        gt=0.0,
        lt=1.0,
    )


@dataclass(frozen=True)
class QuarantineSuspicion(WatchSuspicion):
    """And a silo whose evidence has reached the bound is left out of the mean, with the reason, until it is quiet."""

    rounds: int = setting(
        "quiet rounds in a row after which a silo is let in again; twice as many each further time", ge=1, le=1_000_000
    )
    vote: bool = setting(
        "let the other silos vote: one whose absence would raise the loss of most is not left out; simulation only"
    )


SUSPICIONS: dict[str, type] = {"none": NoSuspicion, "watch": WatchSuspicion, "quarantine": QuarantineSuspicion}
