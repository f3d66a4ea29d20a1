"""Runs a command of Python's and writes down what it opened: ``python -P traced.py OUT -m MODULE ARGUMENTS``.

Started by its path, with the environment that the enclave will have, and imports nothing of ours: what it needs itself
is in the list as well. Python's audit hook (PEP 578) sees every file that Python opens; libraries that other libraries
load are in the process's memory map at the end; modules name their own files.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from typing import Any

_OPENED: set[str] = set()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open":
        return
    path, _, flags = arguments
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if isinstance(path, str) and isinstance(flags, int) and flags & os.O_ACCMODE == os.O_RDONLY:
        _OPENED.add(os.path.abspath(path))


def _mapped() -> set[str]:
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
        parts = (line.rstrip("\n").split(maxsplit=5) for line in file)
        return {part[5] for part in parts if len(part) == 6 and part[5].startswith("/")}


def _modules() -> set[str]:
    found: set[str] = set()
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        for name in (getattr(module, "__file__", None), getattr(spec, "origin", None)):
            if isinstance(name, str) and os.path.isabs(name):
                found.add(name)
    return found


def _main() -> None:
    out, *command = sys.argv[1:]
    sys.addaudithook(_hook)
    status = 0
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    opened = set(_OPENED)
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"opened": sorted(opened), "mapped": sorted(_mapped()), "modules": sorted(_modules())}, file)
    raise SystemExit(status)


if __name__ == "__main__":
    _main()
