"""Reading the folder of a sweep: its jobs, their scores on validation and on test rows, and the figures over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from quire.conf.asked import attack_on
from quire.conf.overrides import Value, parse, render
from quire.errors import SettingsError
from quire.simulation.jobs import JOB_FILE
from quire.simulation.report_data import ReportError, RunData, number, read_run

SWEEP_FILE = "sweep.json"
KEPT = ("validation", "test")
_LEADING = ("balanced_accuracy", "accuracy", "r2", "rmse", "mae", "mse", "loss")
_SHARES = ("balanced_accuracy", "accuracy", "auc")
_LOWER = ("loss", "rmse", "mae", "mse")
_CONDITIONS = ("task", "data", "partition")
#: Settings that say what is promised to whom: not knobs to be turned until the score is best.
PROMISE = ("privacy", "privacy.epsilon", "privacy.delta")

Scores = dict[str, float]


def lower_is_better(metric: str) -> bool:
    """Tell whether a small value of this metric is a good one."""
    return metric in _LOWER


def is_share(metric: str) -> bool:
    """Tell whether this metric lies between 0 and 1 and is shown in per cent."""
    return metric in _SHARES


def leading_metric(scores: Iterable[Mapping[str, float]]) -> str | None:
    """Return the metric that a page speaks of: the first by rank that all of these have."""
    having = [one for one in scores if one]
    return next((name for name in _LEADING if having and all(name in one for one in having)), None)


def last_scores(run: RunData, kept: str) -> Scores:
    """Return a run's scores at its end on the rows kept for ``validation`` or for ``test``; empty where unknown.

    On test rows: of the model on all silos' test rows together where that was measured, else the mean over silos.
    """
    source: Any = run.scored("everyone", "federated") if kept == "test" else {}
    if not source and run.kept == kept and run.rounds and run.rounds[-1]["round"] == run.planned:
        source = run.rounds[-1].get("evaluate")
    values = {name: number(value) for name, value in source.items()} if isinstance(source, dict) else {}
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Job:
    """One job of a sweep, as its folder tells it.

    Attributes
    ----------
    status : str
        ``completed``, ``failed``, ``interrupted`` or ``running``.
    exit_status : int
        What a run with this end exits with; 1 for a job whose process is gone.
    exact : bool
        Whether it took the short cut of ``aggregation.simulate=exact_sum``.
    attack : str
        Which attack it carried out against itself; empty where none.
    silo : str
        What a silo is called; empty where nobody can tell.
    scores : dict of str to dict
        By ``validation`` and ``test``; empty where the job was not completed.
    """

    number: int
    folder: Path
    values: Mapping[str, Value]
    status: str
    exit_status: int
    error: str | None
    pid: int
    seconds: float | None
    silo: str
    scores: Mapping[str, Scores] = field(default_factory=dict)
    exact: bool = False
    attack: str = ""


def read_jobs(folder: Path) -> list[Job]:
    """Return the jobs of a sweep in their order; what cannot be read is a job that failed."""
    found = [_job(path) for path in folder.rglob(JOB_FILE)]
    return sorted((job for job in found if job is not None), key=lambda job: (job.number, str(job.folder)))


def ended_jobs(folder: Path, known: Collection[Path]) -> list[Job]:
    """Return the jobs that have ended, but for those in known folders; cheap where nothing is new."""
    paths = [path for path in folder.rglob(JOB_FILE) if path.parent not in known]
    found = [_job(path) for path in paths if _object(path).get("seconds") is not None]
    return sorted((job for job in found if job is not None), key=lambda job: job.number)


def _job(path: Path) -> Job | None:
    record = _object(path)
    if not isinstance(record.get("job"), int):
        return None
    folder, exit_status = path.parent, record.get("status")
    run = None
    if (folder / "run.json").is_file():
        try:
            run = read_run(folder)
        except ReportError as error:
            record["error"], exit_status = str(error), error.exit_code
    status = run.status if run is not None else "failed"
    done = status == "completed"
    if not isinstance(exit_status, int):
        exit_status = 0 if done else 1
    return Job(
        number=record["job"],
        folder=folder,
        values=_values(record.get("overrides")),
        status=status,
        exit_status=exit_status,
        error=record.get("error") or (run.run.get("error") if run is not None else None),
        pid=int(record.get("pid") or 0),
        seconds=number(record.get("seconds")),
        silo=run.label if run is not None else "",
        scores={kept: last_scores(run, kept) for kept in KEPT} if run is not None and done else {},
        exact=run is not None and run.exact,
        attack=attack_on(run.settings) if run is not None else "",
    )


def _values(overrides: Any) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for text in overrides if isinstance(overrides, list) else []:
        try:
            values |= {item.key: item.value for item in parse(str(text))}
        except SettingsError:
            key, _, value = str(text).partition("=")
            values[key] = value
    return values


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; the latter None for a single one."""

    mean: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the figures of some values, None for no values."""
        if not values:
            return None
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Configuration:
    """The jobs that differ in nothing but the seed."""

    values: tuple[Value, ...]
    jobs: tuple[Job, ...]

    @property
    def complete(self) -> bool:
        """Whether every job of it was completed."""
        return all(job.status == "completed" for job in self.jobs)

    def by_seed(self, kept: str, metric: str | None) -> dict[Value, float]:
        """Return the scores of the completed jobs, by seed."""
        scored = {job.values.get("seed"): job.scores.get(kept, {}).get(metric or "") for job in self.jobs}
        return {seed: value for seed, value in scored.items() if value is not None}

    def spread(self, kept: str, metric: str | None) -> Spread | None:
        """Return mean and deviation over the completed jobs."""
        return Spread.of(list(self.by_seed(kept, metric).values()))


@dataclass(frozen=True)
class SweepData:
    """What a sweep left behind.

    Attributes
    ----------
    about : dict
        ``sweep.json``.
    jobs : tuple of Job
    """

    folder: Path
    about: dict[str, Any]
    jobs: tuple[Job, ...]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The settings that differ between jobs, but for the seed, in the order in which they were written."""
        names = dict.fromkeys(key for job in self.jobs for key in job.values if key != "seed")
        return tuple(key for key in names if len({_text(job.values.get(key)) for job in self.jobs}) > 1)

    @cached_property
    def configurations(self) -> tuple[Configuration, ...]:
        """The jobs by their swept settings, in the order of their first jobs."""
        groups: dict[tuple[str, ...], list[Job]] = {}
        for job in self.jobs:
            groups.setdefault(tuple(_text(job.values.get(key)) for key in self.keys), []).append(job)
        return tuple(
            Configuration(tuple(jobs[0].values.get(key) for key in self.keys), tuple(jobs)) for jobs in groups.values()
        )

    @cached_property
    def metric(self) -> str | None:
        """The metric that the page speaks of: one that every completed job has."""
        return leading_metric(job.scores.get(kept, {}) for job in self.jobs for kept in KEPT)

    @property
    def better(self) -> int:
        """1 where a great value of the metric is good, -1 where a small one is."""
        return -1 if lower_is_better(self.metric or "") else 1

    @cached_property
    def validated(self) -> bool:
        """Whether every completed job was scored on validation rows."""
        done = [job for job in self.jobs if job.status == "completed"]
        return bool(done) and all(job.scores.get("validation") for job in done)

    @cached_property
    def seeds(self) -> tuple[Value, ...]:
        """The seeds that were run."""
        return tuple(dict.fromkeys(job.values["seed"] for job in self.jobs if "seed" in job.values))

    @cached_property
    def conditions(self) -> dict[tuple[Value, ...], tuple[Configuration, ...]]:
        """Configurations to choose between: those that learn the same from the same silos under the same promise."""
        places = [place for place, key in enumerate(self.keys) if is_condition(key) or key in PROMISE]
        groups: dict[tuple[Value, ...], list[Configuration]] = {}
        for one in self.configurations:
            groups.setdefault(tuple(one.values[place] for place in places), []).append(one)
        return {values: tuple(group) for values, group in groups.items()}

    def ranked(self, configurations: Sequence[Configuration]) -> list[Configuration]:
        """Return the complete configurations by their mean score on validation rows, the best first."""
        order: Callable[[float], float] = (lambda v: v) if lower_is_better(self.metric or "") else (lambda v: -v)
        scored = [(one.spread("validation", self.metric), one) for one in configurations if one.complete]
        known = [(spread, one) for spread, one in scored if spread is not None]
        return [one for spread, one in sorted(known, key=lambda pair: order(pair[0].mean))]

    def best(self, configurations: Sequence[Configuration]) -> Configuration | None:
        """Return the best on validation rows; None where there were none, or nothing to choose between."""
        if not self.validated or len(configurations) < 2:
            return None
        ranked = self.ranked(configurations)
        return ranked[0] if ranked else None


def _text(value: Value) -> str:
    return f"{type(value).__name__}:{render(value)}"


def is_condition(key: str) -> bool:
    """Tell whether a setting changes what is learned, or from which rows."""
    return key.split(".")[0] in _CONDITIONS


def is_numeric(values: Iterable[Value]) -> bool:
    """Tell whether swept values are numbers, to be drawn on an axis."""
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )


def read_sweep(folder: Path) -> SweepData:
    """Read the folder of a sweep.

    Raises
    ------
    ReportError
        If the folder holds no sweep.
    """
    if not (folder / SWEEP_FILE).is_file():
        raise ReportError(f"{folder} is not the folder of a sweep: it lacks {SWEEP_FILE}.")
    about = _object(folder / SWEEP_FILE)
    if not about:
        raise ReportError(f"{folder / SWEEP_FILE} is damaged: it is not JSON; sweep again.")
    return SweepData(folder, about, tuple(read_jobs(folder)))
