"""One supervisor for the services of a machine: started in order, watched, restarted, stopped, none left behind.

Every child is the leader of a process group, is tied to the supervisor's life (:mod:`quire.consortium.leash`), and
carries a mark in its environment: should the supervisor be killed, the next start finds by the mark what is left of
it. There is no daemonising: who wants that has an init system that does it well.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from quire.consortium import leash
from quire.consortium.errors import ConsortiumError, FolderBusy
from quire.consortium.logs import last_line, rotate, stamp, words_for
from quire.simulation.processes import ProcessTree

#: Longest wait before a service is started again, in seconds: as long as Flower holds a lost SuperNode's place.
MOST_BACK_OFF = 60.0
# After so many seconds without trouble a service counts as well again.
_STEADY = 120.0
_POLL, _HOUSEKEEPING = 0.1, 5.0
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Say = Callable[[str, str], None]


class SuperviseError(ConsortiumError):
    """The services cannot be brought up."""

    exit_code = 1


@dataclass(frozen=True)
class Service:
    """What is to run.

    Attributes
    ----------
    name : str
        Names its log, and the lines about it.
    command : tuple of str
    environment : mapping of str to str
        All of it.
    folder : pathlib.Path
        In which it works.
    ready : callable or None
        Says whether it serves. Without it, it is taken to from its first second on.
    watched : tuple of pathlib.Path
        Files that it reads when it starts: it is started again when one changes.
    before : callable or None
        Called before every start; an OSError of its counts as a start that failed.
    attempts : int or None
        How often it may fail before it was ready for the first time; None: for ever.
    start_limit, grace : float
        Seconds until it must be ready, and between asking it to end and making it.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    ready: Callable[[], bool] | None = None
    watched: tuple[Path, ...] = ()
    before: Callable[[], None] | None = None
    attempts: int | None = 3
    start_limit: float = 120.0
    grace: float = 10.0


@dataclass(frozen=True)
class Duty:
    """What the supervisor does itself from time to time; ``call`` may raise a QuireError, which is told once.

    Attributes
    ----------
    name : str
    every : float
        Seconds.
    call : callable
    """

    name: str
    every: float
    call: Callable[[], None]


@dataclass
class _Child:
    service: Service
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    failures: int = 0
    ready: bool = False
    was_ready: bool = False
    stamp: tuple[int, ...] = ()
    starts: int = 0


