"""What an audit found: bounds beside claims, a verdict in words, and the same for a JSON file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from quire.clients.private.plan import Plan
from quire.errors import QuireError
from quire.privacy.dp.audit import LowerBound


class Refuted(QuireError):
    """Canaries show an epsilon above the one that is claimed."""


@dataclass(frozen=True)
class Audited:
    """What is audited, in public numbers.

    Attributes
    ----------
    silo : str
        Of all silos the one with the least noise.
    plan : Plan
        Its noise, as in the run.
    rounds : int
        Of the run.
    dimension : int
        The model's parameters.
    """

    silo: str
    plan: Plan
    rounds: int
    dimension: int


@dataclass(frozen=True)
class Finding:
    """What the canaries on one path showed.

    Attributes
    ----------
    path : str
        ``sum``, ``rows``, ``model``; ``silos`` and ``update`` in the place of the latter two for the silo unit.
    seed : int
        Which repetition, counted from 0.
    releases : int
        Noisy sums that a canary was in, or not.
    rate : float
        With which it was sampled.
    strength : float
        Length of a canary before clipping, over the clip.
    claim : float
        epsilon that the accounting gives these releases.
    one_run : LowerBound
        Steinke, Nasr and Jagielski (2023): holds for any mechanism.
    gaussian : LowerBound or None
        Holds for Gaussian scores, which these are if the code is right; None for sampled canaries, whose are not.
    """

    path: str
    seed: int
    releases: int
    rate: float
    strength: float
    claim: float
    one_run: LowerBound
    gaussian: LowerBound | None

    @property
    def epsilon(self) -> float:
        """The larger of the two lower bounds."""
        return max(self.one_run.epsilon, self.gaussian.epsilon if self.gaussian is not None else 0.0)

    @property
    def refuted(self) -> bool:
        """Whether the claim cannot be."""
        return self.epsilon > self.claim


@dataclass(frozen=True)
class Audit:
    """All findings of an audit.

    Attributes
    ----------
    audited : Audited
    confidence : float
        Probability with which *all* bounds of *all* findings hold together (Bonferroni).
    findings : tuple of Finding
    """

    audited: Audited
    confidence: float
    findings: tuple[Finding, ...]

    @property
    def refuted(self) -> bool:
        """Whether any claim is."""
        return any(finding.refuted for finding in self.findings)

    def verdict(self) -> str:
        """Say in one sentence what follows."""
        worst = [finding for finding in self.findings if finding.refuted]
        if not worst:
            return "No lower bound exceeds its claim: nothing was found, which is no proof that nothing is wrong."
        one = max(worst, key=lambda finding: finding.epsilon - finding.claim)
        return (
            f"The claim is refuted: canaries on the path '{one.path}' show an epsilon of at least "
            f"{_number(one.epsilon)}, and {_number(one.claim)} is claimed for the same releases; something between "
            "clipping and noise is broken, so do not train with this code."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything for a JSON file; an infinite number is the string ``inf``."""
        plan = self.audited.plan
        about = {
            "refuted": self.refuted,
            "verdict": self.verdict(),
            "confidence": self.confidence,
            "silo": self.audited.silo,
            "unit": str(plan.unit),
            "clip": plan.clip,
            "noise_multiplier": plan.noise_multiplier,
            "noise": "discrete" if plan.discrete else "gaussian",
            "delta": plan.delta,
            "dimension": self.audited.dimension,
            "findings": [{**asdict(finding), "refuted": finding.refuted} for finding in self.findings],
        }
        plain: dict[str, Any] = _finite(about)
        return plain


def _number(epsilon: float) -> str:
    return "infinity" if math.isinf(epsilon) else f"{epsilon:.2f}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
