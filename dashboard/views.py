"""What each page shows, put together for one role: a part that it may not see is not even read for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.dashboard import cards, logs, refusals, silo
from quire.dashboard.errors import DashboardError, Unreadable
from quire.dashboard.journal import Journal, read_journal
from quire.dashboard.journal import refusals as refused
from quire.dashboard.pictures import drawn
from quire.dashboard.reading import is_file, lines_of, read_file
from quire.dashboard.roles import SIGHT, Part, Place, Role
from quire.dashboard.runs import SHOWN, Run, find, folders, read, runs_of
from quire.dashboard.text import Long, moment, without
from quire.errors import QuireError
from quire.privacy.approval import ApprovalStatementError, Statement
from quire.simulation.report_data import METRIC_NAMES
from quire.simulation.report_words import percent

LOG = logging.getLogger("quire.dashboard")

_ROUNDS, _STATEMENTS, _SETTINGS = 40, 200, 64 * 1024
_TONES = {"good": "good", "waiting": "level", "ends soon": "level", "EXPIRED": "bad", "WRONG": "bad"}
_WORST = {"good": 0, "waiting": 1, "ends soon": 2, "EXPIRED": 3, "WRONG": 4}


@dataclass(frozen=True)
class Folder:
    """The folder that the dashboard stands before.

    Attributes
    ----------
    root : pathlib.Path
    place : Place
    """

    root: Path
    place: Place

    @classmethod
    def of(cls, root: Path) -> Folder:
        """Tell what kind of folder it is.

        Raises
        ------
        DashboardError
            If there is none.
        """
        from quire.consortium.about import is_operator
        from quire.consortium.layout import OperatorFolder

        if not root.is_dir():
            raise DashboardError(f"There is no folder {root}: name an operator's, a silo's, or a folder of runs.")
        if is_operator(OperatorFolder(root)):
            return cls(root, Place.CONSORTIUM)
        return cls(root, Place.SILO if is_file(root / "silo.yaml") else Place.RUNS)

    @property
    def runs(self) -> Path:
        """Where its runs are."""
        return runs_of(self.place, self.root)

    def may(self, role: Role) -> frozenset[Part]:
        """Return what a role may see of it."""
        return SIGHT[self.place][role]


def guarded(folder: Folder, build: Callable[[], Any]) -> Any:
    """Build a part of a page; where it cannot be shown, return the sentence that says why, under ``trouble``."""
    try:
        return build()
    except QuireError as error:
        return {"trouble": Long(without(str(error), folder.root, folder.root.resolve()))}
    except OSError as error:
        return {"trouble": Long(f"A file of it cannot be read: {error.strerror or type(error).__name__}.")}
    except Exception as error:  # what others wrote must not take the page down
        LOG.error("A part of a page cannot be shown: %s in %s", type(error).__name__, build.__qualname__)
        return {"trouble": Long("What is in the files of this part is not what Quire writes: it is not shown.")}


def overview(folder: Folder, role: Role) -> dict[str, Any]:
    """Return the first page: members and runs, or what a silo's people look at."""
    may = folder.may(role)
    if folder.place is Place.SILO:
        return _silo(folder, may)
    found: dict[str, Any] = {"title": folder.root.absolute().name, "members": None}
    if Part.MEMBERS in may:
        found["members"] = guarded(folder, lambda: _members(folder, Part.INVITATIONS in may))
    found["runs"] = guarded(folder, lambda: _runs(folder, may))
    latest = found["runs"].pop("latest", None)
    found["latest"] = None if latest is None else guarded(folder, lambda: _latest(folder, latest, may))
    return found


def run_page(folder: Folder, role: Role, key: str, only: str | None = None) -> dict[str, Any] | None:
    """Return the page of a run; None if there is no such run.

    Parameters
    ----------
    folder : Folder
    role : Role
    key : str
        As the page's address has it.
    only : str or None
        ``card`` or ``log``, for the page of that alone.
    """
    may = folder.may(role)
    run = None if folder.place is Place.SILO else find(folder.runs, key)
    if run is None:
        return None
    parts: dict[str, Callable[[], Any]] = {
        "card": lambda: cards.card_of(run.folder) if Part.CARD in may else None,
        "log": lambda: logs.log_of(run.folder, Part.REFUSERS in may) if Part.LOG in may else None,
    }
    if only is not None:
        return {"run": _line(run, may, folder), only: guarded(folder, parts[only])}
    return {
        "run": _line(run, may, folder),
        "facts": _facts(run),
        "settings": guarded(folder, lambda: _overrides(run)) if Part.SETTINGS in may else None,
        "rounds": guarded(folder, lambda: _rounds(run, may)),
        "statements": guarded(folder, lambda: _statements(run)) if Part.STATEMENTS in may else None,
        **{name: guarded(folder, part) for name, part in parts.items()},
        "report": is_file(run.folder / "report.html"),
    }


