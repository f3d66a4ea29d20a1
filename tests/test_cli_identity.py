"""``quire identity`` and ``quire roster`` as operators and admins meet them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command_line import Call, command_line

from quire.clients.identity import IdentityFileError, load_identity, load_roster, passphrase, read_roster

WORDS = "correct horse battery"


@pytest.fixture
def quire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Call the command line in an empty folder; whatever it says, no secret that lies there may be in it."""
    monkeypatch.chdir(tmp_path)
    plain = command_line(monkeypatch, capsys)
    said: list[str] = []

    def call(*args: str) -> tuple[int, str, str]:
        status, out, err = plain(*args)
        said.extend((out, err))
        return status, out, err

    yield call
    everything = "".join(said)
    assert WORDS not in everything
    for path in tmp_path.rglob("*.key"):
        try:
            secret = load_identity(path, WORDS).encode_secret()
        except IdentityFileError:
            continue
        text = path.read_text(encoding="ascii").split("\n\n")[1].replace("\n", "")
        for hidden in (secret[2:34].hex(), repr(secret[2:34])[2:-1], text):
            assert hidden not in everything


def good(result: tuple[int, str, str]) -> str:
    assert (result[0], result[2]) == (0, ""), result
    return result[1]


def mistake(result: tuple[int, str, str]) -> str:
    status, out, err = result
    assert (status, out) == (2, ""), result
    assert err.startswith("quire: ")
    assert err.endswith(".\n")
    assert err.count("\n") == 1
    return err


@pytest.fixture
def parties(quire: Call) -> Call:
    """Two hospitals and two admins, with their keys."""
    for name in ("hospital-1", "hospital-2", "hospital-3", "anna", "ben"):
        good(quire("identity", "new", f"{name}.key", "--name", name))
    return quire


def make(quire: Call, *more: str, file: str = "roster.json") -> str:
    return good(
        quire(
            *("roster", "create", file, "--id", "heart", "--member", "hospital-1.key.pub"),
            *("--member", "hospital-2=hospital-2.key.pub", "--admin", "anna.key.pub", "--admin", "ben.key.pub", *more),
        )
    )


def fingerprint(text: str) -> str:
    return next(word for word in text.split() if len(word) == 64)


def test_new_keys_and_what_is_said_of_them(quire: Call, tmp_path: Path) -> None:
    out = good(quire("identity", "new", "silo.key", "--name", "hospital-1", "--post-quantum"))
    assert "Ed25519 + ML-DSA-65" in out
    assert "mode 600, no passphrase" in out
    for file, kind in (("silo.key", "secret keys, without a passphrase"), ("silo.key.pub", "public keys")):
        shown = good(quire("identity", "show", file))
        assert shown.startswith(f"{file}: {kind}\nName         hospital-1\n")
        assert fingerprint(shown) == fingerprint(out)
    assert good(quire("identity", "public", "silo.key")) == Path("silo.key.pub").read_text(encoding="ascii")


def test_a_passphrase_comes_from_a_file_or_a_variable(
    quire: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passphrase.encrypt, "__defaults__", (12,))
    monkeypatch.setenv("SILO_WORDS", WORDS)
    Path("words").touch(mode=0o600)
    Path("words").write_text(WORDS + "\n", encoding="utf-8")
    assert "encrypted" in good(quire("identity", "new", "silo.key", "--passphrase-file", "words"))
    assert "encrypted with a passphrase" in good(quire("identity", "show", "silo.key"))
    good(quire("identity", "public", "silo.key", "--passphrase-env", "SILO_WORDS"))
    monkeypatch.setenv("SILO_WORDS", "wrong " + WORDS)
    assert "does not open silo.key" in mistake(
        quire("identity", "public", "silo.key", "--passphrase-env", "SILO_WORDS")
    )
    assert "no terminal to ask at" in mistake(quire("identity", "public", "silo.key"))
    assert "not both" in mistake(
        quire("identity", "public", "silo.key", "--passphrase-env", "SILO_WORDS", "--passphrase-file", "words")
    )


def test_a_passphrase_typed_at_a_terminal_is_not_shown(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "quire", "identity", "new", "silo.key", "--passphrase"],
        **{"stdin": theirs, "stdout": theirs, "stderr": theirs},
        cwd=tmp_path,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    for prompt in (b"Passphrase for silo.key:", b"Repeat for confirmation:"):
        seen = read_until(ours, prompt)
        time.sleep(0.2)  # the prompt is written before the echo is off
        os.write(ours, WORDS.encode() + b"\n")
    seen += read_until(ours, b"Fingerprint")
    assert process.wait(60) == 0
    os.close(ours)
    assert b"horse" not in seen
    load_identity(tmp_path / "silo.key", WORDS)


