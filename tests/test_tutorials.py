"""The tutorials do what they say: their blocks are run in order, as a reader would paste them."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gated import SHIPPED
from pages import ROOT, Reader, blocks

import quire
from quire.simulation.flower_daemon import free_port


def about(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_on_the_laptop(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    printed, runs = reader.follow("tutorial-laptop.md"), reader.here / "runs"
    for run in ("first", "unlike", "faulty", "long"):
        assert about(runs / run)["status"] == "completed"
        assert (runs / run / "report.html").stat().st_size > 10_000
    assert "Report: runs/first/report.html" in printed
    assert re.search(r"^federated  0\.9\d\d$", printed, re.MULTILINE)
    assert re.search(r"^majority   0\.500$", printed, re.MULTILINE)
    assert "hospital-2" in (runs / "faulty" / "report.html").read_text(encoding="utf-8")
    assert "There is no setting 'training.rate'" in printed
    assert "exit status 2" in printed
    assert len(list((runs / "sweep").rglob("run.json"))) == 12
    assert (runs / "sweep" / "sweep.html").stat().st_size > 10_000
    lines = [json.loads(line) for line in (runs / "long" / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines].count("resume") == 1
    assert about(runs / "long")["model"] == quire.run("strategy.rounds=100", tmp_path / "whole").model


# --------------------------------------------------------------------------------- with Flower, and so for minutes
@pytest.fixture
def user(tmp_path: Path):
    """Somebody with a Flower of their own, in a checkout with the programs on the path."""
    user = runpy.run_path(str(ROOT / "tests" / "test_doors.py"))["FlowerUser"]()
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, checkout / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "quire").write_text(f'#!/bin/sh\nPYTHONPATH="{checkout}" exec "{sys.executable}" -m quire "$@"\n')
    (programs / "quire").chmod(0o755)
    user.checkout = checkout
    user.variables["PATH"] = f"{programs}{os.pathsep}{user.variables['PATH']}"
    yield user
    user.close()


def pasted(user, script: str) -> str:
    """Paste a page into one shell."""
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=user.checkout,
        env=user.variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def script_of(page: str) -> str:
    return "".join(text for language, _, text in blocks(page) if language == "sh")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_flwr_run(user) -> None:
    printed = pasted(user, script_of("tutorial-flower.md"))
    (folder,) = (user.flwr_home / "quire-runs").iterdir()
    assert f"Results are in {folder}" in printed
    assert '"status": "completed"' in printed
    assert (folder / "report.html").stat().st_size > 10_000
    driven = about(user.checkout / "runs" / "flower")
    assert (driven["status"], driven["model"]) == ("completed", about(folder)["model"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_a_superlink(user, tmp_path: Path) -> None:
    script = script_of("tutorial-superlink.md").replace("8000", str(free_port()))
    script = script.replace("$((9100 + place))", f"$(({free_port()} + place))")
    script = script.replace("$(mktemp -d)", str(user.home / "page")).replace(
        "export", f"mkdir {user.home}/page; export", 1
    )
    printed = pasted(user, script)
    logs = "".join(path.read_text() for path in (user.home / "page").glob("*.log"))
    assert '"status": "completed"' in printed, printed + logs
    inline = quire.run("partition.silos=3 strategy.rounds=2", tmp_path / "inline").model
    assert about(user.checkout / "runs" / "superlink")["model"] == inline
