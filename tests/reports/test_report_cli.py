"""`quire report`: a folder gets its page as ever, `dpia` and `audit` write documents, mistakes end in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from report_runs import DAY, deployed
from typer.testing import CliRunner

from quire.cli import app, main
from quire.simulation import report as page_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return deployed(tmp_path_factory.mktemp("deployed"))


@pytest.fixture
def quire(place, monkeypatch, capsys):
    """Run the command line in the folder of the run; return its exit status and what it printed."""
    monkeypatch.chdir(place)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["quire", *map(str, arguments)])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


@pytest.mark.parametrize("arguments", [["run"], ["page", "run"], ["./run"]])
def test_a_folder_gets_its_page(quire, place, arguments):
    assert quire("report", *arguments) == (0, "Report: run/report.html\n", "")
    (place / "run" / "report.html").unlink()


def test_a_folder_that_is_called_as_a_command(quire, place, monkeypatch):
    found = []
    monkeypatch.setattr(page_of, "write_report", lambda folder: found.append(str(folder)) or folder / "report.html")
    (place / "dpia").symlink_to("run")
    assert quire("report", "./dpia")[0] == 0
    assert quire("report", "page", "dpia")[0] == 0
    assert found == ["dpia", "dpia"]
    assert quire("report", "dpia")[0] == 2  # the command, which lacks its run
    (place / "dpia").unlink()


def test_documents_go_into_the_folder_of_the_run(quire, place):
    status, out, _ = quire("report", "dpia", "run", "--date", DAY)
    assert (status, out.split(" (")[0]) == (0, "Data protection impact assessment: run/dpia.html")
    assert (place / "run" / "dpia.html").read_text().startswith("<!doctype html>")
    assert quire("report", "audit", "run")[:2] == (0, "Audit report: run/audit.html (1 run)\n")
    for name in ("dpia.html", "audit.html"):
        (place / "run" / name).unlink()


def test_the_example_of_answers_is_printed(quire):
    status, out, _ = quire("report", "dpia", "--example-details")
    assert status == 0
    assert "\ncontroller:\n" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "is not the folder of a run"),
        (["dpia"], "Name the folder of a run"),
        (["dpia", "nothing"], "There is no folder 'nothing'"),
        (["dpia", "charter"], "holds neither run.json nor settings.yaml"),
        (["dpia", "run", "--out", "x.pdf"], "has to end in .html or .md"),
        (["dpia", "run", "--out", "no/x.md"], "There is no folder 'no' for --out"),
        (["dpia", "run", "--date", "tomorrow"], "--date is a day such as 2027-01-31"),
        (["dpia", "run", "--roster", "none.json"], "There is no 'none.json', which --roster names"),
        (["dpia", "run", "--roster", "run/run.json"], "run.json"),
        (["dpia", "run", "--pin", "abc"], "--pin is the hash of a roster"),
        (["dpia", "run", "--charter", "none"], "which --charter names"),
        (["dpia", "run", "--charter", "roster.json"], "roster.json"),
        (["dpia", "run", "--charter", "run/log"], "must hold 1 to"),
        (["dpia", "run", "--details", "none.yaml"], "There is no file 'none.yaml' with answers"),
        (["dpia", "run", "--schema", "none.yaml"], "none.yaml cannot be read"),
        (["dpia", "run", "--silo", "none.yaml", "--out", "x.md"], "There is no file 'none.yaml': --silo"),
        (["dpia", "run", "--silo", "roster.json"], "say with --out where it goes"),
        (["dpia", "run", "--silo", "run/settings.yaml", "--out", "x.md"], "settings.yaml"),
        (["audit", "nothing"], "There is no folder 'nothing'"),
        (["audit", "charter"], "is no run, and holds none"),
        (["audit", "run", "--attestation", "none.json"], "There is no file 'none.json'"),
        (["audit", "run", "--attestation", "roster.json"], "no attestation of an erasure"),
    ],
)
def test_a_mistake_ends_in_one_sentence(quire, place, arguments, words):
    before = set(place.rglob("*"))
    status, out, err = quire("report", *arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert err.startswith("quire: ")
    assert err.count("\n") == 1
    assert set(place.rglob("*")) == before


@pytest.mark.parametrize("arguments", [[], ["--help"], ["dpia", "--help"], ["audit", "--help"]])
def test_help_is_there(arguments):
    done = CliRunner().invoke(app, ["report", *arguments])
    assert done.exit_code in (0, 2)
    assert "Usage:" in done.output


def test_asking_for_help_loads_neither_torch_nor_jinja():
    code = (
        "import sys; sys.argv = ['quire', 'report', 'dpia', '--help']\n"
        "from quire.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('loaded', sorted({'torch', 'ray', 'jinja2', 'quire.reports'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"
