"""What approved code sees of the gate's environment: what is on the list, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.clients.gate.launch import gate_environment
from quire.clients.gate.mark import MARK_VARIABLE, guarded
from quire.clients.gate.scrub import PASSED, PASSPHRASE_FILE, ScrubError, scrubbed
from quire.clients.identity.passphrase import VARIABLE

HOME = Path("somewhere")
SET = {"PATH", "HOME", "TMPDIR", "FLWR_HOME", "FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK"}


@given(st.dictionaries(st.sampled_from(["QUIRE_GATE", "HOME", "AWS_KEY", "LANG", "PYTHONPATH"]) | st.text(), st.text()))
def test_nothing_passes_that_is_not_on_the_list(variables: dict[str, str]) -> None:
    found = scrubbed(variables, HOME)
    passed = found.keys() - SET
    assert all(name in PASSED or name.startswith("LC_") for name in passed)
    assert all(found[name] == variables[name] for name in passed)
    assert (found["HOME"], found["TMPDIR"]) == (str(HOME), str(HOME))


def test_of_our_own_variables_only_the_place_of_the_passphrase_passes(tmp_path: Path) -> None:
    """Whatever of ours a gate's environment holds; the passphrase itself only where the operator says so."""
    names = ("SILOS", "ROSTER", "SCHEMA", "PLUGINS", "RUN_DIR", "RESUME", "PASSPHRASE", "PASSPHRASE_FILE", "NEW")
    ours = {f"QUIRE_{name}": "words" for name in names}
    gate = gate_environment(ours, Path("silo.yaml"), [], tmp_path)
    assert {name for name in gate if name.startswith("QUIRE_")} == {"QUIRE_PASSPHRASE_FILE", "QUIRE_GATE"}
    found = scrubbed(gate, HOME)
    assert {name for name in found if name.startswith("QUIRE_")} == {"QUIRE_PASSPHRASE_FILE"}
    assert Path(found["QUIRE_PASSPHRASE_FILE"]) == Path.cwd() / "words"  # approved code works in another folder
    named = ["QUIRE_PASSPHRASE"]
    also = scrubbed(gate_environment(ours, Path("silo.yaml"), named, tmp_path), HOME, named)
    assert also["QUIRE_PASSPHRASE"] == "words"
    assert VARIABLE == PASSPHRASE_FILE


def test_the_operator_hands_on_what_a_connector_needs() -> None:
    found = scrubbed(
        {"DB_PASSWORD": "x", "OTHER": "y", "LC_ALL": "C", "OMP_NUM_THREADS": "2"}, HOME, ["DB_PASSWORD", "NO"]
    )
    assert found.keys() - SET == {"DB_PASSWORD", "LC_ALL", "OMP_NUM_THREADS"}


@pytest.mark.parametrize(
    "name", ["", "a b", "a=b", "ü", "LD_PRELOAD", "PYTHONPATH", "QUIRE_GATE", "QUIRE_GUARDED", "PATH", "FLWR_HOME"]
)
def test_what_would_undo_the_gate_is_not_handed_on(name: str) -> None:
    with pytest.raises(ScrubError):
        scrubbed({name: "x"}, HOME, [name])


def test_code_can_tell_whether_a_gate_let_it_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MARK_VARIABLE, raising=False)
    assert not guarded()
    monkeypatch.setenv(MARK_VARIABLE, "a" * 64)
    assert guarded()
