"""docs/poisoning.md: its commands compose, and it names every attack, setting and word of a journal."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from quire.conf.attack_schema import ATTACKS, SUSPICIONS
from quire.conf.compose import compose
from quire.simulation.poisoning import OUTCOME_FILE

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "poisoning.md").read_text(encoding="utf-8")


def test_the_commands_are_attacks_or_suspicion():
    commands = re.findall(r"^quire run (.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        settings = compose(command)
        assert settings.attack.name != "none"
        assert f"attack={settings.attack.name}" in command


def test_every_attack_and_every_suspicion_has_its_words():
    for name in set(ATTACKS) - {"none"}:
        assert f"| `{name}` |" in PAGE
    for name in set(SUSPICIONS) - {"none"}:
        assert f"suspicion={name}" in PAGE


def test_every_setting_is_named():
    for cls in (*ATTACKS.values(), *SUSPICIONS.values()):
        for field in dataclasses.fields(cls):
            assert field.name == "name" or re.search(
                rf"[`.=]{field.name}\b|\*\*{field.name}\*\*|\b{field.name}\b", PAGE
            ), field.name
    assert f"`{OUTCOME_FILE}`" in PAGE
