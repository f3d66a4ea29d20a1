"""The bundle that ``runtime=flower`` submits: a copy of the code that runs here, laid out as Flower wants an app.

In a checkout the rooms lie side by side, installed they lie inside ``quire``, and there is no ``pyproject.toml``.
The copy has the checkout's layout in both cases, so that one and the same bundle is built.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import quire
from quire.conf.schema import Settings

_ROOMS = ("charter", "conf", "clients", "privacy", "strategies", "simulation", "transparency")
#: Installed beside them, and not shipped: it is for operators.
_AT_HOME = ("consortium",)
_SHIPPED = (".py", ".yaml")

#: Agrees with [tool.flwr.app] of the project's own pyproject.toml, which `flwr run .` reads. A test compares them.
_PYPROJECT = """\
[project]
name = "quire"
version = "{version}"
description = "Quire, staged for one run."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "quire"
fab-include = [
  "quire/**/*.py",
  "charter/**/*.py",
  "conf/**/*.py",
  "conf/**/*.yaml",
  "clients/**/*.py",
  "privacy/**/*.py",
  "strategies/**/*.py",
  "simulation/**/*.py",
  "transparency/**/*.py",
]

[tool.flwr.app.components]
serverapp = "quire.server_app:app"
clientapp = "quire.client_app:app"

[tool.flwr.app.config]
overrides = ""
resume = ""
"""


def stage(folder: Path) -> Path:
    """Copy the code that runs here into a folder from which ``flwr run`` can build its bundle.

    Parameters
    ----------
    folder : pathlib.Path
        Made by this call; its name becomes the app's folder name.

    Returns
    -------
    pathlib.Path
        ``folder``.
    """
    folder.mkdir(parents=True)
    for room in _ROOMS:
        _copy(_root(f"quire.{room}"), folder / room)
    _copy(_root("quire"), folder / "quire", without=(*_ROOMS, *_AT_HOME))
    (folder / "pyproject.toml").write_text(_PYPROJECT.format(version=quire.__version__), encoding="utf-8")
    return folder


def run_config(settings: Settings, path: Path) -> Path:
    """Write the run config to a TOML file: inline, Flower's parser stumbles over quotes in a value.

    Returns
    -------
    pathlib.Path
        ``path``.
    """
    # A JSON string is a TOML basic string too, but for DEL, which TOML wants escaped.
    text = json.dumps(settings.overrides).replace("\x7f", "\\u007f")
    path.write_text(f"overrides = {text}\n", encoding="utf-8")
    return path


def _root(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f"the package {package} is not where quire is")
    return Path(spec.origin).resolve().parent


def _copy(source: Path, target: Path, without: tuple[str, ...] = ()) -> None:
    for path in sorted(source.rglob("*")):
        place = path.relative_to(source)
        if path.suffix in _SHIPPED and path.is_file() and place.parts[0] not in without:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / place)
