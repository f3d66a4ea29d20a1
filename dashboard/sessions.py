"""Who is logged in, and who has tried too often. All of it in memory: when the dashboard ends, so do its sessions."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256

from quire.dashboard.users import User

#: Seconds after which somebody has to log in again, however busy.
LASTS = 8 * 3600.0
_MOST_SESSIONS, _MOST_OF_USER, _MOST_KEYS = 200, 10, 10_000


@dataclass(frozen=True)
class Session:
    """Somebody who is logged in.

    Attributes
    ----------
    user : User
        As the file said when they logged in: a new password or role ends the session.
    form : str
        What their forms have to send along.
    until : float
        When it ends, by the clock of :class:`Sessions`.
    """

    user: User
    form: str
    until: float

    def owns(self, form: str) -> bool:
        """Whether a form is this session's, compared in constant time."""
        return hmac.compare_digest(form.encode("utf-8", "replace"), self.form.encode())


class Sessions:
    """The sessions that there are, by the hash of the token that a browser has.

    Parameters
    ----------
    clock : callable
        Seconds that never go back.
    lasts : float
        Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, lasts: float = LASTS) -> None:
        self._clock, self._lasts = clock, lasts
        self._open: dict[bytes, Session] = {}
        self._lock = threading.Lock()

    def open(self, user: User) -> str:
        """Begin a session, and return the token for it; too many of one user's end that user's oldest."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._forget()
            own = [key for key, session in self._open.items() if session.user.name == user.name]
            for key in own[: len(own) + 1 - _MOST_OF_USER] if len(own) >= _MOST_OF_USER else ():
                del self._open[key]
            while len(self._open) >= _MOST_SESSIONS:
                del self._open[next(iter(self._open))]
            self._open[_key(token)] = Session(user, secrets.token_urlsafe(32), self._clock() + self._lasts)
        return token

    def find(self, token: str) -> Session | None:
        """Return the session of a token; None where there is none, or it has ended.

        What is looked up is a hash of the token: how long that takes tells nothing of a token that is one.
        """
        with self._lock:
            self._forget()
            return self._open.get(_key(token))

    def close(self, token: str) -> None:
        """End a session."""
        with self._lock:
            self._open.pop(_key(token), None)

    def _forget(self) -> None:
        now = self._clock()
        for key in [key for key, session in self._open.items() if session.until <= now]:
            del self._open[key]


class Throttle:
    """How often a name, or an address, has failed of late.

    An attempt counts as failed before it is looked at, so that attempts side by side count as well.

    Parameters
    ----------
    most : int
        Failures that are put up with.
    within : float
        Seconds.
    clock : callable
    """

    def __init__(self, most: int, within: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._within, self._clock = most, within, clock
        self._failed: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def wait(self, keys: Iterable[str]) -> float:
        """Note an attempt under some keys; return 0, or the seconds after which another one is looked at."""
        now = self._clock()
        with self._lock:
            recent = {key: [at for at in self._failed.get(key, ()) if at > now - self._within] for key in keys}
            worst = max((times[-self._most] for times in recent.values() if len(times) >= self._most), default=None)
            if worst is not None:
                return max(1.0, worst + self._within - now)
            for key, times in recent.items():
                self._failed.pop(key, None)
                self._failed[key] = [*times, now]
            while len(self._failed) > _MOST_KEYS:
                del self._failed[next(iter(self._failed))]
        return 0.0

    def passed(self, keys: Iterable[str]) -> None:
        """Forget the failures under some keys: the attempt was good."""
        with self._lock:
            for key in keys:
                self._failed.pop(key, None)


def _key(token: str) -> bytes:
    return sha256(token.encode("utf-8", "replace")).digest()
