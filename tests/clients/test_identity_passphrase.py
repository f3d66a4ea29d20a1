"""Passphrases of key files: the right one, the wrong one, none, and where a service finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from quire.clients.identity import (
    IdentityFileError,
    PassphraseNeeded,
    armour,
    files,
    load_identity,
    new_identity,
    passphrase,
)

WORDS = "correct horse battery"
QUICK = 12  # scrypt's cost in these tests


@pytest.fixture(autouse=True)
def no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUIRE_PASSPHRASE_FILE", raising=False)


def refusal(path: Path, words: str | None = None) -> str:
    with pytest.raises(IdentityFileError) as caught:
        load_identity(path, words)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_wrong_passphrase_or_none(tmp_path: Path) -> None:
    path = tmp_path / "silo.key"
    new_identity(path, words=WORDS, cost=QUICK)
    assert refusal(path, WORDS + "!") == f"The passphrase does not open {path}."
    assert refusal(path, "") == f"The passphrase does not open {path}."
    assert "its passphrase is needed" in refusal(path)
    with pytest.raises(PassphraseNeeded):
        load_identity(path)


def test_a_service_finds_its_passphrase_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, words = tmp_path / "silo.key", tmp_path / "words"
    public = new_identity(path, words=WORDS, cost=QUICK)
    monkeypatch.setenv("QUIRE_PASSPHRASE_FILE", str(words))
    assert refusal(path) == f"There is no file {words}."
    files.create(words, WORDS.encode(), 0o600)
    assert load_identity(path).public == public
    assert "does not open" in refusal(path, WORDS + "!")  # what is given comes first
    words.chmod(0o640)
    assert "chmod 600" in refusal(path)
    new_identity(tmp_path / "plain.key")
    load_identity(tmp_path / "plain.key")  # a file without a passphrase needs none of it


def test_a_short_passphrase_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(IdentityFileError, match="at least 8 characters"):
        new_identity(tmp_path / "silo.key", words="1234567")
    assert not list(tmp_path.iterdir())


def test_a_passphrase_may_be_typed_on_any_keyboard(tmp_path: Path) -> None:
    new_identity(tmp_path / "silo.key", words="clé étrange", cost=QUICK)
    load_identity(tmp_path / "silo.key", "cle\N{COMBINING ACUTE ACCENT} étrange")


def test_a_forged_cost_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "silo.key"
    new_identity(path, words=WORDS, cost=QUICK)
    kind, headers, body = armour.read(path.read_bytes())
    for cost in (0, 11, 21, 60, 255):
        path.write_bytes(armour.write(kind, headers, bytes([cost]) + body[1:]))
        assert "damaged" in refusal(path, WORDS)
    path.write_bytes(armour.write(kind, headers, bytes([13]) + body[1:]))
    assert "does not open" in refusal(path, WORDS)


def test_what_stands_above_encrypted_keys_is_authenticated(tmp_path: Path) -> None:
    path = tmp_path / "silo.key"
    new_identity(path, "hospital-1", words=WORDS, cost=QUICK)
    kind, headers, body = armour.read(path.read_bytes())
    path.write_bytes(armour.write(kind, headers | {"Name": "hospital-2"}, body))
    assert "does not open" in refusal(path, WORDS)


def test_a_passphrase_from_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "words"
    for text in (WORDS, WORDS + "\n", WORDS + "\r\n"):
        path.unlink(missing_ok=True)
        files.create(path, text.encode(), 0o600)
        assert passphrase.from_file(path) == WORDS
    for bad in (b"", b"\n", b"a\nb\n", b"\xff" * 9):
        path.write_bytes(bad)
        with pytest.raises(IdentityFileError, match="must hold a passphrase"):
            passphrase.from_file(path)
    path.chmod(0o644)
    with pytest.raises(IdentityFileError, match="chmod 600"):
        passphrase.from_file(path)
    monkeypatch.setenv("QUIRE_TEST_WORDS", WORDS)
    assert passphrase.from_variable("QUIRE_TEST_WORDS") == WORDS
    monkeypatch.setenv("QUIRE_TEST_WORDS", "")
    with pytest.raises(IdentityFileError, match="QUIRE_TEST_WORDS is not set"):
        passphrase.from_variable("QUIRE_TEST_WORDS")


def test_the_default_cost_is_the_one_that_the_page_states(tmp_path: Path) -> None:
    new_identity(tmp_path / "silo.key", words=WORDS)
    assert armour.read((tmp_path / "silo.key").read_bytes())[2][0] == 17
    load_identity(tmp_path / "silo.key", WORDS)
