"""Five ways to train over a few hospitals, by epsilon: what each mode of privacy leaves of the model.

``heart_disease``: all 920 rows of four hospitals, 13 columns, delta 1e-4, scored by AUC; ``breast_cancer``: five
hospitals with 91 training rows each, IID, delta 1e-5, scored by accuracy. One linear layer, preprocessing public. Rows
are split as in ``privacy.py``; all models of a seed are scored on the same test rows.

record: the product's ``privacy=record``, several local steps a round, each silo adding all of its own noise.
distributed: ``privacy=record_distributed``, a noisy step a round, a share from every silo, all of whom survive; with
the default c, and with c=0. central: the same steps with one noise, added by somebody who sees all gradients. none: the
same steps without clip and noise. The last three are run by a formula for the gradients (``noisy_sgd.py``), with the
product's encoding and noise.

For each seed, epsilon and row the settings are the cell of a grid (in the notes) with the lowest loss on about 20 % of
that seed's training rows; then all are trained on. Choosing is not charged, here as elsewhere, and no test row takes
part. The plot has the means over seeds, with standard errors.
"""

from __future__ import annotations

import itertools
import logging
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
import hospitals
import record_runs
from harness import Figure
from noisy_sgd import Data, accuracy, apart, auc, loss, trained

from quire.clients.data.silo import concatenate
from quire.conf.compose import compose
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.spending import Budget
from quire.privacy.secagg.params import default_colluders, thresholds
from quire.simulation.silos import local_silos

EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Study:
    """A federation, and the grids that settings are chosen from.

    Attributes
    ----------
    name, metric : str
    delta : float
    silos : int
    record : record_runs.Study
        Of ``privacy=record``.
    rounds : tuple of (int, float)
        Rounds and sampling rate of a noisy step.
    clips, rates : tuple of float
        Clips and learning rates.
    """

    name: str
    metric: str
    delta: float
    silos: int
    record: record_runs.Study
    rounds: tuple[tuple[int, float], ...] = ((30, 0.2), (60, 0.2))
    clips: tuple[float, ...] = (0.3, 1.0)
    rates: tuple[float, ...] = (0.3, 1.0, 3.0)

    @property
    def cohorts(self) -> dict[str, tuple[int, int]]:
        """c and U_min of each distributed row, by name."""
        usual, most = default_colluders(self.silos), self.silos - 1
        pairs = ((usual, thresholds(self.silos, usual).min_survivors), (0, most))
        return {f"distributed, c={c}, U_min={survivors}": (c, survivors) for c, survivors in pairs}

    @property
    def cells(self) -> list[tuple[int, float, float, float]]:
        """Rounds, sampling rate, clip and learning rate of all cells."""
        return [(*pair, clip, lr) for pair, clip, lr in itertools.product(self.rounds, self.clips, self.rates)]


HEART = Study("heart_disease", "auc", record_runs.DELTA, 4, record_runs.HEART)
CANCER = Study("breast_cancer", "accuracy", 1e-5, 5, record_runs.CANCER)


def data_of(study: Study, seed: int, folder: Path | None, validate: bool) -> Data:
    """Return a seed's rows, as ``privacy=record`` splits them."""
    settings = compose(f"{study.record.common} seed={seed} data.validation_fraction={0.2 if validate else 0.0}")
    local = local_silos(settings, folder)
    silos = local.data(settings)
    scored = concatenate([silo.scored if validate else silo.test for silo in silos])
    return Data(local.task(settings), tuple(silo.train for silo in silos), scored)


def noise_of(
    study: Study, data: Data, epsilon: float, cohort: tuple[int, int], cell: tuple[int, float, float, float]
) -> SharedNoise:
    """Plan the noise of one cell."""
    rounds, rate, clip, _ = cell
    return SharedNoise.plan(
        Unit.RECORD,
        clip,
        thresholds(study.silos, *cohort),
        rounds=rounds,
        targets=[Budget(epsilon, study.delta)] * study.silos,
        sampling_rate=rate,
        records=data.records[0],
        largest=data.records[1],
        probes=0,
    )


def stepped(study: Study, row: str, epsilon: float, seed: int, folder: Path | None) -> float:
    """Choose a cell on validation rows, train on all, and return the metric on test rows."""
    cohort = study.cohorts.get(row, next(iter(study.cohorts.values())))
    kind = row.partition(",")[0]
    validating = data_of(study, seed, folder, True)

    def tried(cell: tuple[int, float, float, float]) -> float:
        noise = noise_of(study, validating, epsilon, cohort, cell)
        return loss(trained(validating, kind, noise, cell[-1], seed).model, validating.scored)

    cell = min(study.cells, key=tried)
    data = data_of(study, seed, folder, False)
    model = trained(data, kind, noise_of(study, data, epsilon, cohort, cell), cell[-1], seed).model
    return (auc if study.metric == "auc" else accuracy)(model, data.scored)


