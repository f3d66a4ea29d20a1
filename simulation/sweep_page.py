"""The page that a sweep ends with: its jobs, the score against each swept key, the best by validation rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from quire.conf.overrides import Value
from quire.simulation import sweep_words as words
from quire.simulation.page import render, write_page
from quire.simulation.report_words import plural
from quire.simulation.sweep_data import PROMISE, Configuration, Job, SweepData, read_sweep
from quire.simulation.sweep_figures import plots
from quire.simulation.sweep_measured import EPSILON
from quire.simulation.sweep_privacy import PrivacyData, read_privacy
from quire.simulation.sweep_privacy_files import write_tables
from quire.simulation.sweep_privacy_page import privacy_context
from quire.simulation.sweep_privacy_words import headline as privacy_headline

PAGE = "sweep.html"
_MOST_ROWS = 300
_MOST_FAILURES = 60
_LINKS = (("report", "report.html"), ("privacy card", "privacy_card.html"))


def write_sweep_page(folder: Path) -> Path:
    """Write ``sweep.html`` into the folder of a sweep.

    Parameters
    ----------
    folder : Path
        The folder that ``quire run -m`` wrote; jobs may have failed, or still be going.

    Where jobs train with privacy, the page begins with it, and its table is written beside it as CSV and as JSON.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ReportError
        If the folder holds no sweep, or the page cannot be written.
    """
    data = read_sweep(Path(folder))
    found = read_privacy(data)
    if found is not None:
        write_tables(found, Path(folder))
    return write_page(Path(folder) / PAGE, render("sweep.html.j2", _context(data, found)))


def _context(data: SweepData, found: PrivacyData | None) -> dict[str, Any]:
    failed = [job for job in data.jobs if job.status != "completed"]
    ranked = data.ranked(data.configurations) if data.validated else []
    order = [*ranked, *(one for one in data.configurations if one not in ranked)]
    bests = [best for group in data.conditions.values() if (best := data.best(group)) is not None]
    kinds = [kept for kept in ("validation", "test") if any(job.scores.get(kept) for job in data.jobs)]
    return {
        "title": f"Sweep over {', '.join(data.keys) or 'seeds'}",
        "kicker": _kicker(data),
        "banner": words.banner(data),
        "short_cut": words.short_cut(data),
        "attacked": words.attacked(data),
        "question": "What does privacy cost?" if found is not None and found.several else "Which settings do best?",
        "headline": (privacy_headline(found) if found is not None else None) or words.headline(data),
        "privacy": privacy_context(found) if found is not None else None,
        "only_promises": found is not None and all(key in PROMISE for key in data.keys),
        "keys": data.keys,
        "kinds": kinds,
        "metric": words.metric_name(data.metric),
        "silos": plural(words.silo(data)),
        "bars": words.bars(data),
        "ranked": bool(ranked),
        "configurations": [_configuration(data, one, one in bests, kinds) for one in order[:_MOST_ROWS]],
        "configurations_left_out": max(0, len(order) - _MOST_ROWS),
        "plots": plots(data, leave_out=(EPSILON,) if found is not None and found.several else ()),
        "seeded": bool(data.seeds),
        "jobs": [_job(data, job, kinds) for job in data.jobs[:_MOST_ROWS]],
        "jobs_left_out": max(0, len(data.jobs) - _MOST_ROWS),
        "failures": [_failure(data, job) for job in failed[:_MOST_FAILURES]],
        "failures_left_out": max(0, len(failed) - _MOST_FAILURES),
        "commands": words.commands(data),
    }


def _kicker(data: SweepData) -> list[str]:
    configurations, seeds = len(data.configurations), len(data.seeds)
    parts = ["sweep", f"{configurations} configuration{'s' if configurations != 1 else ''}"]
    if seeds > 1:
        parts.append(f"{seeds} seeds")
    launcher, sweeper = str(data.about.get("launcher", "basic")), str(data.about.get("sweeper", "basic"))
    parts += [f"{kind} {name}" for kind, name in (("sweeper", sweeper), ("launcher", launcher)) if name != "basic"]
    return [*parts, f"{len(data.jobs)} job{'s' if len(data.jobs) != 1 else ''}"]


def _configuration(data: SweepData, one: Configuration, best: bool, kinds: list[str]) -> dict[str, Any]:
    done = sum(job.status == "completed" for job in one.jobs)
    return {
        "values": [words.shown(value) for value in one.values],
        "jobs": str(done) if done == len(one.jobs) else f"{done} of {len(one.jobs)}",
        "best": best,
        "scores": [words.spread(one.spread(kept, data.metric), data.metric) for kept in kinds],
        "losses": [words.spread(one.spread(kept, "loss"), "loss") for kept in kinds],
    }


def _job(data: SweepData, job: Job, kinds: list[str]) -> dict[str, Any]:
    return {
        "number": job.number,
        "values": [words.shown(job.values.get(key)) for key in data.keys],
        "seed": words.shown(job.values.get("seed")),
        "status": job.status,
        "scores": [words.figure(job.scores.get(kept, {}).get(data.metric or ""), data.metric) for kept in kinds],
        "losses": [words.figure(job.scores.get(kept, {}).get("loss"), "loss") for kept in kinds],
        "seconds": job.seconds,
        "links": [(name, link) for name, file in _LINKS if (link := _link(data, job, file)) is not None],
    }


def _link(data: SweepData, job: Job, file: str) -> str | None:
    page = job.folder / file
    return quote(page.relative_to(data.folder).as_posix()) if page.is_file() else None


def _failure(data: SweepData, job: Job) -> dict[str, Any]:
    pairs: dict[str, Value] = {key: job.values[key] for key in (*data.keys, "seed") if key in job.values}
    error = job.error or {"running": "It has not recorded its end."}.get(job.status, "It left no reason.")
    return {
        "number": job.number,
        "what": " ".join(f"{key}={words.shown(value)}" for key, value in pairs.items()),
        "status": job.status,
        "error": error,
    }
