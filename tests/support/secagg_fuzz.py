"""What both fuzzers do with some bytes: every parser must refuse with an error of the closed set, or round-trip.

``python tests/support/secagg_fuzz.py [-runs=N] [-max_total_time=S]`` is the coverage-guided campaign (atheris).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]
    import atheris

    with atheris.instrument_imports(include=["quire.privacy.secagg"]):
        from quire.privacy.secagg import errors, exact_sum, messages, server_session, state, transcript
else:
    from quire.privacy.secagg import errors, exact_sum, messages, server_session, state, transcript

KINDS: list[Any] = sorted(
    {
        kind.__name__: kind
        for module in (messages, state, server_session, transcript, exact_sum)
        for kind in vars(module).values()
        if hasattr(kind, "KIND")
    }.values(),
    key=lambda kind: int(kind.KIND),
)


def parse(data: bytes) -> list[Any]:
    """Hand bytes to every parser; return what came out. Anything but a refusal has to be the one encoding."""
    parsed = []
    for kind in KINDS:
        try:
            message = kind.decode(data)
        except errors.SecAggError:
            continue
        if message.encode() != data:
            raise RuntimeError(f"{kind.__name__} has two encodings")
        parsed.append(message)
    if len(parsed) > 1:
        raise RuntimeError("bytes that are two messages")
    return parsed


def campaign(arguments: list[str]) -> None:
    """Run atheris from whole messages as its corpus; ends by itself when bounded by the arguments."""
    # A limit of memory: an allocation that a length field asked for would exceed it.
    atheris.Setup([*arguments, "-rss_limit_mb=512", "-malloc_limit_mb=64", "-timeout=5"], parse_quietly)
    atheris.Fuzz()


def parse_quietly(data: bytes) -> None:
    """Aim half of the inputs at one parser each: the first bytes of a message are hard to guess."""
    parse(data)
    if data:
        kind = KINDS[data[0] % len(KINDS)]
        parse(b"QSQ" + bytes((1, kind.KIND)) + data[1:])


if __name__ == "__main__":
    campaign(sys.argv)
