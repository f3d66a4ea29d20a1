"""A silo's SuperNode as a process of its own, for the tests that kill it. Reads commands from standard input.

It has everything imported and forks one silo after another: "fork ROUND" starts one that answers round after round of
run 5, each reply appended to an outbox and fsynced, and prints its number; "wait" says when it has replied for the
first time; "reap" how it ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from real_silo import RealSilo, all_bytes, code_of

OVERRIDES = "strategy.rounds=4000 training.steps=1"


def live(silo: RealSilo, outbox: Path, round_number: int, ready: int) -> None:
    """Answer for ever: a line of the outbox is what has left the silo."""
    with outbox.open("ab", buffering=0) as box:
        while True:
            reply = silo.ask("train", OVERRIDES, round_number)
            code = code_of(reply)
            if code not in ("ANSWERED", "REPLAY_REFUSED"):
                raise SystemExit(code)
            box.write(f"{round_number} {code} {len(all_bytes(reply))}\n".encode())
            os.fsync(box.fileno())
            os.write(ready, b".")
            round_number += 1


def main(folder: Path, outbox: Path) -> None:
    """Do as the module says."""
    silo = RealSilo(folder)
    warm = RealSilo(folder / "warm")  # what torch, Opacus and the accountant keep in memory is inherited
    if code_of(warm.ask("train", OVERRIDES)) != "ANSWERED":
        raise SystemExit("the silo does not answer")
    print("ready", flush=True)
    child = replied = 0
    for command in sys.stdin:
        if command.startswith("fork"):
            replied, ready = os.pipe()
            child = os.fork()
            if child == 0:
                live(silo, outbox, int(command.split()[1]), ready)
            os.close(ready)
            print(child, flush=True)
        elif command.startswith("wait"):
            print("replied" if os.read(replied, 1) else "gone", flush=True)
        else:
            os.close(replied)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
