"""A self-test of the noise on a SuperLink with three SuperNodes: by `flwr run`, judged from what its server left."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import command_line
from hospitals import SILOS, Hospitals
from secure_silos import overrides_of

from quire.strategies.folder import read_about
from quire.strategies.selftest import FINDINGS_FILE

pytestmark = pytest.mark.slow
POLICY = (
    "modes: [record_distributed], aggregation: [secure], code: [], min_cohort: 2, colluders: 0, epsilon: 4, "
    "delta: 1.0e-4"
)
TEST = (
    "privacy=record_distributed privacy.epsilon=8 privacy.records=300 privacy.largest=100 privacy.selftest=2 "
    "strategy.fraction_evaluate=0 runtime.join_timeout=300"
)


@pytest.mark.timeout(1800)
def test_a_superlink_tests_the_noise_of_its_silos_and_charges_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hospitals = Hospitals(tmp_path, POLICY)
    try:
        hospitals.start()
        hospitals.submit(overrides_of(SILOS, 40, TEST))
        hospitals.wait(lambda: (hospitals.run / "run.json").exists(), 800.0)
        hospitals.wait(lambda: read_about(hospitals.run)["status"] != "running", 800.0)
        about = read_about(hospitals.run)
        assert (about["status"], about["error"]) == ("completed", None), hospitals.logs()
        assert (about["runtime"], about["selftest"], about["rounds"]) == ("deployment", True, 2)
        assert "The noise is as promised" in (hospitals.run / FINDINGS_FILE).read_text()
        for file in hospitals.files.values():  # whose policy would not let the run itself in: 8 is more than 4
            (ledger,) = (file.parent / "store" / "ledger").iterdir()
            assert '"kind":"charge"' not in ledger.read_text()
    finally:
        hospitals.close()
    status, out, err = command_line(monkeypatch, capsys)("selftest", "noise", "--judge", str(hospitals.run))
    assert (status, err) == (0, "")
    assert "2 opened sums of 1055 numbers" in " ".join(out.split())
