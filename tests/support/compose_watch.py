"""Watch what happens inside a process while settings are composed."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra

import quire.conf
from quire.conf.compose import compose
from quire.conf.schema import Settings
from quire.errors import SettingsError

ALLOWED = (str(Path(quire.conf.__file__).resolve().parent), str(Path(hydra.__file__).resolve().parent / "conf"))
HARMLESS = {"builtins.id", "object.__getattr__", "sys._getframe"}
CANARY = "the-canary-of-this-silo"
SECONDS = 10.0  # of this thread, collecting the garbage of all tests before included: for strings that take for ever


class Watch:
    """What happened in this thread while the watch was on."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.seen: list[str] = []

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.thread is None or self.thread != threading.get_ident() or event in HARMLESS:
            return
        if event == "open" and self._may_open(*args):
            return
        self.seen.append(f"{event}{args!r:.200}")

    @staticmethod
    def _may_open(path: object, mode: object, _: object) -> bool:
        if not isinstance(path, str) or mode not in ("r", "rb") or not path.endswith(".yaml"):
            return False
        return os.path.realpath(path).startswith(tuple(f"{folder}{os.sep}" for folder in ALLOWED))

    def compose(self, text: str) -> Settings | SettingsError:
        """Compose under watch; any other exception escapes."""
        self.seen.clear()
        modules = set(sys.modules)
        began = time.thread_time()
        self.thread = threading.get_ident()
        try:
            result: Settings | SettingsError = compose(text)
        except SettingsError as refused:
            result = refused
        finally:
            self.thread = None
        seconds = time.thread_time() - began
        assert not self.seen, f"{text[:200]!r} made the silo do {self.seen}"
        assert set(sys.modules) == modules, f"{text[:200]!r} imported {set(sys.modules) - modules}"
        assert seconds < SECONDS, f"{text[:200]!r} took {seconds:.1f} s"
        if isinstance(result, SettingsError):
            message = str(result)
            assert message.isprintable()
            assert len(message) <= 300
            assert CANARY not in message
        else:
            assert CANARY not in json.dumps(result.as_dict())
        return result


def watched() -> Iterator[Watch]:
    """Warm up all imports, then watch. A hook cannot be taken away again: it stays, switched off."""
    for text in ("", "task=synthetic", "strategy=fedprox", "runtime=flower", "task=x"):
        try:
            compose(text)
        except SettingsError:
            continue
    watch = Watch()
    sys.addaudithook(watch.hook)
    plain = type(os.environ)

    class Watched(plain):  # type: ignore[misc, valid-type]
        def __getitem__(self, key: str) -> str:
            watch.hook("os.environ", (key,))
            return super().__getitem__(key)  # type: ignore[no-any-return]

        def __iter__(self) -> Iterator[str]:
            watch.hook("os.environ", ("*",))
            return super().__iter__()  # type: ignore[no-any-return]

    os.environ["QUIRE_CANARY"] = CANARY
    os.environ.__class__ = Watched
    os.environb.__class__ = Watched
    yield watch
    os.environ.__class__ = plain
    os.environb.__class__ = plain
    del os.environ["QUIRE_CANARY"]
