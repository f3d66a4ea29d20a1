"""Reading a run folder for the report: whatever is there, and nothing invented for what is not.

A run may have failed in its first round, been killed in the middle of a line, or been resumed; it may lack
baselines. All of that is data. Only a folder that is no run at all, or a file that was damaged, is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from quire.conf.asked import is_short_cut
from quire.errors import QuireError
from quire.strategies.material import misshapen

METRIC_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "auc": "AUC",
    "r2": "explained variance",  # a share as well, of the score of those tasks that learn a number
    "loss": "loss",
}


class ReportError(QuireError):
    """The folder cannot be reported on: it is not a run, or a file in it is damaged."""

    exit_code = 2


@dataclass(frozen=True)
class RunData:
    """What one run left behind.

    Attributes
    ----------
    folder : Path
        Where it lies.
    settings, run, start : dict
        ``settings.yaml``, ``run.json`` and the start event; empty where missing.
    rounds : tuple of dict
        The round events in order, one for each round number.
    seconds : float or None
        How long the run took, where its end was recorded.
    comparison : dict or None
        ``comparison.json``, or None where the run has no baselines.
    card : dict or None
        ``privacy_card.json``, or None where the run has none.
    failed : tuple of dict
        What is known of the round of secure aggregation that ended the run, if one did.
    """

    folder: Path
    settings: dict[str, Any]
    run: dict[str, Any]
    start: dict[str, Any]
    rounds: tuple[dict[str, Any], ...]
    seconds: float | None
    comparison: dict[str, Any] | None
    card: dict[str, Any] | None = None
    failed: tuple[dict[str, Any], ...] = ()

    @property
    def private(self) -> bool:
        """Whether the run was to have differential privacy."""
        return str(self.setting("privacy.name", "none")) != "none"

    @property
    def secure(self) -> bool:
        """Whether updates were summed under masks, or as if they were; see :attr:`exact`."""
        return str(self.setting("aggregation.name", "plain")) == "secure"

    @property
    def compressed(self) -> str:
        """How updates were compressed; empty if they were sent whole."""
        name = str(self.setting("compression.name", "none"))
        return "" if name == "none" else name

    @property
    def exact(self) -> bool:
        """Whether nothing was masked there: the short cut of a simulation, which has no secure aggregation."""
        return is_short_cut(self.settings)

    @property
    def closed(self) -> bool:
        """Whether real silos keep everything but their updates to themselves."""
        return self.private or self.secure

    @property
    def simulated(self) -> bool:
        """Whether silos were simulated: only those show anything but their updates in a closed run."""
        return self.run.get("runtime") != "deployment"

    @property
    def status(self) -> str:
        """``completed``, ``failed``, ``interrupted`` or ``running``."""
        return str(self.run.get("status", "running"))

    @property
    def label(self) -> str:
        """What a silo of this task is called."""
        return str(self.setting("task.silo_label", "silo"))

    @property
    def planned(self) -> int:
        """Return the number of rounds that the run was to have."""
        planned = number(self.start.get("rounds", self.setting("strategy.rounds")))
        return int(planned) if planned is not None else len(self.rounds)

    @cached_property
    def silos(self) -> tuple[str, ...]:
        """The roster, and after it any silo that only a later record names."""
        names = dict.fromkeys(str(name) for name in self.start.get("silos", ()))
        for source in (self.comparison or {}).get("silos", {}), *(event.get("silos", {}) for event in self.rounds):
            names.update(dict.fromkeys(source))
        for event in self.rounds:
            names.update(dict.fromkeys(str(failure.get("silo")) for failure in event.get("failed", ())))
        return tuple(names)

    @property
    def kept(self) -> str:
        """Which rows the rounds are scored on: ``validation``, or ``test`` where silos keep none for validation."""
        return "validation" if number(self.setting("data.validation_fraction")) else "test"

    def setting(self, key: str, default: Any = None) -> Any:
        """Return a setting by its dotted key."""
        node: Any = self.settings
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return default
            node = node[part]
        return node

    def scored(self, *path: str) -> dict[str, Any]:
        """Return the node of the comparison at this path, an empty one where there is none."""
        node: Any = self.comparison or {}
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        return node if isinstance(node, dict) else {}

    def curve(self, metric: str, silo: str | None = None) -> tuple[list[int], list[float]]:
        """Return rounds and values of an evaluation metric: over all silos, or of one."""
        points: list[tuple[int, float]] = []
        for event in self.rounds:
            source = event.get("evaluate") if silo is None else event.get("silos", {}).get(silo)
            value = number((source or {}).get(metric))
            if value is not None:
                points.append((event["round"], value))
        return [place for place, _ in points], [value for _, value in points]

    def series(self, *path: str) -> list[float]:
        """Return one number of each round event, by its path; 0 where a round lacks it."""
        values = []
        for event in self.rounds:
            node: Any = event
            for part in path:
                node = node.get(part) if isinstance(node, dict) else None
            values.append(number(node) or 0.0)
        return values

    @cached_property
    def metric(self) -> str | None:
        """The score that the page speaks of: balanced accuracy where it is known, R² where a number is learned."""
        federated = self.scored("everyone", "federated")
        for name in ("balanced_accuracy", "accuracy", "r2"):
            if number(federated.get(name)) is not None or (not federated and self.curve(name)[0]):
                return name
        return None


def number(value: Any) -> float | None:
    """Return a finite number as it is, anything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def read_run(folder: Path) -> RunData:
    """Read a run folder.

    Parameters
    ----------
    folder : Path
        The folder that a run wrote.

    Returns
    -------
    RunData
        Everything that the report needs.

    Raises
    ------
    ReportError
        If the folder is not a run, or if one of its files is damaged. A torn last line of ``metrics.jsonl`` is
        not damage: a killed run leaves one.
    """
    if not folder.is_dir():
        raise ReportError(f"There is no folder {folder}: name the folder of a run.")
    if not (folder / "settings.yaml").is_file() or not any(
        (folder / name).is_file() for name in ("run.json", "metrics.jsonl")
    ):
        raise ReportError(
            f"{folder} is not the folder of a run: it lacks settings.yaml, or run.json and metrics.jsonl."
        )
    start: dict[str, Any] = {}
    rounds: dict[int, dict[str, Any]] = {}
    failed: tuple[dict[str, Any], ...] = ()
    seconds: float | None = None
    for event in _events(folder / "metrics.jsonl"):
        kind = event.get("event")
        if key := misshapen(event):
            raise ReportError(f"{folder / 'metrics.jsonl'} is damaged: a line of it has a '{key}' of another form.")
        if kind == "start":
            start = event
        elif kind == "round" and isinstance(event.get("round"), int):
            rounds[event["round"]] = event  # a resumed run repeats a round: the later line counts
        elif kind == "failed" and isinstance(event.get("round"), int):
            failed = (event,)
        elif kind == "end":
            seconds = number(event.get("seconds"))
    return RunData(
        folder=folder,
        settings=_yaml(folder / "settings.yaml"),
        run=_json(folder / "run.json") or {},
        start=start,
        rounds=tuple(rounds[key] for key in sorted(rounds)),
        seconds=seconds,
        comparison=_json(folder / "comparison.json"),
        card=_json(folder / "privacy_card.json"),
        failed=failed,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}.") from error


def _events(path: Path) -> Iterator[dict[str, Any]]:
    return json_objects(_text(path).splitlines() if path.is_file() else ())


def json_objects(lines: Iterable[str | bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects among some lines; a torn line, or one that is something else, is passed over."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(_text(path))
    except ValueError as error:
        raise ReportError(f"{path} is damaged: it is not JSON; put it back, or delete it and report again.") from error
    if not isinstance(content, dict):
        raise ReportError(f"{path} is damaged: it does not hold an object; put it back, or delete it and report again.")
    return content


def _yaml(path: Path) -> dict[str, Any]:
    from quire.conf.strict_yaml import loaded

    try:
        content = loaded(_text(path))
    except ValueError as error:
        raise ReportError(f"{path} is damaged: it is not YAML; put it back and report again.") from error
    if not isinstance(content, dict):
        raise ReportError(f"{path} is damaged: it holds no settings; put it back and report again.")
    return content
