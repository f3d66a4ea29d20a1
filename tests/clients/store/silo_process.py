"""A silo as a process of its own, for the tests that kill it. Reads commands from standard input.

With an outbox: "fork" starts a silo that charges and sends until it is killed, and prints its number; an empty line
waits until its store is open; "reap" says how it ended. With "charge SESSION COUNT": opens, charges and closes so
often, once told to go.
"""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path

from quire.clients.store import Budget, Charge, Position, Store, Unit
from quire.privacy.dp.events import Gaussian
from quire.privacy.identity.keys import PrivateIdentity

TODAY = date(2026, 5, 4)
BUDGET = Budget(1e6, 1e-5)
CHARGE = Charge(Unit.RECORD, Gaussian(20.0))
CHARGE.spending.epsilon(1e-5)  # imports what the accountant needs, once for all that are forked


def step(store: Store, session: str) -> int:
    """Charge the next round of a session and return its number."""
    last = store.counters.last(session)
    position = Position(session, 1 if last is None else last.round + 1)
    store.advance(position, TODAY)
    store.ledger("heart-2020").charge([CHARGE], BUDGET, position, code="c0de", settings="5e77")
    return position.round


def live(path: Path, identity: PrivateIdentity, outbox: Path, witness: Path | None, ready: int) -> None:
    """Say that the store is open, then charge and send for ever."""
    with Store.open(path, identity, witness=witness) as store, outbox.open("ab", buffering=0) as box:
        os.write(ready, b"open\n")
        while True:
            box.write(f"{step(store, 'run')}\n".encode())
            os.fsync(box.fileno())


def main(arguments: list[str]) -> None:
    """Do as the module says."""
    path, identity = Path(arguments[0]), PrivateIdentity.decode_secret(bytes.fromhex(arguments[1]))
    if arguments[2] == "charge":
        sys.stdin.readline()
        for _ in range(int(arguments[4])):
            with Store.open(path, identity, wait=60.0) as store:
                step(store, arguments[3])
        print(f"{arguments[4]} charged", flush=True)
        sys.stdin.read()
        return
    child = opened = 0
    for command in sys.stdin:
        if command.strip() == "fork":
            opened, ready = os.pipe()
            child = os.fork()
            if child == 0:
                live(path, identity, Path(arguments[2]), Path(arguments[3]) if len(arguments) > 3 else None, ready)
            os.close(ready)
            print(child, flush=True)
        elif not command.strip():
            print(os.read(opened, 5).decode().strip(), flush=True)
        else:
            os.close(opened)
            print(f"killed by {-os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
