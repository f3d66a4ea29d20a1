"""Machines on one machine: network namespaces with addresses of their own, on a bridge, with links that can be cut.

One process holds a mount namespace and a network namespace of its own, with the bridge and the names of all others in
it: when it ends, be it with the tests that were killed, nothing of them is left. As root it needs no more; other users
get a user namespace as well, where the system allows that. Where it allows neither, everybody is on 127.0.0.1, no link
can be cut, and :attr:`Wires.why_not` says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence

import pytest

LOOPBACK = "127.0.0.1"
#: Set to anything, it keeps the tests on loopback.
VARIABLE = "QUIRE_TEST_ON_LOOPBACK"
# The first half of a block for private use that hardly anybody has on a real interface.
_NETWORK = "10.77.0"
_HOLDER = "mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up && echo ready && cat"


class Wires:
    """Machines by name.

    Parameters
    ----------
    names : sequence of str
    real : bool
        Whether to try for namespaces.
    user : bool
        Whether to take a user namespace though this is root, as others have to.

    Attributes
    ----------
    addresses : dict of str to str
        By name.
    why_not : str or None
        Why there are no namespaces; None if there are.
    """

    def __init__(self, names: Sequence[str], real: bool = True, user: bool = False) -> None:
        self.names, self.why_not = tuple(names), None if real else f"{VARIABLE} is set"
        self.addresses = dict.fromkeys(names, LOOPBACK)
        self._holder: subprocess.Popen[str] | None = None
        self._user = user or os.geteuid() != 0
        if real:
            try:
                self._make()
            except (OSError, subprocess.SubprocessError) as error:
                self.close()
                self.why_not = f"network namespaces cannot be made here ({_words(error)})"
                self.addresses = dict.fromkeys(names, LOOPBACK)

    @property
    def real(self) -> bool:
        """Whether every name is a network namespace of its own."""
        return self.why_not is None

    def inside(self, name: str) -> list[str]:
        """Return what to put before a command that is to run on a machine. The command keeps the process id."""
        return [*self._held(), "nsenter", f"--net=/run/netns/{name}", "--"] if self.real else []

    def run(self, name: str, *command: str, text: str = "", limit: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command on a machine."""
        return subprocess.run(
            [*self.inside(name), *command], input=text, capture_output=True, text=True, timeout=limit, check=False
        )

    def cut(self, name: str) -> None:
        """Take a machine's link down; without namespaces the test is skipped."""
        self._link(name, "down")

    def mend(self, name: str) -> None:
        """Bring it up again."""
        self._link(name, "up")

    def needed(self) -> None:
        """Skip the test where there are no namespaces."""
        if self.why_not is not None:
            pytest.skip(f"needs a network of its own: {self.why_not}")

    def close(self) -> None:
        """Let go of everything."""
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
            self._holder = None

    # ------------------------------------------------------------------------------------------------------ making
    def _make(self) -> None:
        missing = [tool for tool in ("unshare", "nsenter", "ip") if shutil.which(tool) is None]
        if missing:
            raise OSError(f"there is no {missing[0]}")
        flags = ["--mount", "--net", *(("--user", "--map-root-user") if self._user else ())]
        self._holder = subprocess.Popen(
            ["unshare", *flags, "sh", "-c", _HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self._holder.stdout is None or self._holder.stdout.readline().strip() != "ready":
            raise OSError(self._holder.communicate()[1].strip() or "unshare says nothing")
        self._ip("link", "add", "hub", "type", "bridge")
        self._ip("link", "set", "hub", "up")
        for place, name in enumerate(self.names, start=1):
            port = f"p{place}"
            self._ip("netns", "add", name)
            self._ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            self._ip("link", "set", port, "master", "hub", "up")
            self._ip("-n", name, "addr", "add", f"{_NETWORK}.{place}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                self._ip("-n", name, "link", "set", link, "up")
            self.addresses[name] = f"{_NETWORK}.{place}"

    def _link(self, name: str, how: str) -> None:
        self.needed()
        self._ip("link", "set", f"p{self.names.index(name) + 1}", how)

    def _held(self) -> list[str]:
        if self._holder is None:
            raise OSError("the namespaces are gone")
        spaces = ["--user", "--preserve-credentials"] if self._user else []
        return ["nsenter", f"--target={self._holder.pid}", *spaces, "--mount", "--net", "--"]

    def _ip(self, *words: str) -> None:
        done = subprocess.run([*self._held(), "ip", *words], capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")

    @property
    def hub(self) -> list[str]:
        """What to put before a command that is to see all that crosses the bridge."""
        return self._held()

    def port(self, name: str) -> str:
        """Return the bridge's end of a machine's cable."""
        return f"p{self.names.index(name) + 1}"

    def listening(self, name: str) -> set[str]:
        """Return the addresses at which anything on a machine listens."""
        done = self.run(name, "cat", "/proc/self/net/tcp", "/proc/self/net/tcp6")
        rows = [line.split() for line in done.stdout.splitlines()]
        return {_address(row[1].split(":")[0]) for row in rows if len(row) > 3 and row[3] == "0A"}


@contextlib.contextmanager
def wired(*names: str) -> Iterator[Wires]:
    """Make machines, or say why they are all this one."""
    wires = Wires(names, real=VARIABLE not in os.environ)
    try:
        yield wires
    finally:
        wires.close()


def _address(digits: str) -> str:
    """Return an address as people write it, of the kernel's digits: words of 32 bits, each in this machine's order."""
    words = [bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8)]
    found = b"".join(words)
    if len(found) == 4:
        return ".".join(map(str, found))
    return ":".join(found[at : at + 2].hex() for at in range(0, 16, 2))


def _words(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
