"""docs/model-releases.md does what it says: its blocks are run in order, as a reader would paste them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import ROOT, Reader
from typer.testing import CliRunner

from quire.cli import app
from quire.releases.envelope import MAGIC
from quire.releases.header import MAX_PAYLOAD
from quire.releases.recipients import SEALED_SIZE
from quire.releases.watermark import BITS, THRESHOLD, WEIGHTS_PER_BIT, Found

PAGE = "model-releases.md"
TEXT = (ROOT / "docs" / PAGE).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    here, printed = reader.here, reader.follow(PAGE)
    assert (here / "berlin-1" / "model.safetensors").stat().st_size > 10_000
    assert not (here / "basel-1").exists()
    assert not (here / "berlin-2").exists()
    for words in re.findall(r"^quire: (?:The envelope is not|digits version|The registry was).*$", TEXT, re.MULTILINE):
        assert re.sub(r"[0-9a-f]{16}", "", words) in re.sub(r"[0-9a-f]{16}", "", printed)
    assert "64 of 64 bits match; without the mark with probability 5.4e-20" in printed
    assert printed.count("exit status 1") == 4


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert f"{SEALED_SIZE} bytes, HPKE" in TEXT
    assert MAX_PAYLOAD == 2**30
    assert "at most 1 GiB" in TEXT
    assert f'"{MAGIC.decode().strip()}' in TEXT
    assert f"{BITS} secret bits" in TEXT
    assert f"fewer than {BITS * WEIGHTS_PER_BIT} weights" in TEXT
    least = min(count for count in range(BITS + 1) if Found(count, BITS).holds)
    assert f"below a probability of 1e-9, which is {least} of {BITS} bits" in TEXT
    assert THRESHOLD == 1e-9


def test_every_command_of_the_page_is_one() -> None:
    commands = set(re.findall(r"quire (model (?:key |watermark )?\w+)", TEXT))
    assert {"model release", "model open", "model revoke", "model rollback", "model watermark verify"} <= commands
    for command in commands:
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0, command
