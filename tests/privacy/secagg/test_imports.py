"""A stage may start a fresh process: what it imports is what it costs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {"torch", "flwr", "hydra", "scipy", "pandas", "sklearn", "dp_accounting"}


@pytest.mark.parametrize("module", ["client_round", "server_round", "fixedpoint"])
def test_a_stage_imports_nothing_heavy(module):
    script = f"import sys, quire.privacy.secagg.{module}; print(*sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert not HEAVY & set(done.stdout.split())
