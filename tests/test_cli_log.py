"""`quire log` as its users meet it: sentences, exit codes, files."""

import json

import pytest
from command_line import command_line
from logs import SERVER, SILOS, identity, roster, written

from quire.clients.identity import SignedRoster
from quire.clients.identity.keyfile import write_public


@pytest.fixture
def quire(tmp_path, monkeypatch, capsys):
    """Call the command line beside a log, the keys and the roster; return exit status, standard and error output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    written(tmp_path / "run" / "log")
    written(tmp_path / "fork", fork_at=3)
    (tmp_path / "server.pub").write_bytes(write_public(SERVER.public, "server"))
    (tmp_path / "other.pub").write_bytes(write_public(identity("other").public, "other"))
    (tmp_path / "roster.json").write_bytes(SignedRoster(roster()).sign(identity("anna")).encode())
    (tmp_path / "unsigned.json").write_bytes(SignedRoster(roster()).encode())
    return command_line(monkeypatch, capsys)


def one_sentence(err):
    lines = err.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("quire: ") and lines[0].endswith(".")


def test_show(quire):
    for where in ("run", "run/log", "run/log/entries.jsonl"):
        status, out, err = quire("log", "show", where)
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert len(lines) == 13
        assert "begin" in lines[0]
        assert "cohort        attempt 1, silos silo-1, silo-2, silo-3" in lines[1]
        assert lines[-2].startswith("11 entries, 5 checkpoints; root ")
        assert lines[-1].endswith("countersigned by silo-1, silo-2, silo-3")
    _, out, _ = quire("log", "show", "run", "--kind", "model", "--last", "2", "--json")
    assert [(one["index"], one["kind"], one["round"]) for one in map(json.loads, out.splitlines())] == [
        (8, "model", 4),
        (10, "model", 5),
    ]


def test_verify(quire):
    status, out, err = quire("log", "verify", "run")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "Verified: 'heart/run-7', 11 entries, 5 checkpoints."
    trusted = ["--key", "server.pub", "--roster", "roster.json", "--pin", roster().hash]
    silos = [word for name in SILOS for word in ("--countersigned", name)]
    status, out, err = quire("log", "verify", "run", *trusted, *silos, "--json")
    found = json.loads(out)
    assert (status, err, found["verified"], found["wrong"]) == (0, "", True, [])
    assert found["checkpoints"][4]["countersigned"] == [*SILOS]
    assert found["kinds"] == {"begin": 1, "cohort": 5, "model": 5}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--other", "fork"], "the two part at entry 6."),
        (["--key", "other.pub"], "The log names the key"),
        (["--countersigned", "silo-1"], "name it with --roster."),
        (["--roster", "roster.json", "--countersigned", "silo-1"], "by silo-2, silo-3, not of the cohort."),
        (["--roster", "roster.json", "--countersigned", "silo-9"], "lacks the countersignature of silo-9."),
    ],
)
def test_verify_says_what_is_wrong(quire, options, words):
    status, _, err = quire("log", "verify", "run", *options)
    assert status == 1
    assert words in err
    assert err.splitlines()[-1].startswith("Does not verify: ")
    status, out, _ = quire("log", "verify", "run", *options, "--json")
    assert status == 1
    assert any(words in sentence for sentence in json.loads(out)["wrong"])


def test_a_changed_log_does_not_verify(quire, tmp_path):
    path = tmp_path / "run" / "log" / "entries.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"round":2', b'"round":3'))
    status, _, err = quire("log", "verify", "run")
    assert status == 1
    assert "WRONG  The root at 5 entries is not that of the checkpoint there" in err


def test_prove(quire, tmp_path):
    status, out, err = quire("log", "prove", "run", "7", "--out", "seven.json")
    assert (status, err) == (0, "")
    assert out == "seven.json: entry 7 (cohort) is in its checkpoint at 11 entries; 4 hashes.\n"
    _, printed, _ = quire("log", "prove", "run", "7")
    assert printed.encode() == (tmp_path / "seven.json").read_bytes()
    status, out, err = quire("log", "verify", "seven.json", "--key", "server.pub")
    assert (status, err) == (0, "")
    assert "countersignatures were not checked" in out
    assert out.splitlines()[-1].startswith('Verified: entry 7 of 11 is {"body":{"attempt":1')
    status, out, _ = quire("log", "verify", "seven.json", "--key", "server.pub", "--roster", "roster.json", "--json")
    found = json.loads(out)
    assert (status, found["index"], found["entry"]["kind"], found["remarks"]) == (0, 7, "cohort", [])
    assert quire("log", "verify", "run", "--proof", "seven.json")[0] == 0
    status, _, err = quire("log", "verify", "fork", "--proof", "seven.json")
    assert status == 1
    assert "but for another log than this one." in err
    changed = (tmp_path / "seven.json").read_bytes().replace(b'"attempt":1', b'"attempt":2')
    (tmp_path / "seven.json").write_bytes(changed)
    status, _, err = quire("log", "verify", "seven.json", "--key", "server.pub")
    assert status == 1
    assert one_sentence(err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "nowhere"], "There is no log at 'nowhere'"),
        (["show", "run", "--kind", "rumour"], "choose one of begin, charter"),
        (["verify", "nowhere"], "There is no log at 'nowhere'"),
        (["verify", "run", "--pin", "ab" * 32], "name the roster with --roster"),
        (["verify", "run", "--roster", "roster.json", "--pin", "ab" * 32], "not the pinned roster"),
        (["verify", "run", "--roster", "unsigned.json"], "is signed by 0 of its own admins"),
        (["verify", "run", "--key", "nowhere.pub"], "There is no file nowhere.pub"),
        (["verify", "run", "--key", "roster.json"], "not a key file"),
        (["verify", "run", "--proof", "roster.json"], "This is not a proof"),
        (["verify", "roster.json"], "Entry 0 of roster.json is not the spelling of an entry"),
        (["prove", "run", "11"], "There is no entry 11 in a log of 11"),
        (["prove", "run", "3", "--out", "roster.json"], "exists already"),
        (["prove", "nowhere", "3"], "There is no log at 'nowhere'"),
    ],
)
def test_what_cannot_be_is_one_sentence(quire, arguments, words):
    status, _, err = quire("log", *arguments)
    assert status in (1, 2)
    assert words in err
    assert one_sentence(err) or err.splitlines()[-1].startswith("Does not verify")
