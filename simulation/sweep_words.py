"""What the sweep page says in words: which configuration did best on validation rows, or why none is named."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from statistics import fmean, stdev

from quire.conf.overrides import Value, render
from quire.simulation.report_data import METRIC_NAMES
from quire.simulation.report_words import (
    APOSTROPHE,
    DASH,
    MINUS,
    NBSP,
    Headline,
    count,
    name,
    percent,
    plural,
    points,
)
from quire.simulation.sweep_data import Configuration, Job, Spread, SweepData, is_share, leading_metric
from quire.strategies.secure_words import SHORT_CUT

_VALUE_LENGTH = 40
_FLOAT_LENGTH = 8


def metric_name(metric: str | None) -> str:
    """Return a metric in words."""
    return METRIC_NAMES.get(metric or "", (metric or "score").replace("_", " "))


def figure(value: float | None, metric: str | None) -> str:
    """Return a score for reading: per cent, or three digits."""
    if value is None:
        return DASH
    return percent(value) if is_share(metric or "") else f"{value:.3g}".replace("-", MINUS)


def deviation(value: float, metric: str | None) -> str:
    """Return a standard deviation, or a difference without its sign: in points of a share, or in the metric's unit."""
    return f"{100 * abs(value):.1f}" if is_share(metric or "") else f"{abs(value):.2g}"


def spread(one: Spread | None, metric: str | None) -> str:
    """Return ``93.1 % ± 1.2``: mean and standard deviation over seeds."""
    if one is None:
        return DASH
    bar = "" if one.deviation is None else f"{NBSP}±{NBSP}{deviation(one.deviation, metric)}"
    return figure(one.mean, metric) + bar


def shown(value: Value) -> str:
    """Return a swept value for showing; a dash where a job does not set it."""
    text = DASH if value is None else render(value)
    if isinstance(value, float) and len(text) > _FLOAT_LENGTH:  # as a search proposes them
        text = f"{value:.4g}"
    return text if len(text) <= _VALUE_LENGTH else text[: _VALUE_LENGTH - 1] + "…"


def label(data: SweepData, one: Configuration) -> str:
    """Return a configuration as it is written on the command line."""
    pairs = zip(data.keys, one.values, strict=True)
    return " ".join(f"{key}={shown(value)}" for key, value in pairs if value is not None) or "the settings as they are"


def job_line(job: Job, keys: Sequence[str]) -> str:
    """Return one line on a job that ended, for a terminal: what of the swept keys it had, and what came of it."""
    kept = "validation" if job.scores.get("validation") else "test"
    metric = leading_metric([job.scores.get(kept, {})])
    parts = [f"job {job.number}", " ".join(f"{key}={shown(value)}" for key, value in job.values.items() if key in keys)]
    if metric is not None:
        name = f"{metric_name(metric)}{' on validation rows' if kept == 'validation' else ''}"
        parts.append(f"{name} {job.scores[kept][metric]:.3f}")
    if job.seconds is not None:
        parts.append(f"{job.seconds:.1f} s")
    return "  ".join(part for part in parts if part)


def silo(data: SweepData) -> str:
    """Return what silos are called in this sweep."""
    names = {job.silo for job in data.jobs if job.silo}
    return names.pop() if len(names) == 1 else "silo"


def headline(data: SweepData) -> Headline:
    """Say what did best on validation rows, or plainly that nobody can tell."""
    jobs = count(len(data.jobs), "job")
    done = [job for job in data.jobs if job.status == "completed"]
    over = f" over {listed(data.keys)}" if data.keys else ""
    if not done:
        return Headline(f"{jobs.capitalize()}{over}: none was completed.", "", "open")
    if data.metric is None:
        return Headline(f"{jobs.capitalize()}{over}: they have no score in common.", "", "open")
    if len(data.configurations) == 1:
        return _single(data)
    if not data.validated:
        return _unvalidated(data, f"{jobs.capitalize()}{over}")
    bests = {values: best for values, group in data.conditions.items() if (best := data.best(group)) is not None}
    if not bests:
        if all(len(group) < 2 for group in data.conditions.values()):
            why = (
                "The keys that were swept change what is learned, from which rows: these scores are not to be compared."
            )
        else:
            why = "No configuration has a score from every one of its jobs, so none is best."
        return Headline(f"{jobs.capitalize()}{over}: no best configuration is named.", why, "open")
    if len(data.conditions) == 1:
        return _best(data, next(iter(bests.values())))
    return Headline(
        f"{jobs.capitalize()}{over}: the best on validation rows, among those that learn the same from the same "
        f"{plural(silo(data))}.",
        "",
        "open",
        tuple(f"{label(data, best)}: {_scored(data, best)}." for best in bests.values()),
    )


def _unvalidated(data: SweepData, what: str) -> Headline:
    return Headline(
        f"{what}: no best configuration is named.",
        f"No choice on validation data was possible: {plural(silo(data))} kept no validation rows "
        "(data.validation_fraction=0), so every score here is on test rows.",
        "level",
        (
            "To choose by test scores is to train on the test rows: the chosen score would come out too good. Sweep "
            "again with data.validation_fraction=0.2 to choose.",
        ),
    )


def _single(data: SweepData) -> Headline:
    one = data.configurations[0]
    test = one.spread("test", data.metric)
    kept, known = ("test", test) if test is not None else ("validation", one.spread("validation", data.metric))
    return Headline(
        f"One configuration reached {spread(known, data.metric)} {metric_name(data.metric)} on {kept} rows"
        f"{_over_seeds(known)}.",
        "",
        "open",
    )


