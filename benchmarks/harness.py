"""What every benchmark shares: arguments, interleaved timing, the figures' form, tables, and the machine in words.

Contract of a script: ``python benchmarks/NAME.py [--quick] [--json FILE]``. ``FILE`` is a list of objects with
the keys ``figure``, ``value``, ``goal``, ``met`` and ``note``. A goal is a string such as ``">= 0.7"``; without a goal
``met`` is null. What could not be measured has the value null and says why; a goal that is not met stays, as not met.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent

_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Figure:
    """One measured number, and what was hoped for.

    Attributes
    ----------
    figure : str
        What was measured, with its unit.
    value : float or None
        None if it could not be measured; ``note`` says why.
    goal : str or None
        A comparison with a number: ``">= 0.7"``.
    note : str
        How to read it.
    """

    figure: str
    value: float | None
    goal: str | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal, False if there is one and nothing was measured."""
        if self.goal is None:
            return None
        if self.value is None:
            return False
        sign, limit = self.goal.split()
        return bool(_COMPARISONS[sign](self.value, float(limit)))

    def as_dict(self) -> dict[str, object]:
        """Return the object that goes into the JSON file."""
        value = None if self.value is None else float(f"{self.value:.6g}")
        return {**asdict(self), "value": value, "met": self.met}


class Beside:
    """Looks at something again and again, in a thread of its own, for as long as the context lasts.

    Parameters
    ----------
    pause : float
        Seconds between two looks.
    """

    def __init__(self, pause: float) -> None:
        self._pause, self._done = pause, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def look(self) -> bool:
        """Look once; say whether to go on."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._done.wait(self._pause) and self.look():
            pass


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of ``--quick`` and ``--json``; ``description`` is the script's own docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short form that ends in under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser


def arguments(description: str | None) -> argparse.Namespace:
    """Read ``--quick`` and ``--json`` from the command line of this process."""
    return parser(description).parse_args()


def interleaved(contenders: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Let contenders take turns, so that what slows the machine for a while slows all of them.

    Parameters
    ----------
    contenders : mapping of str to callable
        Each does its work once and returns its own figure (seconds, or a rate).
    repetitions : int

    Returns
    -------
    dict of str to list of float
        For each contender its figures, in the order of the repetitions. The order of turns alternates.
    """
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for repetition in range(repetitions):
        names = list(contenders) if repetition % 2 == 0 else list(reversed(contenders))
        for name in names:
            figures[name].append(contenders[name]())
    return figures


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Return a contender whose figure is the seconds that the work takes."""

    def contender() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return contender


def median_ratio(figures: Mapping[str, Sequence[float]], name: str, base: str) -> float:
    """Return the median over repetitions of one contender's figure over another's."""
    return statistics.median(one / other for one, other in zip(figures[name], figures[base], strict=True))


def spread(values: Sequence[float]) -> str:
    """Say between which two numbers repetitions lie: ``"480 to 510"``."""
    return f"{min(values):.3g} to {max(values):.3g}"


def over(values: Sequence[float]) -> str:
    """Say over how many seeds, how far they lie apart, and how sure the mean is."""
    if len(values) < 2:
        return "one seed"
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"mean over {len(values)} seeds, {spread(values)}, standard error {error:.2g}"


def machine() -> str:
    """Describe the machine in general terms: cores and versions, no names."""
    packages = []
    for name in ("torch", "flwr", "ray", "numpy"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    about = [f"{cores} cores", platform.machine(), platform.system(), f"Python {platform.python_version()}"]
    return ", ".join([*about, *packages])


def shown(value: object) -> str:
    """Write a value for a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def report(figures: Sequence[Figure], args: argparse.Namespace, title: str) -> int:
    """Print the figures as a table, write them where ``--json`` says, and return the exit status, 0.

    A goal that is not met is a finding, not a failure of the script.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    width = None if sys.stdout.isatty() else 160
    table = Table("figure", "value", "goal", "met", "note", title=title, title_justify="left", box=box.SIMPLE)
    for item in figures:
        style = "bold red" if item.met is False else None
        table.add_row(item.figure, *map(shown, (item.value, item.goal, item.met)), item.note, style=style)
    console = Console(width=width)
    console.print(table, f"Machine: {machine()}.", markup=False)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps([item.as_dict() for item in figures], indent=1) + "\n", encoding="utf-8")
    return 0


def child_environment() -> dict[str, str]:
    """Return the environment for child processes: this checkout importable, nothing phoning home."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}


if str(ROOT) not in sys.path:  # a checkout that is not installed
    sys.path.insert(1, str(ROOT))
