"""Which rooms the house has, what each may import, and how its files are read for that."""

from __future__ import annotations

import ast
import gc
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = (
    *("conf", "clients", "strategies", "privacy", "charter", "transparency", "simulation", "consortium"),
    *("dashboard", "catalog", "reports", "releases", "enclave", "quire"),
)
# How a model moves, in pure functions: all that a silo may import of the server's room.
STEPS = (
    "quire.strategies.rounds",
    "quire.strategies.algorithms",
    "quire.strategies.server_optimizers",
    "quire.strategies.chosen",
)

# What a room may import of ours besides itself. A name stands for the module and all below it.
ALLOWED = {
    "privacy": (),
    "conf": ("quire.errors",),
    "charter": (
        "quire.privacy.identity",  # keys, signatures, and JSON with one spelling
        "quire.conf.schema",  # the names of modes and tasks
        "quire.conf.strict_yaml",
        "quire.errors",
    ),
    "transparency": (
        "quire.privacy.identity",  # keys, signatures, rosters, and JSON with one spelling
        "quire.clients.store.appended",
        "quire.clients.store.files",  # files that survive a power cut
        "quire.errors",
    ),
    "clients": (
        "quire.privacy",
        "quire.transparency",  # a silo checks the log that it is shown
        "quire.charter",  # and holds every message against the charter that its members signed
        "quire.conf.schema",
        "quire.conf.strict_yaml",
        "quire.conf.numbers",
        "quire.conf.asked",
        "quire.conf.device",
        "quire.errors",
        *STEPS,  # a silo recomputes the next model from a published sum, by the very code that the server steps with
    ),
    "strategies": (
        "quire.clients.contract",
        "quire.clients.arrays",
        "quire.clients.compression",  # updates as silos send them
        "quire.clients.tasks",
        "quire.clients.code",  # the hash by which server and silos know that they run the same code
        "quire.clients.secure.agreement",  # the numbers that server and silos work out for themselves, alike
        "quire.clients.secure.terms",
        "quire.clients.secure.noise",
        "quire.clients.secure.chain",
        "quire.clients.gate.mark",  # the words for an enclave in which a silo runs
        "quire.clients.identity",  # the key that signs a run's transparency log
        "quire.charter",
        "quire.privacy",
        "quire.transparency",
        "quire.conf.schema",
        "quire.conf.robust_schema",
        "quire.conf.attack_schema",
        "quire.conf.attack_rules",  # with how few silos nothing is said about any
        "quire.conf.asked",  # how many silos a round asks, and so whether they recompute its model
        "quire.conf.strict_yaml",  # the settings of a run folder, which others may have written
        "quire.errors",
    ),
    "simulation": (
        "quire.strategies",
        "quire.clients",
        "quire.privacy",
        "quire.charter",
        "quire.transparency",
        "quire.conf",
        "quire.errors",
    ),
    "consortium": (
        "quire.simulation",  # how Flower's programs are started, and how an app is packed
        "quire.strategies",
        "quire.clients",
        "quire.privacy",
        "quire.charter",
        "quire.transparency",
        "quire.conf",
        "quire.errors",
    ),
    "dashboard": (  # it reads what others wrote, and nobody but the command line knows of it
        "quire.clients.contract",  # the fixed words of codes
        "quire.clients.data.consent",
        "quire.clients.data.silo_file",
        "quire.clients.identity",
        "quire.clients.policy.model",
        "quire.clients.store",
        "quire.consortium",
        "quire.privacy",
        "quire.simulation",  # the report's look and figures
        "quire.transparency",
        "quire.errors",
        "quire.text",
    ),
    "catalog": (  # what a silo offers to partners, made of its own file and rows, and read by people who know neither
        "quire.clients.contract",
        "quire.clients.data",
        "quire.clients.identity",
        "quire.clients.policy.model",
        "quire.clients.store",
        "quire.clients.tasks",
        "quire.privacy",
        "quire.conf.schema",
        "quire.conf.strict_yaml",
        "quire.errors",
        "quire.text",
    ),
    "reports": (  # documents for a data protection officer, filled from what others wrote
        "quire.clients",
        "quire.charter",
        "quire.consortium",
        "quire.privacy",
        "quire.simulation",
        "quire.strategies",
        "quire.transparency",
        "quire.conf.schema",  # what a server sees by a rule's name
        "quire.conf.asked",  # and whether a simulation took the short cut
        "quire.conf.strict_yaml",  # the answers that people give, and the settings of a run folder
        "quire.errors",
        "quire.text",
    ),
    "releases": (  # models as signed and encrypted envelopes, and what became of each version
        "quire.clients",
        "quire.charter",
        "quire.privacy",
        "quire.simulation",
        "quire.strategies",
        "quire.transparency",
        "quire.conf.schema",
        "quire.errors",
        "quire.text",
    ),
    "enclave": (  # what runs a silo inside an enclave, and what verifies that one does
        "quire.clients",  # a silo of a federation, inside
        "quire.charter",  # which may ask for enclaves
        "quire.privacy",
        "quire.simulation.inline",  # a rehearsal inside, in one process
        "quire.conf.strict_yaml",
        "quire.errors",
        "quire.text",
    ),
    "quire": (
        "quire.simulation",
        "quire.consortium",
        "quire.dashboard",
        "quire.catalog",
        "quire.reports",
        "quire.releases",
        "quire.enclave",
        "quire.strategies",
        "quire.clients",
        "quire.charter",
        "quire.transparency",
        "quire.conf",
        "quire.errors",
    ),
}
NAME = ("quire", "quire.__version__")  # the bare name, for its version: no room behind it
PURE = {"flwr", "hydra", "omegaconf"}  # what privacy/, the mathematics, does without
EDGES = ("conf", "simulation", "quire")  # with the modules *_app.py: they alone compose settings


@cache
def files() -> tuple[Path, ...]:
    """Every file that is, or is about to be, under version control."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return tuple(sorted(ROOT / name for name in listed if name and (ROOT / name).is_file()))


def sources(*folders: str) -> list[Path]:
    return [path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """Return the import name of a file of ours: strategies/fedavg.py is quire.strategies.fedavg."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts if parts[0] == "quire" else ["quire", *parts])


@cache
def modules() -> frozenset[str]:
    return frozenset(module_of(path) for path in sources(*ROOMS))


@cache
def tree_of(path: Path) -> ast.Module:
    gc.disable()  # all trees are kept: to look through them for garbage again and again takes longer than to read files
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    finally:
        gc.freeze()
        gc.enable()


def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """Return line and full name of everything imported, wherever in the file; a name of ours as its module."""
    return _imports(path, tree_of(path))


@cache
def _imports(path: Path, tree: ast.Module) -> tuple[tuple[int, str], ...]:
    return tuple(_imported(path, tree))


def _imported(path: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module_of(path).split(".")
                package = package if path.name == "__init__.py" else package[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield node.lineno, name if name in modules() or base == "quire" else base


def within(name: str, *roots: str) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)