def _line(run: Run, may: frozenset[Part], folder: Folder) -> dict[str, Any]:
    """Return a run as a line of a table."""
    trouble = None if run.trouble is None else Long(without(run.trouble, folder.root))
    error = run.error if Part.ERRORS in may else None
    return {
        "key": run.key,
        "name": run.name,
        "status": run.status,
        "rounds": run.rounds,
        "planned": run.planned,
        "started": moment(run.started),
        "finished": moment(run.finished),
        "error": None if error is None else Long(without(error, folder.root, run.folder)),
        "trouble": trouble,
        "going": run.status == "running",
    }


def _facts(run: Run) -> list[tuple[str, str]]:
    about = run.about
    versions = about.get("versions")
    told, attacked = versions if isinstance(versions, dict) else {}, about.get("attacked")
    pairs = [("Runtime", about.get("runtime")), ("Code", about.get("code")), ("Model", about.get("model"))]
    pairs += [(name, told.get(name.lower())) for name in ("Quire", "Flwr", "Torch")]
    pairs += [("Attacked on purpose", str(attacked.get("name"))[:40])] if isinstance(attacked, dict) else []
    return [(name, value) for name, value in pairs if isinstance(value, str)]


def _members(folder: Folder, invitations: bool) -> dict[str, Any]:
    from quire.consortium.standing import standing

    found = standing(folder.root, int(time.time()))
    items = [
        {
            "what": item.what,
            "name": item.name if item.what != "folder" else "",
            "state": item.state,
            "tone": _TONES.get(item.state, "level"),
            "until": moment(item.until) if item.until is not None else "\u2013",
            "words": Long(without(item.words, folder.root)),
            "fingerprint": (item.fingerprint or "")[:16],
        }
        for item in found.items
        if invitations or item.what != "invitation"
    ]
    worst = max((item["state"] for item in items), key=lambda state: _WORST.get(state, 4), default="good")
    return {
        "consortium": found.consortium,
        "server": found.server,
        "version": found.version,
        "roster": found.roster,
        "items": items,
        "count": sum(item["what"] == "member" for item in items),
        "worst": worst,
        "tone": _TONES.get(worst, "level"),
    }


def _runs(folder: Folder, may: frozenset[Part]) -> dict[str, Any]:
    found = folders(folder.runs)
    runs = [read(folder.runs, place) for place in found[:SHOWN]]
    return {
        "rows": [_line(run, may, folder) for run in runs],
        "left_out": max(0, len(found) - SHOWN),
        "count": len(found),
        "going": sum(run.status == "running" for run in runs),
        "failed": sum(run.status in ("failed", "interrupted") for run in runs),
        "latest": runs[0] if runs else None,
    }


def _latest(folder: Folder, run: Run, may: frozenset[Part]) -> dict[str, Any]:
    return {**_line(run, may, folder), **_rounds(run, may)}


def _rounds(run: Run, may: frozenset[Part]) -> dict[str, Any]:
    journal = read_journal(run.folder / "metrics.jsonl")
    if Part.BY_SILO not in may:
        journal = journal.without_silos()
    scores, costs = drawn(journal, run.folder)
    rows, more = refused(journal, Part.REFUSERS in may)
    return {
        "task": journal.task,
        "strategy": journal.strategy,
        "silos": len(journal.silos),
        "done": len(journal.rounds),
        "cut": journal.cut,
        "bad": journal.bad,
        "lost": journal.lost,
        "resumed": journal.resumed,
        "scores": scores,
        "scored": journal.scored,
        "costs": costs,
        "score": _last_score(journal),
        "rows": [_round(event) for event in journal.rounds[-_ROUNDS:][::-1]],
        "rows_left_out": max(0, len(journal.rounds) - _ROUNDS),
        "refusals": rows,
        "refusals_left_out": more,
        "names": Part.REFUSERS in may,
        "by_silo": _by_silo(journal) if Part.BY_SILO in may else [],
    }