@dataclass
class Supervisor:
    """Runs services until it is asked to end.

    Attributes
    ----------
    folder : pathlib.Path
        For the lock, the note of what was started, and ``log/``.
    services : sequence of Service
        Started in this order, each when the one before is ready; stopped in the opposite one.
    say : callable
        Told of every event: the service's name and words.
    duties : sequence of Duty
        Begin when all services are ready.
    prepare : callable or None
        Called once before anything starts, when it is certain that no other supervisor is at work in the folder:
        whatever is written there for the services is written then.
    back_off : float
        Seconds before the first new start of a service; doubled with each failure, up to ``MOST_BACK_OFF``.
    """

    folder: Path
    services: Sequence[Service]
    say: Say
    duties: Sequence[Duty] = ()
    prepare: Callable[[], None] | None = None
    back_off: float = 1.0
    _children: list[_Child] = field(default_factory=list, init=False)
    _stopping: bool = field(default=False, init=False)
    _tree: ProcessTree = field(default_factory=ProcessTree, init=False)
    _next: dict[str, float] = field(default_factory=dict, init=False)
    _told: dict[str, str] = field(default_factory=dict, init=False)

    def run(self) -> None:
        """Start everything, watch over it, and stop it all on SIGTERM, SIGINT or SIGHUP. In the main thread only.

        Raises
        ------
        FolderBusy
            If another supervisor is at work in the folder.
        SuperviseError
            If a service does not come up.
        """
        (self.folder / "log").mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(self.folder / "supervisor.lock"), self._signals():
            self._clean_up()
            if self.prepare is not None:
                self.prepare()
            self._children = [_Child(service, self.folder / "log" / f"{service.name}.log") for service in self.services]
            try:
                self._watch()
            finally:
                self._stop()

    def services_now(self) -> dict[str, tuple[bool, int]]:
        """Return of each service whether it is ready, and how often it was started again."""
        return {child.service.name: (child.ready, max(0, child.starts - 1)) for child in self._children}

    def troubled(self, duty: str) -> bool | None:
        """Say whether a duty failed when it was done last; None if it was not done yet."""
        return duty in self._told if duty in self._next else None

    # ------------------------------------------------------------------------------------------------- watching
    def _watch(self) -> None:
        complete = False
        while not self._stopping:
            now = time.monotonic()
            for child in self._children:
                self._step(child, now)
                if not child.was_ready or self._stopping:
                    break
            else:
                if not complete:
                    complete = True
                    self.tell("all", "is up")
                self._keep_house(now)
            time.sleep(_POLL)

    def _step(self, child: _Child, now: float) -> None:
        service, process = child.service, child.process
        if process is None:
            if now >= child.due:
                self._start(child)
            return
        status = process.poll()
        if status is not None:
            self._failed(child, f"ended ({words_for(status)}): {last_line(child.log)}")
        elif not child.ready:
            if service.ready() if service.ready is not None else now - child.started > 1.0:
                child.ready = child.was_ready = True
                self.tell(service.name, f"is ready, process {process.pid}, after {now - child.started:.1f} s")
            elif now - child.started > service.start_limit:
                self._end(child)
                self._failed(child, f"was not ready within {service.start_limit:.0f} s: {last_line(child.log)}")
        elif stamp(service.watched) != child.stamp:
            self.tell(service.name, "is started again: what it reads has changed")
            self._end(child)
            child.process, child.ready, child.due = None, False, 0.0
        elif child.failures and now - child.started > _STEADY:
            child.failures = 0

    def _start(self, child: _Child) -> None:
        service = child.service
        # Before anything is read: what changes from here on starts it again.
        child.stamp, child.started, child.ready = stamp(service.watched), time.monotonic(), False
        if service.before is not None:
            try:
                service.before()
            except OSError as error:
                self._failed(child, f"could not be prepared: {error.filename}: {error.strerror}")
                return
        command = [sys.executable, "-ISB", str(Path(leash.__file__).resolve()), str(os.getpid()), *service.command]
        with child.log.open("ab") as log:
            # A group of its own: a Ctrl-C at the terminal is for us alone, and we stop the services in order.
            child.process = subprocess.Popen(
                command,
                cwd=service.folder,
                env={**service.environment, **self._tree.mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child.starts += 1
        self._tree.add(child.process.pid)

    def _failed(self, child: _Child, words: str) -> None:
        service = child.service
        self._end(child)
        child.process, child.ready = None, False
        child.failures += 1
        if not child.was_ready and service.attempts is not None and child.failures >= service.attempts:
            raise SuperviseError(f"{service.name} does not start: it {words} (all of it in {child.log})")
        pause = min(MOST_BACK_OFF, self.back_off * 2.0 ** min(child.failures - 1, 16))
        child.due = time.monotonic() + pause
        self.tell(service.name, f"{words}; started again in {pause:g} s")

    def _keep_house(self, now: float) -> None:
        if now >= self._next.get("", 0.0):
            self._next[""] = now + _HOUSEKEEPING
            for child in self._children:
                with contextlib.suppress(OSError):
                    rotate(child.log)
        for duty in self.duties:
            if now >= self._next.get(duty.name, 0.0):
                try:
                    duty.call()
                    if self._told.pop(duty.name, None):
                        self.tell(duty.name, "is well again")
                except (ConsortiumError, OSError) as error:
                    if self._told.get(duty.name) != str(error):
                        self._told[duty.name] = str(error)
                        self.tell(duty.name, str(error))
                self._next[duty.name] = time.monotonic() + duty.every

    # ------------------------------------------------------------------------------------------------- stopping
    def _stop(self) -> None:
        for child in reversed(self._children):
            if child.process is not None:
                self._end(child)
                self.tell(child.service.name, "is stopped")
        if left := self._tree.stop(grace=1.0):
            self.tell("all", f"these processes could not be ended: {left}")
        else:
            self._note.unlink(missing_ok=True)

    def _end(self, child: _Child) -> None:
        """End a child, and what is left of its group."""
        process = child.process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(child.service.grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @property
    def _note(self) -> Path:
        return self.folder / "started.json"

    def _clean_up(self) -> None:
        """End what a supervisor that was killed has left, and note the mark of what is started now."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            before = ProcessTree()
            before.mark = {str(name): str(value) for name, value in json.loads(self._note.read_text()).items()}
            if before.mark and (living := before.update(thorough=True)):
                before.stop(grace=2.0)
                self.tell("all", f"{len(living)} processes of an earlier start were still there, and are ended")
        self._note.write_text(json.dumps(self._tree.mark))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            self._stopping = True

        before = {number: signal.signal(number, stop) for number in _STOPS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def tell(self, name: str, words: str) -> None:
        """Note an event, and say it; that neither can be done ends nothing."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "service": name, "words": words}
        with (
            contextlib.suppress(OSError),
            (self.folder / "log" / "events.jsonl").open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(line) + "\n")
        with contextlib.suppress(OSError):
            self.say(name, words)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FolderBusy(f"The services of {path.parent.parent} are running already: stop them first.") from None
        yield