def measured(study: Study, row: str, epsilon: float, seed: int, folder: Path | None) -> float:
    """Return the metric of one model of one seed."""
    if row != "record":
        return stepped(study, row, epsilon, seed, folder)
    result = record_runs.private(study.record, f"privacy.epsilon={epsilon} seed={seed}", folder)
    return float(result["everyone"]["federated"][study.metric])


def study_figures(
    study: Study, seeds: Sequence[int], epsilons: Sequence[float], folders: dict[int, Path | None]
) -> tuple[list[Figure], dict[str, dict[float, list[float]]]]:
    """Measure all rows of a study; return the figures, and the values by row and epsilon for the plot."""
    rows = ["record", *study.cohorts, "central"]
    values = {
        row: {epsilon: [measured(study, row, epsilon, seed, folders[seed]) for seed in seeds] for epsilon in epsilons}
        for row in rows
    }
    plain = [measured(study, "none", 1.0, seed, folders[seed]) for seed in seeds]
    values["none"] = dict.fromkeys(epsilons, plain)
    grid = f"rounds and rate {study.rounds}, clip {study.clips}, learning rate {study.rates}"
    figures = []
    for epsilon in epsilons:
        for row in rows:
            how = f"; grid: {grid}" if row != "record" else f"; grid: {len(study.record.grid)} cells of privacy.py"
            what = f"{study.name}: {study.metric} at epsilon {epsilon:g}, {row}"
            note = harness.over(values[row][epsilon]) + how
            figures.append(Figure(what, statistics.fmean(values[row][epsilon]), None, note))
    figures.append(Figure(f"{study.name}: {study.metric}, none", statistics.fmean(plain), None, harness.over(plain)))
    first = data_of(study, seeds[0], folders[seeds[0]], False)
    what = f"{study.name}: clipped sums by the formula against the product's, distance over the clip"
    figures.append(Figure(what, apart(first, 0.2, 0.3, seeds[0]), "<= 1e-4", "float32 gradients there; worst silo"))
    return figures, values


def draw(found: dict[str, tuple[str, dict[str, dict[float, list[float]]]]], path: Path) -> None:
    """Plot the means over seeds by epsilon, one panel for each study, as an SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context({"svg.hashsalt": "hospitals", "svg.fonttype": "none", "font.size": 9}):
        canvas = Canvas(figsize=(9.0, 3.6), layout="constrained")
        for axes, (name, (metric, rows)) in zip(
            canvas.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
        ):
            for row, by_epsilon in rows.items():
                epsilons = list(by_epsilon)
                means = [statistics.fmean(values) for values in by_epsilon.values()]
                errors = [
                    statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
                    for values in by_epsilon.values()
                ]
                style = "--" if row in ("none", "central") else "-"
                axes.errorbar(epsilons, means, errors, marker="o", markersize=3, linestyle=style, label=row)
            axes.set(title=name, xlabel="epsilon of the whole run", ylabel=metric, xscale="log")
            axes.set_xticks(EPSILONS, [f"{epsilon:g}" for epsilon in EPSILONS])
            axes.legend(fontsize=7)
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(path, format="svg", metadata={"Date": None})


def main() -> int:
    """Measure, print, draw."""
    args = harness.arguments(__doc__)
    logging.getLogger("quire.clients").setLevel(logging.ERROR)  # one hospital may have a single class to validate on
    seeds = range(1, 2 if args.quick else 21)
    epsilons = (1.0,) if args.quick else EPSILONS
    figures: list[Figure] = []
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for study in (HEART, CANCER):
            folders: dict[int, Path | None] = dict.fromkeys(seeds)
            if study is HEART:
                why = hospitals.absent(study.name)
                if why:
                    figures.append(Figure(f"{study.name}: {study.metric}", None, None, why))
                    continue
                whole = hospitals.lay_out(study.name, Path(scratch) / "whole")
                folders |= {seed: record_runs.divided(whole, seed, Path(scratch) / f"silos-{seed}") for seed in seeds}
            more, values = study_figures(study, seeds, epsilons, folders)
            figures += more
            found[study.name] = (study.metric, values)
    if args.json is not None and found:
        draw(found, args.json.with_suffix(".svg"))
    return harness.report(figures, args, "Hospitals by epsilon")


if __name__ == "__main__":
    sys.exit(main())
