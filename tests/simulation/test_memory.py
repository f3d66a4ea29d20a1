"""Freed memory stays with the process: an array that is made anew costs no page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from quire.simulation.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def turn():
    parts = [np.ones(1_000_000) for _ in range(6)]
turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="this is about glibc")
def test_arrays_made_anew_cost_no_page_faults():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, check=True).stdout)
        for how in ("keep", "leave")
    }
    assert faults["keep"] < 500 < 5000 < faults["leave"]
