"""One import name in three shapes: the checkout, the installed wheel, and the bundle that Flower ships."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

ROOT = Path(__file__).resolve().parent.parent
# What is in Flower's bundle.
SHIPPED = ("charter", "conf", "clients", "strategies", "privacy", "transparency", "simulation", "quire")
ROOMS = (*SHIPPED, "consortium", "dashboard", "catalog", "reports", "releases", "enclave")


def run_python(code: str, *path: Path, cwd: Path) -> str:
    """Run code in a fresh interpreter with these folders first on its path; return what it printed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def room_files(*suffixes: str, rooms: tuple[str, ...] = ROOMS) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for room in rooms
        for path in (ROOT / room).rglob("*")
        if path.suffix in suffixes and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def source_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without .gitignore: nothing but the project's own lists keeps files out."""
    copy = tmp_path_factory.mktemp("source") / "quire"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    for planted in (
        "runs/x/settings.yaml",
        "runs/x/code.py",
        "multirun/0/a.yaml",
        "tests/test_a.py",
        "tests/helper.py",
    ):
        (copy / planted).parent.mkdir(parents=True, exist_ok=True)
        (copy / planted).write_text("# planted\n", encoding="utf-8")
    return copy


@pytest.fixture(scope="module")
def wheel(source_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unzipped as pip would lay it out."""
    built, unzipped = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site-packages")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolation, "-w", str(built), "."]
    done = subprocess.run(command, cwd=source_tree, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = built.glob("quire-*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(unzipped)
    return unzipped


@pytest.fixture(scope="module")
def bundle(source_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Flower App Bundle, unzipped as a SuperNode would."""
    folder = tmp_path_factory.mktemp("fab")
    (folder / "app.fab").write_bytes(build_fab_from_disk(source_tree))
    with zipfile.ZipFile(folder / "app.fab") as archive:
        archive.extractall(folder / "app")
    return folder / "app"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A Flower app of somebody else's, with packages named like our rooms."""
    for package in ("strategies", "clients", "conf"):
        (tmp_path / "app" / package).mkdir(parents=True)
        (tmp_path / "app" / package / "__init__.py").write_text(f"OWNER = 'foreign {package}'\n", encoding="utf-8")
    (tmp_path / "app" / "strategies" / "fedprox.py").write_text("class FedProx: ...\n", encoding="utf-8")
    return tmp_path / "app"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_holds_one_package_and_all_of_it(wheel: Path) -> None:
    (metadata,) = wheel.glob("quire-*.dist-info")
    assert {path.name for path in wheel.iterdir()} == {"quire", metadata.name}
    expected = {name if name.startswith("quire/") else f"quire/{name}" for name in room_files(".py", ".yaml")}
    assert {name for name in names(wheel) if name.endswith((".py", ".yaml"))} == expected
    assert {"quire/strategies/__init__.py", "quire/conf/config.yaml"} <= names(wheel)
    templates = {path.name for path in (ROOT / "simulation" / "templates").glob("*")}
    assert templates == {path.name for path in (wheel / "quire" / "simulation" / "templates").glob("*")}
    assert (wheel / "quire" / "enclave" / "templates" / "silo.manifest.jinja").is_file()
    assert (wheel / "quire" / "enclave" / "profiles" / "sgx.yaml").is_file()
    assert list(metadata.rglob("LICENSE"))
    assert "quire = quire.cli:main" in (metadata / "entry_points.txt").read_text(encoding="utf-8")


def test_the_bundle_holds_the_rooms_and_nothing_else(bundle: Path) -> None:
    shipped = names(bundle)
    assert room_files(".py", ".yaml", rooms=SHIPPED) <= shipped
    outside = {name for name in shipped if name.split("/")[0] not in {*SHIPPED, "pyproject.toml", "LICENSE", ".info"}}
    assert not outside


@pytest.mark.parametrize("shape", ["checkout", "wheel", "bundle"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_quire_lives_beside_a_foreign_app(
    shape: str, ours_first: bool, foreign: Path, request: pytest.FixtureRequest
) -> None:
    place: Path = ROOT if shape == "checkout" else request.getfixturevalue(shape)
    lines = ["from quire import FedAvg, FedProx", "import strategies, clients, conf, strategies.fedprox"]
    code = "\n".join(
        [
            *(lines if ours_first else reversed(lines)),
            "import quire",
            "print(quire.__file__)",
            "print(strategies.OWNER, clients.OWNER, conf.OWNER, sep=', ')",
            "print(strategies.fedprox.FedProx.__module__, FedProx.__module__, FedAvg.__module__)",
        ]
    )
    origin, owners, classes = run_python(code, foreign, place, cwd=foreign).splitlines()
    assert Path(origin).resolve().parent == (place / "quire").resolve()
    assert owners == "foreign strategies, foreign clients, foreign conf"
    assert classes == "strategies.fedprox quire.strategies.fedprox quire.strategies.fedavg"


@pytest.mark.parametrize("shape", ["checkout", "wheel", "bundle"])
def test_settings_compose_wherever_quire_lives(shape: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place: Path = ROOT if shape == "checkout" else request.getfixturevalue(shape)
    code = "import quire; print(quire.compose('strategy=fedprox strategy.mu=0.5').strategy.mu, quire.__file__)"
    value, origin = run_python(code, place, cwd=tmp_path).split(maxsplit=1)
    assert (value, Path(origin).parent.parent) == ("0.5", place)


def test_importing_quire_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
    code = "import sys, quire; print(sorted({'torch', 'ray'} & set(sys.modules)))"
    assert run_python(code, ROOT, cwd=tmp_path) == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_asking_for_help_loads_neither_torch_nor_ray(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
sys.argv = ['quire', *{arguments!r}]
from quire.cli import main
try:
    status = main()
except SystemExit as end:
    status = end.code
print('status', status or 0)
print('loaded', sorted({{'torch', 'ray'}} & set(sys.modules)))
"""
    output = run_python(code, ROOT, cwd=tmp_path)
    assert output.splitlines()[-2:] == ["status 0", "loaded []"]


def test_flower_finds_nothing_to_rewrite_in_pyproject() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        flower = tomllib.load(file)["tool"]["flwr"]
    assert "federations" not in flower
    assert flower["app"]["config"] == {"overrides": "", "resume": ""}


def test_the_constraints_name_one_version_each() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert len(pins) == len([line for line in lines if line and not line.startswith("#")])
    assert not [version for version in pins.values() if "+" in version], "a local build tag fits one machine only"
    assert pins["flwr"].startswith("1.41.")
