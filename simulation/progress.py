"""Progress of a run, read off the ``metrics.jsonl`` that it is writing.

Every runtime writes that file, in this process or in another one, so the same few lines serve them all. Showing
progress never disturbs the run: a missing file, a torn line or a closed terminal only means less to see.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichProgress,
)
from rich.text import Text

from quire.errors import SettingsError
from quire.simulation.report_data import json_objects, number
from quire.simulation.report_words import name
from quire.simulation.secure_attempts import told_of_groups

MODES = ("auto", "rich", "plain", "none")
_POLL = 0.1
_MOST_FAILURES = 10


class Progress:
    """Follow a growing ``metrics.jsonl`` and show each round as it ends.

    Parameters
    ----------
    path : Path
        The file; it need not exist yet.
    rounds : int
        Rounds that the run is to have; the start event's number counts where it differs.
    mode : {"auto", "rich", "plain", "none"}
        A live bar, one line a round, or nothing. ``auto``: a bar on a terminal, lines elsewhere.
    console : rich.console.Console, optional
        Where to show it; standard output if not given.
    skip : int
        Bytes at the start of the file that are not shown: what a resumed run had written before.

    Raises
    ------
    SettingsError
        If there is no such mode.

    Notes
    -----
    On leaving, the file is read to its end, so that no round is missed however fast the last ones were.
    """

    def __init__(
        self, path: Path, rounds: int, mode: str = "auto", console: Console | None = None, skip: int = 0
    ) -> None:
        if mode not in MODES:
            raise SettingsError(f"There is no progress mode '{mode}': choose one of {', '.join(MODES)}.")
        self._console = console if console is not None else Console()
        if mode == "auto":
            live = self._console.is_terminal and not self._console.is_dumb_terminal
            mode = "rich" if live else "plain"
        self._mode = mode
        self._tail = Tail(Path(path), skip)
        self._rounds = rounds
        self._seen: set[tuple[str, ...]] = set()
        self._failed = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._bar: RichProgress | None = None
        self._task = TaskID(0)
        self._broken = False

    def __enter__(self) -> Progress:
        if self._mode == "none":
            return self
        if self._mode == "rich":
            self._bar = RichProgress(
                TextColumn("round {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[words]}", markup=False),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(compact=True),
                console=self._console,
                expand=True,
            )
            self._task = self._bar.add_task("", total=self._rounds, words="waiting for the first round")
            self._bar.start()
        self._thread = threading.Thread(target=self._follow, name="quire-progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._drain(last=True)
        if self._bar is not None:
            self._bar.stop()

    def _follow(self) -> None:
        while not self._stop.wait(_POLL):
            self._drain()

    def _drain(self, last: bool = False) -> None:
        for event in self._tail.read(last):
            if self._broken:
                return
            try:
                self._show(event)
            except (OSError, SystemExit):  # the reader went away (rich turns a broken pipe into an exit): run on
                self._broken = True

    def _show(self, event: dict[str, Any]) -> None:
        if event.get("event") == "start" and (rounds := number(event.get("rounds"))) is not None:
            self._rounds = int(rounds)
            if self._bar is not None:
                self._bar.update(self._task, total=self._rounds)
        place = number(event.get("round"))
        if event.get("event") != "round" or place is None:
            return
        self._show_failures(event, int(place))
        words = _words(event)
        if self._bar is None:
            self._line(f"round {place:.0f}/{self._rounds}  {'  '.join([*words, _seconds(event)])}")
            return
        if self._failed:
            words.append(f"{self._failed} failed so far")
        self._bar.update(self._task, completed=place, words="  ".join(words))

    def _show_failures(self, event: dict[str, Any], place: int) -> None:
        fresh = []
        for failure in _list(event.get("failed")):
            if isinstance(failure, dict):
                silo, stage = str(failure.get("silo")), str(failure.get("stage", "train"))
                words = str(failure.get("words") or failure.get("code") or "no reason was recorded")
                key = (str(place), silo, stage, words)
                if key not in self._seen:
                    self._seen.add(key)
                    fresh.append(f"round {place}: {name(silo)} failed in {stage}: {words}")
        self._failed += len(fresh)
        for line in fresh[:_MOST_FAILURES]:
            self._line(line, style="red")
        if len(fresh) > _MOST_FAILURES:
            self._line(f"round {place}: and {len(fresh) - _MOST_FAILURES} more failed", style="red")

    def _line(self, text: str, style: str = "") -> None:
        encoding = self._console.encoding or "utf-8"
        text = text.encode(encoding, "replace").decode(encoding, "replace")
        self._console.print(Text(text, style=style), soft_wrap=True)


def _words(event: dict[str, Any]) -> list[str]:
    """Return accuracy, loss and who replied, in words; what is unknown is left out."""
    words = []
    evaluate, train = (part if isinstance(part := event.get(key), dict) else {} for key in ("evaluate", "train"))
    accuracy, loss, train_loss = (
        number(value) for value in (evaluate.get("accuracy"), evaluate.get("loss"), train.get("loss"))
    )
    if accuracy is not None:
        words.append(f"accuracy {accuracy:.3f}")
    if loss is not None:
        words.append(f"loss {_loss(loss)}")
    elif train_loss is not None:
        words.append(f"training loss {_loss(train_loss)}")
    replied, asked = len(_list(event.get("replied"))), len(_list(event.get("cohort")))
    words.append(f"{replied}/{asked} silos")
    without = [str(group) for group, told in told_of_groups(event) if "reach" not in told]
    if event.get("lost"):
        words.append("lost")
    elif without:
        words.append(f"without group{'s' if len(without) > 1 else ''} {', '.join(without)}")
    return words


def _loss(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _seconds(event: dict[str, Any]) -> str:
    parts = event.get("seconds")
    return f"{sum(number(part) or 0.0 for part in parts.values()) if isinstance(parts, dict) else 0.0:.1f} s"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class Tail:
    """Read what was added to a file of JSON lines; a line counts once its newline is there."""

    def __init__(self, path: Path, skip: int = 0) -> None:
        self._path = path
        self._offset = skip
        self._rest = b""

    def read(self, last: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the new events; with ``last``, also one whose newline never came."""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:  # begun anew
                    self._offset, self._rest = 0, b""
                file.seek(self._offset)
                added = file.read()
        except OSError:
            added = b""
        self._offset += len(added)
        *lines, self._rest = (self._rest + added).split(b"\n")
        yield from json_objects([*lines, self._rest] if last else lines)
