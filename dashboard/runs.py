"""The runs of a folder: which there are, how each stands, found by listing and never by what a browser sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from quire.dashboard.errors import Unreadable
from quire.dashboard.journal import planned_in
from quire.dashboard.reading import folders_in, is_file, read_json
from quire.dashboard.roles import Place

#: Runs on a page; folders of which one is looked at; and how deep they lie (runs/DATE/TIME, or a job of a sweep).
SHOWN = 60
_MOST_FOLDERS, _DEPTH = 5000, 3
_STATES = ("completed", "failed", "interrupted", "running")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Run:
    """One run, as its ``run.json`` has it.

    Attributes
    ----------
    key : str
        What its page is called: a hash of where it lies, so that no address of a page names a path.
    name : str
        Where it lies, below the folder of runs.
    folder : pathlib.Path
    status : str
        ``completed``, ``failed``, ``interrupted``, ``running`` or ``unknown``.
    rounds, planned : int or None
        Done, and to be done.
    started, finished : float or None
        Seconds since 1970 UTC.
    error, trouble : str or None
        Why it ended, in the server's words; why ``run.json`` could not be read.
    about : mapping
        ``run.json`` itself: nothing of it is to be trusted.
    """

    key: str
    name: str
    folder: Path
    status: str = UNKNOWN
    rounds: int | None = None
    planned: int | None = None
    started: float | None = None
    finished: float | None = None
    error: str | None = None
    trouble: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def runs_of(place: Place, root: Path) -> Path:
    """Return where the runs of a folder are."""
    if place is not Place.CONSORTIUM:
        return root
    from quire.consortium.layout import OperatorFolder
    from quire.consortium.superlink import runs_folder

    return runs_folder(OperatorFolder(root))


def folders(runs: Path) -> list[Path]:
    """Return the folders that hold a run, the youngest first."""
    found: list[tuple[float, Path]] = []
    level, looked = [runs], 0
    for _ in range(_DEPTH + 1):
        below: list[Path] = []
        for folder in level:
            looked += 1
            if looked > _MOST_FOLDERS:
                break
            if is_file(folder / "run.json") or is_file(folder / "metrics.jsonl"):
                found.append((_changed(folder), folder))
            else:
                below += folders_in(folder, _MOST_FOLDERS)
        level = below
    return [folder for _, folder in sorted(found, key=lambda pair: (-pair[0], str(pair[1])))]


def key_of(runs: Path, folder: Path) -> str:
    """Return what a run's page is called."""
    return sha256(b"quire/dashboard/run\0" + str(folder.relative_to(runs)).encode("utf-8", "replace")).hexdigest()[:20]


def find(runs: Path, key: str) -> Run | None:
    """Return the run whose page has this name; None if there is none."""
    for folder in folders(runs):
        if key_of(runs, folder) == key:
            return read(runs, folder)
    return None


def read(runs: Path, folder: Path) -> Run:
    """Read how a run stands. It never raises: what cannot be read is said."""
    key, name = key_of(runs, folder), str(folder.relative_to(runs))
    name = runs.absolute().name if name == "." else name
    try:
        about = read_json(folder / "run.json")
        planned = planned_in(folder / "metrics.jsonl")
    except Unreadable as error:
        return Run(key, name, folder, trouble=str(error))
    if about is None:
        return Run(key, name, folder, planned=planned, trouble="It has no run.json: it has not begun, or lost it.")
    status = about.get("status")
    words = about.get("error")
    return Run(
        key,
        name,
        folder,
        status if status in _STATES else UNKNOWN,
        _count(about.get("rounds")),
        planned,
        _time(about.get("started")),
        _time(about.get("finished")),
        words[:4000] if isinstance(words, str) else None,
        None,
        about,
    )


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 10**9 else None


def _time(value: object) -> float | None:
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        return datetime.fromisoformat(value).timestamp()
    except (OverflowError, OSError, ValueError):
        return None


def _changed(folder: Path) -> float:
    times = []
    for name in ("run.json", "metrics.jsonl"):
        try:
            times.append((folder / name).lstat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)
