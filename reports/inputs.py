"""The files that a document is made of: which there are, their hashes, and whether each can be read at all.

A run folder was written by others. So before any of its files is opened by code that would wait at a pipe or follow a
link, each is looked at: it has to be a regular file of a size that a run writes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from quire.text import visible

_KB, _MB, _GB = 2**10, 2**20, 2**30
#: The files of a run folder that a document is made of, with the most bytes that each may have.
RUN_FILES = {
    "run.json": _MB,
    "settings.yaml": 256 * _KB,
    "metrics.jsonl": 256 * _MB,
    "privacy_card.json": 64 * _MB,
    "privacy_card.html": 64 * _MB,
    "roster.json": 8 * _MB,
    "approvals.jsonl": 16 * _MB,
    "log/entries.jsonl": 256 * _MB,
    "log/checkpoints.txt": 64 * _MB,
    "model.safetensors": 64 * _GB,
}
_TRANSCRIPTS, _MOST, _LARGEST = "transcripts", 100_000, 4 * _GB
_BLOCK = 1 << 20
_BRACKETS = 2000


@dataclass(frozen=True)
class Input:
    """One file.

    Attributes
    ----------
    name : str
        What it is called in the document: never where on a machine it lies.
    sha256 : str or None
        None where it could not be read.
    size : int
    trouble : str or None
        Why it could not be.
    """

    name: str
    sha256: str | None
    size: int = 0
    trouble: str | None = None


@dataclass
class Inputs:
    """All files that a document was made of, in the order in which they were looked at."""

    found: list[Input] = field(default_factory=list)

    def look(self, path: Path, name: str, limit: int, links: bool = True) -> bool:
        """Hash a file; tell whether it is there and can be read.

        Parameters
        ----------
        path : pathlib.Path
        name : str
            What the document calls it.
        limit : int
            The most bytes that it may have.
        links : bool
            Whether it may be a link to a file: what a person names may, what lies in a run folder may not.
        """
        name = visible(name)
        if any(one.name == name for one in self.found):
            return any(one.name == name and one.sha256 is not None for one in self.found)
        one = _looked(path, name, limit, links)
        if one is not None:
            self.found.append(one)
        return one is not None and one.sha256 is not None

    def look_at_run(self, folder: Path, label: str = "") -> list[str]:
        """Hash the files of a run folder; return what is wrong with them, in sentences."""
        before = len(self.found)
        for name, limit in RUN_FILES.items():
            self.look(folder / name, label + name, limit, links=False)
        if os.path.lexists(folder / "log") and (folder / "log").is_symlink():
            self.found.append(Input(f"{label}log", None, 0, "log is a link, and no folder of a run."))
        self._transcripts(folder / _TRANSCRIPTS, label)
        settings = next((one for one in self.found if one.name == f"{label}settings.yaml"), None)
        why = _unlike(folder / "settings.yaml") if settings is not None and settings.sha256 is not None else None
        if why is not None:
            self.found.append(Input(f"{label}settings.yaml, as YAML", None, 0, why))
        return [one.trouble for one in self.found[before:] if one.trouble is not None]

    def _transcripts(self, folder: Path, label: str) -> None:
        """Hash all transcripts as one: the SHA-256 over the lines ``HASH  NAME`` of its files, by name."""
        if not os.path.lexists(folder):
            return
        name = f"{label}{_TRANSCRIPTS}/"
        if folder.is_symlink() or not folder.is_dir():
            self.found.append(Input(name, None, 0, f"{_TRANSCRIPTS} is no folder."))
            return
        digest, size, count = hashlib.sha256(), 0, 0
        for path in sorted(folder.iterdir(), key=lambda path: path.name.encode("utf-8", "surrogateescape")):
            count += 1
            one = _looked(path, path.name, _LARGEST, links=False) if count <= _MOST else None
            if one is None or one.sha256 is None:
                trouble = f"{_TRANSCRIPTS}/{visible(path.name)} is no file that a run writes."
                self.found.append(Input(name, None, 0, trouble))
                return
            digest.update(f"{one.sha256}  ".encode() + os.fsencode(path.name) + b"\n")
            size += one.size
        self.found.append(Input(f"{name} ({count} files)", digest.hexdigest(), size))


def _unlike(path: Path) -> str | None:
    """Say why settings must not be read as YAML; None if they may be. Of what is no YAML at all others tell.

    A parser takes time in the square of how deep brackets are nested, and an alias lets a small file stand for a huge
    one. Runs write neither.
    """
    try:
        data = path.read_bytes()
        if data.count(b"[") + data.count(b"{") > _BRACKETS:
            return "settings.yaml has more brackets than any that a run writes."
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, Loader=yaml.SafeLoader)):
            return "settings.yaml has an alias, by which a small file stands for a huge one: no run writes such."
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        pass
    return None


def _looked(path: Path, name: str, limit: int, links: bool) -> Input | None:
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        return Input(name, None, 0, f"{name} cannot be read: {why}.")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return Input(name, None, 0, f"{name} is not a file.")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        digest, size = hashlib.sha256(), 0
        try:
            while block := file.read(_BLOCK):
                size += len(block)
                if size > limit:
                    return Input(name, None, size, f"{name} has more than {limit} bytes: no run writes such a file.")
                digest.update(block)
        except OSError as error:
            return Input(name, None, 0, f"{name} cannot be read: {error.strerror}.")
    return Input(name, digest.hexdigest(), size)
