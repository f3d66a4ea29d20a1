"""The rules of the house that a machine can check: imports, what code may not contain, what files may not name."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    *("conf", "clients", "strategies", "privacy", "charter", "transparency", "simulation", "consortium"),
    *("dashboard", "quire"),
)
MAX_LINES = 350

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
        "quire.errors",
        *STEPS,  # a silo recomputes the next model from a published sum, by the very code that the server steps with
    ),
    "strategies": (
        "quire.clients.contract",
        "quire.clients.arrays",
        "quire.clients.tasks",
        "quire.clients.code",  # the hash by which server and silos know that they run the same code
        "quire.clients.secure.agreement",  # the numbers that server and silos work out for themselves, alike
        "quire.clients.secure.noise",
        "quire.clients.secure.chain",
        "quire.clients.identity",  # the key that signs a run's transparency log
        "quire.charter",
        "quire.privacy",
        "quire.transparency",
        "quire.conf.schema",
        "quire.conf.asked",  # how many silos a round asks, and so whether they recompute its model
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
    ),
    "quire": (
        "quire.simulation",
        "quire.consortium",
        "quire.dashboard",
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
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of everything imported, wherever in the file; a name of ours as its module."""
    for node in ast.walk(tree_of(path)):
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


def test_every_room_is_there() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in sources(*ROOMS)} == set(ROOMS)


def test_rooms_import_only_what_they_may() -> None:
    front = {module_of(path) for path in sources("quire")} - {"quire"}
    wrong = []
    for path in sources(*ROOMS):
        room = path.relative_to(ROOT).parts[0]
        own = front if room == "quire" else {f"quire.{room}"}
        for line, name in imports(path):
            if not within(name, "quire") or name in NAME or within(name, *own, *ALLOWED[room]):
                continue
            if name == "quire.conf.compose" and path.name.endswith("_app.py"):
                continue
            wrong.append(f"{label(path)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_privacy_is_pure() -> None:
    wrong = [
        f"{label(path)}:{line} imports {name}"
        for path in sources("privacy")
        for line, name in imports(path)
        if name.split(".")[0] in PURE
    ]
    assert not wrong, "\n".join(wrong)


def test_how_a_model_moves_is_pure() -> None:
    """What a silo runs of the server's room: no Flower, no torch, and nothing of that room but itself."""
    own = {"quire.conf.schema", "quire.clients.contract", "quire.errors", *STEPS}
    for path in sources("strategies"):
        if module_of(path) in STEPS:
            found = {name for _, name in imports(path)}
            assert {name for name in found if within(name, "quire")} <= own, label(path)
            assert not {name.split(".")[0] for name in found} & {*PURE, "torch"}, label(path)
    init = ROOT / "strategies" / "__init__.py"
    assert list(imports(init)) == []


def test_settings_are_composed_at_the_edges_only() -> None:
    wrong = [
        f"{label(path)}:{line}"
        for path in sources(*ROOMS)
        for line, name in imports(path)
        if within(name, "quire.conf.compose")
        and path.relative_to(ROOT).parts[0] not in EDGES
        and not path.name.endswith("_app.py")
    ]
    assert not wrong, "\n".join(wrong)


def test_nobody_imports_a_room_by_its_bare_name() -> None:
    bare = set(ROOMS) - {"quire"}
    wrong = [
        f"{label(path)}:{line} imports {name}: say quire.{name}"
        for path in files()
        if path.suffix == ".py"
        for line, name in imports(path)
        if name.split(".")[0] in bare
    ]
    assert not wrong, "\n".join(wrong)


def test_no_assert_validates_anything() -> None:
    wrong = [
        f"{label(path)}:{node.lineno}"
        for path in sources(*ROOMS)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assert)
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_prints() -> None:
    wrong = [
        f"{label(path)}:{node.lineno}"
        for path in sources(*ROOMS)
        if not label(path).startswith("quire/cli")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not wrong, "\n".join(wrong)


def test_files_fit_in_the_head() -> None:
    lengths = {
        label(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files() if path.suffix == ".py"
    }
    assert not {name: length for name, length in lengths.items() if length > MAX_LINES}


def test_public_things_have_a_docstring() -> None:
    wrong = []
    for path in sources(*ROOMS):
        tree = tree_of(path)
        if not ast.get_docstring(tree):
            wrong.append(f"{label(path)}: the module")
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                wrong.append(f"{label(path)}:{node.lineno} {node.name}")
    assert not wrong, "\n".join(wrong)


def test_no_file_names_a_machine_or_a_registry() -> None:
    here = [re.escape(str(path)) for path in (ROOT, Path.home()) if len(path.parts) > 2]
    patterns = [
        r"(?<![\w.~:/-])/(?:home|Users|root|mnt)/\w+",
        r"[A-Z]:\\Users\\\w+",
        r"file:///(?:home|Users|root|mnt|opt)\b",
        r"--(?:extra-)?index-url|--find-links",
        r"https?://[^\s/]*(?:pypi|pythonhosted|artifactory|nexus|devpi|npmjs)[^\s/]*",
        *(rf"(?<![\w.]){place}(?!\w)" for place in here),
    ]
    forbidden = re.compile("|".join(patterns))
    wrong = []
    for path in files():
        if path == Path(__file__).resolve():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            wrong += [f"{label(path)}:{number} {found.group()}" for found in forbidden.finditer(line)]
    assert not wrong, "\n".join(wrong)


def test_links_in_the_documentation_lead_somewhere() -> None:
    link = re.compile(r"\]\(([^)\s]+)\)")
    wrong = []
    for path in files():
        if path.suffix != ".md":
            continue
        for target in link.findall(path.read_text(encoding="utf-8")):
            place = target.split("#")[0]
            if place and "://" not in place and not (path.parent / place).exists():
                wrong.append(f"{label(path)} -> {target}")
    assert not wrong, "\n".join(wrong)


def test_the_readme_gives_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for command in ("demo", "test"):
        assert f"make {command}\n" in readme
    assert {"demo", "test", "test-all", "lint", "types", "bench", "docs", "clean", "help"} <= targets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from quire.conf import schema", "quire.conf.schema"),
        ("def f():\n    from quire.conf.compose import compose", "quire.conf.compose"),
        ("from . import schema", "quire.conf.schema"),
        ("from .schema import Settings", "quire.conf.schema"),
        ("from ..errors import QuireError", "quire.errors"),
        ("from quire import FedAvg", "quire.FedAvg"),
        ("import quire.privacy.dp", "quire.privacy.dp"),
    ],
)
def test_the_reader_of_imports_sees_every_form(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "tree_of", lambda path: ast.parse(text))
    assert [name for _, name in imports(ROOT / "conf" / "probe.py")] == [expected]
