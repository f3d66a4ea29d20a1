"""A self-test of the noise at the server: the opened sums are kept, and held against what was promised.

All silos have added their shares to nothing, by the path of a run, so that a whole sum is noise and not its probes
alone. It goes on from round to round in the state, as a checkpoint keeps it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from quire.errors import RunFailed, SettingsError
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.selftest import Selftest, selftest
from quire.strategies.card_noise import noise_in
from quire.strategies.checkpoint import replace, safetensors
from quire.strategies.distributed import SILOS, SUMS
from quire.strategies.material import read_material

LOG = logging.getLogger("quire.strategies")

#: In the run folder: the opened sums with how many silos are in each, and what they show.
SUMS_FILE, FINDINGS_FILE = "selftest.safetensors", "selftest.json"


def finish(folder: Path, memory: Mapping[str, np.ndarray]) -> Selftest:
    """Write the opened sums and what they show into the run folder, and log the verdict.

    Raises
    ------
    RunFailed
        If no sum was opened.
    """
    if SUMS not in memory:
        raise RunFailed("The self-test failed: no sum was opened, so there is no noise to look at.")
    replace(folder / SUMS_FILE, safetensors({name: memory[name] for name in (SUMS, SILOS)}))
    found = judge(folder)
    replace(folder / FINDINGS_FILE, json.dumps(as_dict(found), indent=1, allow_nan=False).encode() + b"\n")
    (LOG.info if found.passed else LOG.warning)("%s", found.verdict())
    return found


def judge(folder: Path) -> Selftest:
    """Hold the sums in a run folder against the noise that its journal says was agreed.

    Raises
    ------
    SettingsError
        If the folder holds no self-test that came to its end, or what it holds cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / SUMS_FILE
    if not path.is_file():
        raise SettingsError(
            f"'{folder}' is not the folder of a self-test that came to its end: it holds no {SUMS_FILE}; "
            "run one with privacy.selftest=3, or by `quire selftest noise`."
        )
    try:
        told = noise_in(read_material(folder).start)
        arrays = load_file(path)
        sums, silos = arrays[SUMS], arrays[SILOS]
        if told is None or sums.ndim != 2 or silos.shape != (len(sums),) or sums.shape[1] != told[1].length:
            raise ValueError("sums and journal do not go together")
        variances = [int(count) * told[1].noise_variance for count in silos]
        return selftest(list(sums.astype(np.int64)), variances)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, PrivacyError) as error:
        raise SettingsError(f"The self-test in '{folder}' cannot be read ({str(error).rstrip('.')}).") from error


def as_dict(found: Selftest) -> dict[str, Any]:
    """Return what a self-test found for a JSON file."""
    return {
        "passed": found.passed,
        "verdict": found.verdict(),
        "rounds": found.rounds,
        "length": found.length,
        "questions": [{**asdict(question), "alarm": question.alarm} for question in found.questions],
    }
