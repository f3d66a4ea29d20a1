"""`quire transcript` as its users meet it: sentences, exit codes, JSON."""

import json

import pytest
from command_line import command_line
from secure_runs import ONE

from quire import run as federate


@pytest.fixture
def quire(tmp_path, monkeypatch, capsys):
    """Call the command line beside a run that kept transcripts; return exit status, standard and error output."""
    monkeypatch.chdir(tmp_path)
    federate(f"{ONE} aggregation=secure output.transcripts=true", tmp_path / "run")
    capsys.readouterr()
    return command_line(monkeypatch, capsys)


def test_verify(quire, tmp_path):
    status, out, err = quire("transcript", "verify", "run")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "round 1, attempt 1: sum over 5 of 5 silos, model recomputed  round-0001-1.bin"
    assert lines[1].startswith("Signatures: by keys made from the run's seed")
    assert "1 sums opened again, out of 5 masked vectors, and 1 models recomputed" in lines[2]
    assert lines[3] == "Verified."
    status, out, err = quire("transcript", "verify", "run", "--json")
    found = json.loads(out)
    assert (status, found["verified"], found["attempts"][0]["in_the_sum"]) == (0, True, 5)

    path = tmp_path / "run" / "transcripts" / "round-0001-1.bin"
    path.write_bytes(path.read_bytes()[:-1])
    status, out, err = quire("transcript", "verify", "run")
    assert status == 1
    assert "WRONG  Round 1, attempt 1: the transcript does not hold: The transcript ends in the middle" in err
    assert err.splitlines()[-1].startswith("Does not verify: ")
    status, out, err = quire("transcript", "verify", "run", "--json")
    assert (status, json.loads(out)["verified"]) == (1, False)

    status, out, err = quire("transcript", "verify", "nowhere")
    assert (status, out) == (2, "")
    assert err.strip() == "quire: 'nowhere' is not the folder of a run: it holds no readable run.json."
    status, out, err = quire("transcript", "verify", "run", "--pin", "00" * 32)
    assert status == 1
    assert err.count("\n") == 1
