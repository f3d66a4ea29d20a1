"""The scores that the report compares: which rows they are on, and whose model is held against whose."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean

from quire.simulation.plain import WAYS
from quire.simulation.report_data import RunData, number


@dataclass(frozen=True)
class Scores:
    """The ways to train, on one score. Shares between 0 and 1; None where unknown.

    ``plain`` is the federation in clear that a run with privacy or under masks is held against.
    """

    federated: float | None = None
    pooled: float | None = None
    majority: float | None = None
    alone: dict[str, float] = field(default_factory=dict)
    plain: float | None = None

    @property
    def mean_alone(self) -> float | None:
        """The mean over silos, each counting the same."""
        return fmean(self.alone.values()) if self.alone else None

    @property
    def gain(self) -> float | None:
        """Federated less the mean of the silos alone."""
        return None if self.federated is None or self.mean_alone is None else self.federated - self.mean_alone


def personal(data: RunData) -> bool:
    """Tell whether silos keep layers of their own, so that the federation has no one model."""
    return bool(data.setting("training.local_layers"))


def everyone(data: RunData) -> Scores:
    """Return the scores on the union of all silos' test rows.

    Where silos keep layers of their own, each has another model, made for its own rows: every score is then the mean
    of those on each silo's own test rows, that like is held against like.
    """
    metric = data.metric or "accuracy"
    if personal(data) and (found := _each_on_its_own(data, metric)) is not None:
        return found
    alone = {silo: number(data.scored("everyone", "alone", silo).get(metric)) for silo in data.silos}
    federated, pooled, majority, *plain = (
        number(data.scored("everyone", way).get(metric)) for way in ("federated", "pooled", "majority", *WAYS)
    )
    return Scores(
        federated,
        pooled,
        majority,
        alone={silo: value for silo, value in alone.items() if value is not None},
        plain=next((value for value in plain if value is not None), None),
    )


def _each_on_its_own(data: RunData, metric: str) -> Scores | None:
    """Return the means over silos of scores on their own test rows; None where nothing was trained to compare with."""
    own = {
        way: {silo: number(data.scored("own", silo, way).get(metric)) for silo in data.silos}
        for way in ("federated", "pooled", "majority", "alone")
    }
    known = {way: [value for value in found.values() if value is not None] for way, found in own.items()}
    if not known["alone"]:
        return None
    federated, pooled, majority = (
        fmean(known[way]) if known[way] else None for way in ("federated", "pooled", "majority")
    )
    alone = {silo: value for silo, value in own["alone"].items() if value is not None}
    return Scores(federated, pooled, majority, alone)