def _last_score(journal: Journal) -> tuple[str, str] | None:
    for event in reversed(journal.rounds):
        for name in ("balanced_accuracy", "accuracy", "r2"):
            if (value := event["evaluate"].get(name)) is not None:
                return METRIC_NAMES[name], percent(value)
    return None


def _round(event: dict[str, Any]) -> dict[str, Any]:
    scores, seconds = event["evaluate"], event["seconds"]
    shown = next((scores[name] for name in ("balanced_accuracy", "accuracy", "r2") if name in scores), None)
    loss = event["train"].get("loss", scores.get("loss"))
    return {
        "round": event["round"],
        "asked": len(event["cohort"]),
        "replied": len(event["replied"]),
        "loss": None if loss is None else f"{loss:.4g}",
        "score": percent(shown),
        "seconds": sum(seconds.values()),
        "down": event["bytes_down"],
        "up": event["bytes_up"],
        "lost": event["lost"],
        "attempts": event["attempts"],
    }


def _by_silo(journal: Journal) -> list[dict[str, Any]]:
    """Return the last figures of each silo."""
    last: dict[str, dict[str, float]] = {}
    for event in journal.rounds:
        for name, told in event["silos"].items():
            last.setdefault(name, {}).update(told)
    names = [*journal.silos, *sorted(set(last) - set(journal.silos))]
    rows = [(name, last[name]) for name in dict.fromkeys(names) if last.get(name)]
    return [
        {
            "name": name,
            "rows": _whole(told.get("rows")),
            "train_loss": _short(told.get("train_loss")),
            "loss": _short(told.get("loss")),
            "accuracy": percent(told.get("balanced_accuracy", told.get("accuracy", told.get("r2")))),
        }
        for name, told in rows[:300]
    ]


def _whole(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"


def _short(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _overrides(run: Run) -> Long:
    import yaml

    data = read_file(run.folder / "settings.yaml", _SETTINGS)
    if data is None:
        return Long("settings.yaml is missing.")
    try:
        # Texts and nothing else: no object is made, and no merge key unfolds what is written into more.
        found = yaml.load(data, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise Unreadable("settings.yaml is damaged, or being written.") from None
    told = found.get("overrides") if isinstance(found, dict) else None
    return Long(told if isinstance(told, str) and told else "every default")


def _statements(run: Run) -> list[dict[str, Any]]:
    lines, _ = lines_of(run.folder / "approvals.jsonl")
    found = []
    for line in lines[:_STATEMENTS]:
        try:
            body = Statement.decode(line).body
        except ApprovalStatementError:
            found.append({"silo": "?", "decision": "damaged", "at": "", "reason": None})
            continue
        reason = body["reason"]
        told = None if reason is None else Long(reason)
        found.append({"silo": body["silo"], "decision": body["decision"], "at": moment(body["time"]), "reason": told})
    return found


def _silo(folder: Folder, may: frozenset[Part]) -> dict[str, Any]:
    found: dict[str, Any] = {"title": folder.root.absolute().name}
    joined = is_file(folder.root / "consortium.json")
    found["members"] = guarded(folder, lambda: _members(folder, invitations=False)) if joined else None
    found["budgets"] = found["waiting"] = found["decided"] = found["refused"] = found["codes"] = None
    operator = guarded(folder, lambda: silo.operator_of(folder.root))
    trouble = operator if isinstance(operator, dict) else None
    if Part.BUDGET in may:
        found["budgets"] = trouble or guarded(folder, lambda: silo.budgets(operator, Part.LEDGER in may))
    if may & {Part.REQUESTS, Part.DECISIONS}:
        book = trouble or guarded(folder, lambda: silo.book_of(operator))
        if Part.REQUESTS in may:
            found["waiting"] = book if isinstance(book, dict) else guarded(folder, lambda: silo.waiting(book))
        if Part.DECISIONS in may:
            found["decided"] = book if isinstance(book, dict) else guarded(folder, lambda: silo.decided(book))
    gate = folder.root / "run" / "log" / "gate.log"
    if Part.WORDS in may:
        found["refused"] = guarded(folder, lambda: refusals.shown(refusals.refused_in(gate)))
    elif Part.CODES in may:
        found["codes"] = guarded(folder, lambda: refusals.by_code(refusals.refused_in(gate)))
    found["seen"] = trouble or guarded(folder, lambda: logs.logs_seen(operator.store))
    found["lineage"] = None
    if Part.LINEAGE in may:
        found["lineage"] = trouble or guarded(folder, lambda: silo.lineage(operator))
    return found
