"""The rules of the house that a machine can check: imports, what code may not contain, what files may not name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import house
import pytest
from house import (
    ALLOWED,
    EDGES,
    NAME,
    PURE,
    ROOMS,
    ROOT,
    STEPS,
    files,
    imports,
    label,
    module_of,
    sources,
    tree_of,
    within,
)

MAX_LINES = 350


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
    assert imports(init) == ()


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
    monkeypatch.setattr(house, "tree_of", lambda path: ast.parse(text))
    assert [name for _, name in imports(ROOT / "conf" / "probe.py")] == [expected]
