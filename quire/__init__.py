"""Quire: federated learning for consortia. Many voices, and only the chorus is heard.

``quire`` is the one import name of the project, so that it lives beside any application's own
``strategies`` or ``clients`` package. In a checkout (and in the bundle that Flower ships) the rooms of the
house are folders next to this one; installed, they are folders inside it. Either way ``quire.strategies`` is
the package in the folder ``strategies/``.

The public names below are imported on first use: ``import quire`` costs no torch and no Ray.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_HERE = Path(__file__).resolve().parent
if not (_HERE / "strategies").is_dir():
    __path__.append(str(_HERE.parent))

_PUBLIC = {
    "FedAdagrad": "quire.strategies.fedopt",
    "FedAdam": "quire.strategies.fedopt",
    "FedAvg": "quire.strategies.fedavg",
    "FedAvgM": "quire.strategies.fedopt",
    "FedNova": "quire.strategies.fednova",
    "FedProx": "quire.strategies.fedprox",
    "FedYogi": "quire.strategies.fedopt",
    "QuireError": "quire.errors",
    "QFedAvg": "quire.strategies.qfedavg",
    "Scaffold": "quire.strategies.scaffold",
    "Settings": "quire.conf.schema",
    "compose": "quire.conf.compose",
    "run": "quire.simulation.inline",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'quire' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
