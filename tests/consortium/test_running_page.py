"""What the page on running a consortium and the examples tell people to type exists; its limits are the code's own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer
import yaml

from quire.cli import app
from quire.clients.contract import Code
from quire.consortium import logs, metrics, proxy, superlink, supervise

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "running-a-consortium.md").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "docs" / "consortium-security.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "consortium" / "examples"


def commands() -> list[list[str]]:
    """Every command line of ours in the page and in the examples, as words after ``quire``."""
    fenced = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = [line for block in fenced for line in block.splitlines() if line.startswith("quire ")]
    lines += re.findall(r"`(quire [a-z][^`]*)`", RUNBOOK + SECURITY)
    for unit in EXAMPLES.glob("*.service"):
        lines += [line.partition("=")[2] for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
    found = [shlex.split(line, comments=True)[1:] for line in lines]
    services = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())["services"]
    return found + [service["command"][1:] for service in services.values()]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_command_exists_with_its_options(words: list[str]) -> None:
    command: click.Command = typer.main.get_command(app)
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) >= 9
    for name in ("superlink start", "silo start", "submit", "runs", "app approve"):
        assert any(" ".join(words).startswith(name) for words in commands())


@pytest.mark.parametrize(
    "words",
    [
        f"{proxy.MOST_REQUESTS:,} in 10 seconds",
        f"| {proxy.MOST_CONNECTIONS} at a time |",
        f"| {proxy.MOST_HANDSHAKES} in 10 seconds |",
        f"| {proxy.MOST_OPEN} at a time |",
        f"| {proxy.PATIENCE} seconds |",
        f"| {proxy.MOST_AT_SUPERLINK} at a time, of all members |",
        f"`{proxy.KEY_HEADER}`",
        f"| {proxy.MOST_BODY // 2**20} MiB",
        f"the arrays of one message may have {superlink.MOST_MESSAGE // 2**20} MiB",
        f"at {logs.LOG_BYTES // 10**6} MB a log is put aside",
        f"and so on up to {supervise.MOST_BACK_OFF:.0f}",
        f"Labels are cut to {metrics.MOST_LABEL} characters, and a metric has no more than {metrics.MOST_SERIES:,}",
    ],
)
def test_the_numbers_are_those_of_the_code(words: str) -> None:
    assert words in " ".join(PAGE.split())


def test_the_runbook_knows_codes_that_there_are() -> None:
    """Of refusals at silos and of failures that the server finds."""
    table = RUNBOOK.split("## A run does not go on")[1].split("##")[0]
    named = set(
        re.findall(
            r"`([a-z]+_[a-z_]+)`", "".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))
        )
    )
    found = {code.name.lower() for code in Code} | {"other_schema", "another_member"}
    assert named <= found
    assert len(named) >= 8
    enrolment = "".join(
        (ROOT / "strategies" / name).read_text(encoding="utf-8") for name in ("enrolment.py", "members.py")
    )
    assert '"other_schema"' in enrolment
    assert '"another_member"' in enrolment
