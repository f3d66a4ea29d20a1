"""Real silos that share their noise, killed with SIGKILL wherever they write: never fewer charges than vectors."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from secure_silos import Deployment, Killed, left_silos, overrides_of, serve, warm, write_silos

from quire.clients import contract
from quire.clients.identity import load_identity
from quire.clients.secure import handlers
from quire.clients.store import Store
from quire.privacy.csprng import Csprng
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.shares import add_share
from quire.privacy.secagg.messages import Masked
from quire.simulation.verify import verify_run

SILOS, RUN = 3, 7
POLICY = (
    "modes: [record_distributed], aggregation: [secure], code: [], min_cohort: 2, colluders: 0, epsilon: 40, "
    "delta: 1.0e-4"
)
RECORD = (
    "privacy=record_distributed privacy.epsilon=8 privacy.sampling_rate=0.2 privacy.records=300 privacy.largest=100 "
    "aggregation.rekey_every=1"
)
MOMENTS: tuple[int | str, ...] = (1, 2, 3, 5, 8, 13, "reply")


def charges(file: Path, name: str) -> int:
    with Store.open(file.parent / "store", load_identity(file.parent / "silo.key")) as store:
        (path,) = (file.parent / "store" / "ledger").iterdir()
        assert store.ledger(f"breast-{int(name[-1]) - 1}")  # whole, and signed
        return path.read_text().count('"kind":"charge"')


def masked(left: Path) -> Counter[str]:
    """How many masked vectors left each silo."""
    found: Counter[str] = Counter()
    for line in left_silos(left, contract.MASK):
        try:
            Masked.decode(line["data"])
        except ValueError:
            continue
        found[line["silo"]] += 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize("stage", [contract.MASK, contract.SHARES, contract.UNMASK])
def test_a_silo_that_is_killed_has_charged_for_whatever_left_it(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = len(MOMENTS) + 1
    overrides = overrides_of(SILOS, rounds, RECORD)
    warm(overrides_of(SILOS, 1))
    files, left = write_silos(tmp_path / "silos", SILOS, POLICY), tmp_path / "left"
    grid, noted = Deployment(files, RUN, overrides, left), tmp_path / "noisy"

    def watched(encoding: Encoding, plain: np.ndarray, source: Csprng) -> np.ndarray:
        with noted.open("a") as file:  # masks differ always: what must not come twice is what lies under the noise
            file.write(f"{hashlib.sha256(plain.tobytes()).hexdigest()}\n")
        return add_share(encoding, plain, source)

    monkeypatch.setattr(handlers, "add_share", watched)
    for number, moment in enumerate(MOMENTS, start=1):
        grid.kills[stage, str(number), f"hospital-{number % SILOS + 1}"] = Killed(moment)
    seen = serve(grid, RUN, tmp_path / "run", tmp_path / "silos" / "roster.json", overrides)
    assert len(seen) == rounds
    assert len(grid.died) >= 4  # a handler may be through before the last of the moments
    sent = masked(left)
    for name, file in files.items():
        assert sent[name] <= charges(file, name) <= rounds + 1
    vectors = noted.read_text().split()
    assert len(vectors) >= sum(sent.values())
    assert len(set(vectors)) == len(vectors)
    assert verify_run(tmp_path / "run").wrong == []
