"""Key files on a real disk: who can read them, what is never overwritten, what damage does."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quire.clients.identity import (
    IdentityFileError,
    PrivateIdentity,
    armour,
    files,
    load_identity,
    new_identity,
    read_key_file,
)
from quire.clients.identity.keyfile import write_public

WORDS = "correct horse battery"
QUICK = 12  # scrypt's cost in these tests


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(path: Path, words: str | None = None) -> str:
    with pytest.raises(IdentityFileError) as caught:
        load_identity(path, words)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("words", [None, WORDS])
@pytest.mark.parametrize("post_quantum", [False, True])
def test_a_new_identity_comes_back(tmp_path: Path, post_quantum: bool, words: str | None) -> None:
    public = new_identity(tmp_path / "silo.key", "hospital-1", post_quantum, words, QUICK)
    assert load_identity(tmp_path / "silo.key", words).public == public
    secret, shared = read_key_file(tmp_path / "silo.key"), read_key_file(tmp_path / "silo.key.pub")
    assert shared.public() == public
    assert (secret.name, shared.name) == ("hospital-1", "hospital-1")
    assert (secret.fingerprint, shared.fingerprint) == (public.fingerprint, public.fingerprint)
    assert (secret.encrypted, shared.encrypted) == (words is not None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["silo.key", "silo.key.pub"]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_secret_keys_are_for_their_owner_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        new_identity(tmp_path / "silo.key")
    assert (mode(tmp_path / "silo.key"), mode(tmp_path / "silo.key.pub")) == (0o600, 0o644)


def test_two_identities_differ(tmp_path: Path) -> None:
    assert new_identity(tmp_path / "a").fingerprint != new_identity(tmp_path / "b").fingerprint


@pytest.mark.parametrize("exposed", [0o604, 0o640, 0o620, 0o666, 0o610])
def test_keys_that_others_have_rights_to_are_refused(tmp_path: Path, exposed: int) -> None:
    path = tmp_path / "silo.key"
    new_identity(path)
    path.chmod(exposed)
    assert f"run: chmod 600 {path}" in refusal(path)
    path.chmod(0o400)
    load_identity(path)


def test_a_missing_file_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"There is no file {tmp_path / 'none'}."
    assert "cannot be read: Is a directory" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "is not a file" in refusal(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be read" in refusal(tmp_path / "loop")


def test_a_file_that_is_no_key_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "silo.key"
    path.write_bytes(b"x" * 20_000)
    path.chmod(0o600)
    assert "more than 16384 bytes" in refusal(path)
    for text in (b"", b"-----BEGIN OPENSSH PRIVATE KEY-----\n", b"\xff\xfe", b"name: cleveland\n"):
        path.write_bytes(text)
        assert "not a key file of Quire's" in refusal(path)


@pytest.mark.parametrize("taken", ["silo.key", "silo.key.pub"])
def test_nothing_is_ever_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(IdentityFileError, match=rf"{taken} exists already"):
        new_identity(tmp_path / "silo.key")
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_a_dangling_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "silo.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityFileError, match="exists already"):
        new_identity(tmp_path / "silo.key")
    with pytest.raises(IdentityFileError, match="exists already"):
        files.create(tmp_path / "silo.key", b"secret", 0o600)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(IdentityFileError, match="cannot be written: No such file or directory"):
        new_identity(tmp_path / "none" / "silo.key")
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityFileError, match="cannot be written: Not a directory"):
        new_identity(tmp_path / "file" / "silo.key")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    # Root may write anywhere, so a process that is root becomes nobody once it stands in the folder.
    code = (
        "import os; from pathlib import Path\n"
        "from quire.clients.identity import IdentityFileError, new_identity\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: new_identity(Path('silo.key'))\n"
        "except IdentityFileError as error: print(error)\n"
    )
    if os.getuid() == 0:
        os.chown(locked, 65534, 65534)
    done = subprocess.run([sys.executable, "-c", code], cwd=locked, capture_output=True, text=True, check=False)
    assert done.stdout == "silo.key.pub cannot be written: Permission denied.\n", done.stderr
    assert not list(locked.iterdir())


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityFileError, match=r"silo.key.pub cannot be written: No space left on device"):
        new_identity(tmp_path / "silo.key")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_between_the_two_files_leaves_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, create = [], files.create

    def interrupted(path: Path, data: bytes, wanted: int) -> None:
        made.append(path)
        if len(made) == 2:
            raise KeyboardInterrupt
        create(path, data, wanted)

    monkeypatch.setattr(files, "create", interrupted)
    with pytest.raises(KeyboardInterrupt):
        new_identity(tmp_path / "silo.key")
    assert len(made) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["", ".pub"])
def test_keys_that_are_not_those_of_the_fingerprint_are_refused(tmp_path: Path, suffix: str) -> None:
    new_identity(tmp_path / "a", post_quantum=True)
    path = Path(f"{tmp_path / 'a'}{suffix}")
    kind, headers, body = armour.read(path.read_bytes())
    for change in ({"Fingerprint": "0" * 64}, {"Keys": "Ed25519"}):
        path.write_bytes(armour.write(kind, headers | change, body))
        with pytest.raises(IdentityFileError, match="has been changed"):
            read_key_file(path).public() if suffix else read_key_file(path).open()


@pytest.mark.parametrize("kind", ["plain", "encrypted", "public"])
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_damage_is_noticed_and_quotes_nothing(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path = tmp_path / "silo.key"
    if not path.exists():
        new_identity(path, "hospital-1", words=WORDS if kind == "encrypted" else None, cost=QUICK)
    whole = (tmp_path / ("silo.key.pub" if kind == "public" else "silo.key")).read_bytes()
    changed = bytearray(whole)
    place = data.draw(st.integers(0, len(whole) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "drop", "add"])):
        case "flip":
            changed[place] ^= data.draw(st.integers(1, 255))
        case "cut":
            del changed[place:]
        case "drop":
            del changed[place]
        case _:
            changed[place:place] = data.draw(st.binary(min_size=1, max_size=9))
    hurt = tmp_path / "hurt"
    hurt.unlink(missing_ok=True)
    files.create(hurt, bytes(changed), 0o600)
    try:
        found = read_key_file(hurt)
        result = found.public() if kind == "public" else found.open(WORDS).public
    except IdentityFileError as error:
        body = armour.read(whole)[2]
        text = "".join(traceback.format_exception(error))
        assert body.hex() not in text
        assert armour.write("PRIVATE", {}, body).split()[4].decode() not in text
    else:  # white space around it, which a mail program may add or take
        assert changed.decode().split() == whole.decode().split()
        assert result == read_key_file(tmp_path / "silo.key.pub").public()


def test_line_ends_of_a_mail_program_are_forgiven(tmp_path: Path) -> None:
    public = new_identity(tmp_path / "silo.key", "hospital-1")
    path = tmp_path / "silo.key.pub"
    path.write_bytes(b"\r\n" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n \n")
    assert read_key_file(path).public() == public


def test_public_and_secret_files_are_not_taken_for_each_other(tmp_path: Path) -> None:
    new_identity(tmp_path / "silo.key")
    assert "name the file of the secret ones" in refusal(tmp_path / "silo.key.pub")
    with pytest.raises(IdentityFileError, match=r"go to nobody: name .*silo\.key\.pub"):
        read_key_file(tmp_path / "silo.key").public()


@pytest.mark.parametrize("name", ["", "Hospital", "a b", "../x", "a" * 65, "é"])
def test_a_name_is_one_of_a_silo(tmp_path: Path, name: str) -> None:
    with pytest.raises(IdentityFileError, match="lower-case"):
        new_identity(tmp_path / "silo.key", name)
    assert not list(tmp_path.iterdir())


def test_a_file_of_a_later_format_says_so(tmp_path: Path) -> None:
    new_identity(tmp_path / "silo.key")
    path = tmp_path / "silo.key.pub"
    kind, headers, body = armour.read(path.read_bytes())
    path.write_bytes(armour.write(kind, headers | {"Format": "2"}, body))
    with pytest.raises(IdentityFileError, match="format 1 only"):
        read_key_file(path)
    path.write_bytes(armour.write(kind, headers | {"More": "x"}, body))
    with pytest.raises(IdentityFileError, match="not those of a key file"):
        read_key_file(path)


def test_no_object_shows_the_secret(tmp_path: Path) -> None:
    new_identity(tmp_path / "silo.key", "hospital-1")
    found = read_key_file(tmp_path / "silo.key")
    own: PrivateIdentity = found.open()
    shown = f"{found!r} {found} {own!r} {own} {vars(own)}"
    secret = own.encode_secret()[2:]
    assert secret.hex() not in shown
    assert repr(secret)[2:-1] not in shown
    assert secret.hex() not in write_public(own.public, None).hex()


def test_replacing_a_file_keeps_the_old_one_if_it_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "roster.json"
    path.write_text("old")

    def refused(source: object, target: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(IdentityFileError, match=r"roster\.json cannot be written"):
        files.replace(path, b"new")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("roster.json", "old")]
