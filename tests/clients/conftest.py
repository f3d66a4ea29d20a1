"""Small silos on disk: a schema, a silo's file, and rows to read."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from quire.clients.data.own import load
from quire.clients.data.preprocess import Loaded
from quire.clients.data.silo_file import SiloFile, read_silo
from quire.conf.compose import compose

SCHEMA = """
columns:
  age: {low: 0, high: 100}
  chol: {low: 100, high: 500, missing: true, impute: 200}
  pain: {categories: [none, some]}
target: {name: sick, kind: classification, classes: [0, 1]}
"""
ROWS = "age,chol,pain,sick\n" + "".join(
    f"{20 + i},{150 + 10 * i},{('none', 'some')[i % 2]},{i % 2}\n" for i in range(12)
)


class Home:
    """A silo's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("schema.yaml", SCHEMA)
        self.write("rows.csv", ROWS)
        self.silo("{connector: csv, path: rows.csv}")

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    def silo(self, data: str, more: str = "") -> Path:
        return self.write("silo.yaml", f"name: home\ndata: {data}\n{more}")

    def read(self) -> SiloFile:
        return read_silo(self.folder / "silo.yaml")

    def load(self, overrides: str = "") -> Loaded:
        settings = compose(f"task={'images' if self.read().schema.image else 'tabular'} {overrides}")
        return load(settings, self.read(), "home")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A silo with twelve rows of CSV."""
    return Home(tmp_path)
