"""A SuperNode whose silo adds what no honest one adds: its own Python is changed as it starts, the shipped code is not.

The operator of a silo owns its machine. Here that is a ``sitecustomize`` on the path of one SuperNode, which every
process that answers a message for it imports; the hash of the code, the keys, the policy and the masks are as they
should be.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

WHERE = "quire.clients.secure.handlers"


def variables(folder: Path, silo: str, *rounds: int) -> dict[str, str]:
    """Write what changes a process, and return the environment of one that it changes.

    Parameters
    ----------
    folder : pathlib.Path
        A new one.
    silo : str
        Whose vector is another.
    rounds : int
        In which.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"import sys\nsys.path.append({str(Path(__file__).parent)!r})\n"
        f"import cheat\nsys.meta_path.insert(0, cheat.Change({silo!r}, {rounds!r}))\n"
    )
    return {"PYTHONPATH": str(folder)}


class Change:
    """Waits until the app's own code is imported, and has it add something else."""

    def __init__(self, silo: str, rounds: tuple[int, ...]) -> None:
        self.silo, self.rounds = silo, rounds

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find that one module as everybody would, and change it once it is there."""
        if name != WHERE:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            from giant_silos import adds, giant  # it imports what was just imported

            adds(SimpleNamespace(setattr=setattr), self.silo, giant, self.rounds)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec
