"""A silo's SuperNodes as processes of their own, for the tests that kill them or run several. Reads standard input.

It has everything imported and forks one after another: "fork FOLDER RUN ROUND COUNT" starts one that answers so many
rounds of a run (0: for ever), each reply appended to the folder's outbox of that run and fsynced, and prints its
number; "wait NUMBER" says when its first update has left; "reap NUMBER" how it ended.
"""

from __future__ import annotations

import os
import sys
from itertools import count, islice
from pathlib import Path

from real_silo import RealSilo, all_bytes, code_of

from quire.clients.store import Store

#: Rounds as quick as can be.
OVERRIDES = "strategy.rounds=4000 training.steps=1"


def live(silo: RealSilo, begin: int, rounds: int, ready: int, asked: str) -> None:
    """Answer: a line of the outbox is what has left the silo."""
    with (silo.folder / f"outbox-{silo.run}").open("ab", buffering=0) as box:
        for number in islice(count(begin), rounds or None):
            reply = silo.ask("train", asked, number)
            code = code_of(reply)
            box.write(f"{number} {code} {len(all_bytes(reply))}\n".encode())
            os.fsync(box.fileno())
            if code == "ANSWERED":
                os.write(ready, b".")
            elif code != "REPLAY_REFUSED":
                return


def main(warm: Path, asked: str) -> None:
    """Do as the module says."""
    # What torch, Opacus and the accountant keep in memory is inherited.
    if (code := code_of(RealSilo(warm).ask("train", asked))) != "ANSWERED":
        raise SystemExit(f"the silo answers with {code}")
    Store.open.__func__.__kwdefaults__["wait"] = 120.0  # type: ignore[attr-defined]  # on a busy machine, too
    print("ready", flush=True)
    replied: dict[int, int] = {}
    for line in sys.stdin:
        command, *words = line.split()
        if command == "fork":
            silo = RealSilo(Path(words[0]))
            silo.run = int(words[1])
            reading, ready = os.pipe()
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    live(silo, int(words[2]), int(words[3]), ready, asked)
                    status = 0
                finally:
                    os._exit(status)
            os.close(ready)
            replied[child] = reading
            print(child, flush=True)
        elif command == "wait":
            print("replied" if os.read(replied[int(words[0])], 1) else "gone", flush=True)
        else:
            os.close(replied.pop(int(words[0])))
            print(os.waitstatus_to_exitcode(os.waitpid(int(words[0]), 0)[1]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
