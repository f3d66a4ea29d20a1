"""The commands of docs/fairness.md do what the page says they do."""

import json
import re
import shlex
from pathlib import Path

import pytest
from command_line import command_line

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "fairness.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


def test_the_page_has_the_commands_that_are_tested_here():
    assert [command.split()[1] for command in COMMANDS] == ["run", "run", "contribution", "contribution"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(command, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "120")
    status, out, err = command_line(monkeypatch, capsys)(*shlex.split(command)[1:])
    assert (status, err) == (0, "")
    if "contribution" in command:
        assert "site-1 " in out
        assert ("exact" in out) == ("--exact" in command)
        assert ("every silo would have to agree" in " ".join(out.split())) == ("aggregation=secure" in command)
    else:
        folder = place / re.search(r"hydra\.run\.dir=(\S+)", command)[1]
        events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        last = [event for event in events if event["event"] == "round"][-1]
        assert last["fairness"]["accuracy"]["silos"] == 5
        assert ("tuned_accuracy" in last["fairness"]) == ("tuning_epochs" in command)
        assert "How evenly it serves the sites" in (folder / "report.html").read_text()