def _best(data: SweepData, best: Configuration) -> Headline:
    known = best.spread("validation", data.metric)
    sentence = (
        f"{label(data, best)} did best on the {plural(silo(data))}{APOSTROPHE} validation rows: "
        f"{spread(known, data.metric)} {metric_name(data.metric)}{_over_seeds(known)}."
    )
    notes = []
    test = best.spread("test", data.metric)
    if test is not None:
        notes.append(
            f"On test rows, which had no part in the choice, it reaches {spread(test, data.metric)}. That is the "
            "score to report: the best of many validation scores is always a little too good."
        )
    left_out = [one for one in data.configurations if not one.complete]
    if left_out:
        notes.append(
            f"Not in the choice, for some of their jobs were not completed: {count(len(left_out), 'configuration')}."
        )
    verdict, tone = _margin(data, best)
    return Headline(sentence, verdict, tone, tuple(notes))


def _margin(data: SweepData, best: Configuration) -> tuple[str, str]:
    """Compare with the second best, seed by seed where both have the same seeds."""
    ranked = data.ranked(data.configurations)
    if len(ranked) < 2:
        return "", "open"
    ours, theirs = (one.by_seed("validation", data.metric) for one in ranked[:2])
    gaps = [data.better * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs]
    second = label(data, ranked[1])
    if len(gaps) < 2:
        first, next_best = (one.spread("validation", data.metric) for one in ranked[:2])
        gap = (first.mean - next_best.mean) if first is not None and next_best is not None else 0.0
        return (
            f"{second} comes second, {_by(data, gap)} behind; with one seed nobody can tell whether by chance.",
            "open",
        )
    mean, error = fmean(gaps), stdev(gaps) / len(gaps) ** 0.5
    text = f"{second} comes second, {_by(data, mean)} behind over the same {len(gaps)} seeds"
    if mean <= 2 * error:
        return f"{text}: no more than chance would explain, so take the two as equal.", "level"
    return f"{text}, more than twice the standard error of that difference.", "good"


def _by(data: SweepData, gap: float) -> str:
    if is_share(data.metric or ""):
        return f"{points(abs(gap)).lstrip('+±')} points"
    return deviation(gap, data.metric)


def _scored(data: SweepData, one: Configuration) -> str:
    known, test = (one.spread(kept, data.metric) for kept in ("validation", "test"))
    on_test = f", {spread(test, data.metric)} on test rows" if test is not None else ""
    return f"{spread(known, data.metric)} {metric_name(data.metric)}{_over_seeds(known)}{on_test}"


def _over_seeds(one: Spread | None) -> str:
    return f", mean of {one.n} seeds" if one is not None and one.n > 1 else ""


def listed(names: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def bars(data: SweepData) -> str:
    """Say what the error bars are, and over how many seeds."""
    known = [one.spread(kept, data.metric) for one in data.configurations for kept in ("test", "validation")]
    counts = sorted({one.n for one in known if one is not None})
    if not counts or counts[-1] == 1:
        return "One seed for each configuration: there are no error bars, and small differences are chance."
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"Points are means over {seeds} seeds; bars reach one standard deviation of the seeds up and down. A seed "
        "decides how rows are shared out and split, the first model, and the order of the batches."
    )


def banner(data: SweepData) -> dict[str, str] | None:
    """Say how a sweep ended that did not complete."""
    ended = str(data.about.get("status"))
    failed = sum(job.status != "completed" for job in data.jobs)
    planned = data.about.get("planned")
    of = (
        f"{len(data.jobs)} of {planned}"
        if isinstance(planned, int) and planned > len(data.jobs)
        else str(len(data.jobs))
    )
    if ended == "interrupted":
        return {"tone": "level", "text": f"This sweep was stopped after {of} jobs had begun."}
    if ended == "running":
        return {"tone": "level", "text": f"This sweep has not recorded its end: {of} jobs have begun so far."}
    if failed:
        return {"tone": "bad", "text": f"{failed} of {len(data.jobs)} jobs were not completed."}
    return None


def short_cut(data: SweepData) -> str:
    """Say which jobs had no secure aggregation although their settings ask for it; empty where none had."""
    exact = [job for job in data.jobs if job.exact]
    if not exact:
        return ""
    who = "All jobs" if len(exact) == len(data.jobs) else f"{len(exact)} of {len(data.jobs)} jobs"
    return (
        f"{who} had NO secure aggregation: {SHORT_CUT}, adds up in clear what the protocol would mask, and comes to "
        "the same model, bit for bit."
    )


def attacked(data: SweepData) -> str:
    """Say which jobs were attacked on purpose; empty where none was."""
    jobs = [job for job in data.jobs if job.attack]
    if not jobs:
        return ""
    who = "All jobs" if len(jobs) == len(data.jobs) else f"{len(jobs)} of {len(data.jobs)} jobs"
    names = ", ".join(sorted({name(job.attack) for job in jobs})[:12])
    return f"{who} were attacked on purpose (attack={names}): their models are no results."


def commands(data: SweepData) -> list[tuple[str, str]]:
    """Return the commands that repeat the sweep, and that run the best configuration."""
    args = data.about.get("args")
    found = []
    if isinstance(args, list):
        found.append(("The sweep", " ".join(["quire run", *(shlex.quote(str(arg)) for arg in args)])))
    best = data.best(data.configurations) if len(data.conditions) == 1 else None
    if best is not None:
        values = {key: value for key, value in best.jobs[0].values.items() if key != "seed"}
        items = [shlex.quote(f"{key}={render(value)}") for key, value in values.items()]
        found.append(("The best configuration", " ".join(["quire run", *items])))
    return found
