"""``quire model`` as releasers and recipients meet it."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from command_line import Call, command_line
from private_runs import Consortium, write_run

from quire.clients.identity import files


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    write_run(place / "run", Consortium(), rounds=4)
    files.create(place / "roster.json", Consortium().signed.encode(), files.EVERYBODY)
    return place


@pytest.fixture
def place(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(original, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def quire(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    call = command_line(monkeypatch, capsys)
    for name in ("server.key", "other.key"):
        good(call("identity", "new", name))
    for name in ("berlin", "basel"):
        good(call("model", "key", "new", name))
    return call


def good(result: tuple[int, str, str]) -> str:
    assert (result[0], result[2]) == (0, ""), result
    return result[1]


def mistake(result: tuple[int, str, str], status: int) -> str:
    """Return the one sentence that a refusal ends with."""
    assert (result[0], result[1]) == (status, ""), result
    assert result[2].startswith("quire: ")
    assert result[2].endswith(".\n")
    assert result[2].count("\n") == 1
    return result[2]


def release(quire: Call, *more: str) -> tuple[int, str, str]:
    told = ("--name", "heart", "--registry", "reg", "--to", "berlin.recipient.pub", "--identity", "server.key")
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 10**7))
    return quire("model", "release", "run", *told, "--purpose", "Research.", "--expires", day, *more)


def test_from_release_to_revocation(quire: Call, place: Path) -> None:
    said = good(release(quire, "--roster", "roster.json"))
    assert "as you named it" in said
    pin = re.search(r"Releaser ([0-9a-f]{64})", said)[1]  # type: ignore[index]
    good(release(quire))
    opening = ("--key", "berlin.recipient", "--registry", "reg")

    def opened(number: int, out: str, *more: str) -> tuple[int, str, str]:
        return quire("model", "open", f"reg/envelopes/heart-{number}.envelope", *opening, "--out", out, *more)

    assert "--pin" in mistake(opened(2, "a"), 1)
    assert "as pinned" in good(opened(2, "a", "--pin", pin))
    assert sorted(path.name for path in (place / "a").iterdir()) == [
        *("model.safetensors", "privacy_card.json", "release.json", "run.json", "settings.yaml")
    ]
    assert "exists already" in mistake(opened(2, "a"), 2)
    good(quire("model", "rollback", "reg", "heart", "--to", "1", "--why", "wrong units", "--identity", "server.key"))
    assert "rolled back to: wrong units" in mistake(opened(2, "b"), 1)
    assert "not the current one" in good(opened(2, "b", "--version", "2"))
    assert re.search(r"heart 1 +current .*\nheart 2 +not current ", good(quire("model", "list", "reg")))
    shown = good(quire("model", "show", "reg", "heart"))
    assert "rolled back to: wrong units" in shown
    assert "Research." in shown
    said = good(quire("model", "revoke", "reg", "heart", "1", "--why", "a silo left", "--identity", "server.key"))
    assert "no current version" in said
    assert "revoked: a silo left" in mistake(opened(1, "c", "--version", "1"), 1)
    assert "a silo left" in good(quire("model", "show", "reg", "heart", "1"))
    assert good(quire("model", "verify", "reg", "--pin", pin)).endswith("Verified.\n")
    assert not (place / "c").exists()


def test_another_recipient_and_an_altered_envelope(quire: Call, place: Path) -> None:
    pin = re.search(r"Releaser ([0-9a-f]{64})", good(release(quire)))[1]  # type: ignore[index]
    path = place / "reg" / "envelopes" / "heart-1.envelope"
    told = ("--pin", pin, "--out", "out")
    said = mistake(quire("model", "open", str(path), "--key", "basel.recipient", *told), 1)
    assert "not for this key" in said
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "altered" in mistake(quire("model", "open", str(path), "--key", "berlin.recipient", *told), 1)
    status, _, err = quire("model", "verify", "reg")
    assert status == 1
    assert "1 discrepancy" in err


def test_mistakes_are_one_sentence(quire: Call, place: Path) -> None:
    (place / "torn").mkdir()
    (place / "torn" / "book.jsonl").write_text('{"body": ')
    who = ("--identity", "server.key")
    good(release(quire))
    for args, status in (
        (("list", "nowhere"), 2),
        (("list", "torn"), 1),
        (("verify", "roster.json"), 2),
        (("show", "reg", "lung"), 2),
        (("show", "reg", "\u202eheart"), 2),
        (("show", "reg", "heart", "7"), 2),
        (("revoke", "reg", "heart", "9", "--why", "x", *who), 2),
        (("revoke", "reg", "heart", "1", "--why", "", *who), 2),
        (("revoke", "reg", "heart", "1", "--why", "x", "--identity", "other.key"), 2),
        (("revoke", "reg", "heart", "1", "--why", "x", "--identity", "run/run.json"), 2),
        (("rollback", "reg", "heart", "--to", "1", "--why", "x", *who), 2),
        (("rollback", "nowhere", "heart", "--to", "1", "--why", "x", *who), 2),
        (("key", "new", "Berlin"), 2),
        (("key", "new", "berlin"), 2),
        (("key", "new", "bern", "--folder", "nowhere"), 2),
        (("key", "show", "berlin.recipient"), 2),
        (("watermark", "verify", "run/model.safetensors", "--key", "nothing"), 2),
        (("watermark", "verify", "run/model.safetensors", "--key", "server.key"), 2),
        (("open", "nothing", "--key", "berlin.recipient", "--out", "x"), 2),
        (("open", "run/run.json", "--key", "berlin.recipient", "--out", "x"), 1),
        (("open", "run/run.json", "--key", "berlin.recipient.pub", "--out", "x"), 2),
        (("open", "run", "--key", "berlin.recipient", "--out", "x", "--pin", "short"), 2),
        (("release", "nowhere", *_terms(place)), 2),
        (("release", "run", *_terms(place, expires="yesterday")), 2),
        (("release", "run", *_terms(place, to="roster.json")), 2),
        (("release", "run", *_terms(place, purpose="a\x1b[2J")), 2),
    ):
        mistake(quire("model", *args), status)


def _terms(place: Path, **changes: str) -> list[str]:
    told = {
        **{"name": "heart", "registry": "reg", "to": "berlin.recipient.pub", "identity": "server.key"},
        **{"purpose": "x", "expires": "2999-01-01", **changes},
    }
    return [part for key, value in told.items() for part in (f"--{key}", value)]
