"""docs/settings.md says what the schema says."""

from __future__ import annotations

import runpy
from pathlib import Path

from quire.conf.compose import compose
from quire.conf.schema import GROUPS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_up_to_date() -> None:
    generator = runpy.run_path(str(DOCS / "generate_settings.py"))
    assert set(generator["GROUP_WORDS"]) == set(GROUPS)
    written = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert written == generator["page"](), "run python docs/generate_settings.py"


def test_the_defaults_on_the_page_are_those_of_a_compose() -> None:
    """The generator reads the YAML files by itself: check it against Hydra, where no task interferes."""
    defaults = runpy.run_path(str(DOCS / "generate_settings.py"))["_defaults"]
    for group, option in (("strategy", "fedprox"), ("runtime", "flower"), ("output", "default"), ("data", "sklearn")):
        values = compose(f"{group}={option}").as_dict()[group]
        told = defaults(group, option)
        assert set(told) == set(values)
        assert {key for key in values if values[key] != told[key]} <= {"rounds"}