def read_until(descriptor: int, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        try:
            more = os.read(descriptor, 4096)
        except OSError:  # the other end is closed
            more = b""
        if not more:
            pytest.fail(f"{mark!r} was not shown, but {seen!r}")
        seen += more
    return seen


def test_a_roster_from_creation_to_pin(parties: Call) -> None:
    out = make(parties)
    pin = fingerprint(out[out.index("Hash ") :])
    assert "needs 2 of its 2 admins" in out
    assert "signed by 0 of its own admins, and needs 2" in mistake(parties("roster", "verify", "roster.json"))
    good(parties("roster", "sign", "roster.json", "--key", "anna.key"))
    again = good(parties("roster", "sign", "roster.json", "--key", "anna.key"))
    assert "signed by 1 of its 2 admins (anna), needs 2" in again
    assert "1 of its own admins (anna), and needs 2" in mistake(parties("roster", "verify", "roster.json"))
    good(parties("roster", "sign", "roster.json", "--key", "ben.key"))
    unpinned = good(parties("roster", "verify", "roster.json"))
    assert "2 of 2 members active now" in unpinned
    assert "Nothing was pinned" in unpinned
    assert pin in unpinned
    assert "It is the pinned roster." in good(parties("roster", "verify", "roster.json", "--pin", pin))
    assert "not the pinned roster" in mistake(parties("roster", "verify", "roster.json", "--pin", "0" * 64))
    assert "A pin is" in mistake(parties("roster", "verify", "roster.json", "--pin", "heart"))
    assert load_roster(Path("roster.json"), pin).member("hospital-2").index == 1


def test_show_gives_every_fingerprint_whole(parties: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    make(parties)
    good(parties("roster", "sign", "roster.json", "--key", "anna.key"))
    shown = good(parties("roster", "show", "roster.json"))
    for name in ("hospital-1", "hospital-2", "anna", "ben"):
        assert fingerprint(good(parties("identity", "show", f"{name}.key.pub"))) in shown.split()
    assert "anna   signed     Ed25519" in shown
    assert "ben    none       Ed25519" in shown


def test_a_bad_signature_is_shown_as_one(parties: Call) -> None:
    make(parties)
    good(parties("roster", "sign", "roster.json", "--key", "anna.key"))
    text = Path("roster.json").read_text(encoding="ascii")
    place = text.index('"signature":"') + 40
    Path("roster.json").write_text(text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :])
    assert "anna   BAD" in good(parties("roster", "show", "roster.json"))
    assert "Ed25519 signature does not verify" in mistake(parties("roster", "verify", "roster.json"))


def test_the_next_version(parties: Call) -> None:
    make(parties)
    for admin in ("anna", "ben"):
        good(parties("roster", "sign", "roster.json", "--key", f"{admin}.key"))
    change = ("--previous", "roster.json", "--member", "hospital-3.key.pub", "--remove-member", "hospital-1")
    out = good(parties("roster", "create", "next.json", *change, "--remove-admin", "ben", "--quorum", "1"))
    assert "needs 1 of its 1 admins and 2 of the 2 before" in out
    good(parties("roster", "sign", "next.json", "--key", "anna.key"))
    verify = ("roster", "verify", "next.json", "--pinned", "roster.json")
    assert "1 of the admins of the version before (anna), and needs 2" in mistake(parties(*verify))
    assert "(--previous)" in mistake(parties("roster", "sign", "next.json", "--key", "ben.key"))
    good(parties("roster", "sign", "next.json", "--key", "ben.key", "--previous", "roster.json"))
    lines = good(parties(*verify)).splitlines()
    expected = [
        "member added: hospital-3",
        "member removed: hospital-1",
        "admin removed: ben",
        "quorum: 1 instead of 2",
    ]
    assert lines[2:6] == expected
    assert [one.index for one in read_roster(Path("next.json")).roster.members] == [1, 2]
    assert "Version 1 cannot follow version 1" in mistake(
        parties("roster", "verify", "roster.json", "--pinned", "roster.json")
    )


def test_copies_that_were_signed_apart_are_merged(parties: Call) -> None:
    make(parties)
    Path("copy.json").write_bytes(Path("roster.json").read_bytes())
    good(parties("roster", "sign", "roster.json", "--key", "anna.key"))
    good(parties("roster", "sign", "copy.json", "--key", "ben.key"))
    assert "2 of its 2 admins (anna, ben)" in good(parties("roster", "merge", "roster.json", "copy.json"))
    good(parties("roster", "verify", "roster.json"))
    make(parties, "--quorum", "1", file="other.json")
    assert "another roster" in mistake(parties("roster", "merge", "roster.json", "other.json"))


def test_who_is_expired_is_said(parties: Call) -> None:
    make(parties, "--valid-from", "2020-01-01", "--valid-to", "2021-01-01", "--quorum", "1")
    good(parties("roster", "sign", "roster.json", "--key", "ben.key"))
    out = good(parties("roster", "verify", "roster.json"))
    assert "0 of 2 members active now" in out
    assert "hospital-1 is expired since 2021-01-01" in out
    assert not read_roster(Path("roster.json")).roster.active(int(datetime.now(UTC).timestamp()))


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "a key file that is there": (("identity", "new", "anna.key"), "anna.key exists already"),
    "a bad name": (("identity", "new", "x.key", "--name", "X"), "lower-case"),
    "no folder": (("identity", "new", "none/x.key"), "No such file or directory"),
    "no terminal": (("identity", "new", "x.key", "--passphrase"), "no terminal to ask at"),
    "no variable": (("identity", "new", "x.key", "--passphrase-env", "NOT_SET"), "NOT_SET is not set"),
    "no passphrase file": (("identity", "new", "x.key", "--passphrase-file", "none"), "There is no file none"),
    "an open passphrase file": (("identity", "new", "x.key", "--passphrase-file", "open"), "chmod 600 open"),
    "no file to show": (("identity", "show", "none"), "There is no file none"),
    "a file of something else": (("identity", "show", "open"), "not a key file"),
    "public keys as secret ones": (("identity", "public", "anna.key.pub"), "name the file of the secret ones"),
    "no admin": (("create", "x.json", "--member", "anna.key.pub"), "1 to 64 admins"),
    "no member": (("create", "x.json", "--admin", "anna.key.pub"), "1 to 4096 members"),
    "a secret key as a member's": (("create", "x.json", "--member", "a=anna.key"), "name anna.key.pub"),
    "a missing key": (("create", "x.json", "--member", "a=none.pub"), "There is no file none.pub"),
    "a member twice": (
        ("create", "x.json", "--member", "a=anna.key.pub", "--member", "a=ben.key.pub"),
        "--member names a twice",
    ),
    "a key twice": (
        ("create", "x.json", "--admin", "ben.key.pub", "--member", "a=anna.key.pub", "--member", "b=anna.key.pub"),
        "Two members have the same Ed25519 key",
    ),
    "a name of a member that is none": (
        ("create", "x.json", "--admin", "ben.key.pub", "--member", "A=anna.key.pub"),
        "lower-case",
    ),
    "a role without a member": (
        ("create", "x.json", "--previous", "roster.json", "--role", "nobody=server"),
        "no member 'nobody'",
    ),
    "a role that is none": (("create", "x.json", "--previous", "roster.json", "--role", "x"), "NAME=VALUE"),
    "an id for a second version": (("create", "x.json", "--previous", "roster.json", "--id", "x"), "--id is for"),
    "removing nobody": (
        ("create", "x.json", "--previous", "roster.json", "--remove-member", "nobody"),
        "no member 'nobody' to remove",
    ),
    "a quorum out of reach": (
        ("create", "x.json", "--previous", "roster.json", "--remove-admin", "ben"),
        "number of admins, which is 1",
    ),
    "a new file that is there": (("create", "roster.json", "--previous", "roster.json"), "roster.json exists already"),
    "a validity that ends first": (
        ("create", "x.json", "--previous", "roster.json", "--member", "hospital-3.key.pub", "--valid-to", "1999-01-01"),
        "valid_to of hospital-3",
    ),
    "a signer who is no admin": (("sign", "roster.json", "--key", "hospital-1.key"), "belongs to none of its admins"),
    "a missing signer": (("sign", "roster.json", "--key", "none.key"), "There is no file none.key"),
    "signing what is no roster": (("sign", "open", "--key", "anna.key"), "open: The document is not JSON"),
    "a pin and a pinned": (("verify", "roster.json", "--pin", "0", "--pinned", "roster.json"), "not both"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_gets_one_sentence_and_loses_nothing(case: str, parties: Call, tmp_path: Path) -> None:
    make(parties)
    Path("open").write_text(WORDS[::-1], encoding="ascii")
    Path("open").chmod(0o644)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    args, words = MISTAKES[case]
    assert words in mistake(parties(*(args if args[0] == "identity" else ("roster", *args))))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_with_no_name_needs_one(quire: Call) -> None:
    good(quire("identity", "new", "x.key"))
    assert "write --admin NAME=x.key.pub" in mistake(quire("roster", "create", "r.json", "--admin", "x.key.pub"))


def test_help_imports_no_cryptography() -> None:
    code = (
        "import sys\nfrom quire import cli\nsys.argv = ['quire', 'roster', '--help']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "assert not {'cryptography', 'torch', 'quire.clients'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
