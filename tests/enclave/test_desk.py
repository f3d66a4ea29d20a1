"""What is laid on the desk, what an enclave does with its key alone, where its command runs, and pipes in a list."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from charters import BEGINS, ISSUED, charter, member
from enclaves import enclave
from hypothesis import given
from hypothesis import strategies as some
from secure_place import RECORD

from quire.charter.signed import SignedCharter
from quire.clients.gate.mark import BANNER
from quire.clients.identity import read_key_file
from quire.enclave import desk, inside
from quire.enclave.check import check
from quire.enclave.errors import EnclaveError
from quire.enclave.manifest import SGX, render
from quire.enclave.profiles import NAMES, read_profile, start_command
from quire.enclave.verify import Challenge
from quire.errors import QuireError

ROOT = Path(__file__).resolve().parents[2]


def test_files_come_in_whole_and_the_silos_file_last(tmp_path) -> None:
    outside, store = tmp_path / "outside", tmp_path / "store"
    (outside / "charter").mkdir(parents=True)
    store.mkdir()
    for name in ("silo.yaml", "roster.json", "charter/charter-1.json"):
        (outside / name).write_text(name)
    data = desk.packed([outside / "silo.yaml", outside / "roster.json", outside / "charter"])
    assert desk.install(data, store) == ["charter/charter-1.json", "roster.json", "silo.yaml"]
    assert (store / "desk" / "charter" / "charter-1.json").read_text() == "charter/charter-1.json"
    (outside / "silo.yaml").write_text("new")
    desk.install(desk.packed([outside / "silo.yaml"]), store)
    assert (store / "desk" / "silo.yaml").read_text() == "new"
    assert (store / "desk" / "roster.json").read_text() == "roster.json"
    with pytest.raises(EnclaveError, match="cannot be read"):
        desk.packed([outside / "nowhere"])
    with pytest.raises(EnclaveError, match=r"no silo\.yaml"):
        desk.packed([outside / "roster.json"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "as `quire enclave pack` writes it"),
        ({}, "of 1 to 512 files"),
        ({"silo.yaml": "", "../x": ""}, "cannot lie on the desk"),
        ({"silo.yaml": "", "/etc/x": ""}, "cannot lie on the desk"),
        ({"silo.yaml": "", "a/b/c": ""}, "cannot lie on the desk"),
        ({"silo.yaml": "", ".hidden": ""}, "cannot lie on the desk"),
        ({"silo.yaml": "", "a\x1b": ""}, "cannot lie on the desk"),
        ({"silo.yaml": "", "a": "", "a/b": ""}, "'a' cannot lie on the desk as a file and as a folder"),
        ({"silo.yaml": "?"}, "not in base64"),
        ({"silo.yaml": 1}, "not in base64"),
    ],
)
def test_what_is_no_desk_is_refused_and_nothing_written(tmp_path, body, words) -> None:
    with pytest.raises(EnclaveError, match=words) as caught:
        desk.install(json.dumps(body).encode(), tmp_path)
    assert "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_packed_is_said_and_keeps_nobody_waiting(tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "silo.yaml").touch()
    with pytest.raises(EnclaveError, match="Two files would lie on the desk"):
        desk.packed([tmp_path / "a" / "silo.yaml", tmp_path / "b" / "silo.yaml"])
    os.mkfifo(tmp_path / "b" / "pipe")
    with pytest.raises(EnclaveError, match="pipe' is no file"):
        desk.packed([tmp_path / "a" / "silo.yaml", tmp_path / "b"])
    with pytest.raises(EnclaveError, match="cannot be read: No such file"):
        desk.packed([tmp_path / "no\x1bwhere"])


@given(some.binary(max_size=200))
def test_any_other_bytes_are_refused_in_a_sentence(data) -> None:
    with pytest.raises(EnclaveError):
        desk.unpacked(data)


def test_the_key_signs_a_charter_and_answers_for_no_other(tmp_path) -> None:
    keys, store = tmp_path / "keys", tmp_path / "store"
    for place in (keys, store / "desk"):
        place.mkdir(parents=True)
    public = desk.own_key(keys)
    assert desk.own_key(keys) == public
    made = charter(members=(member("basel", identity=public), *(member(name) for name in ("berlin", "bern"))))
    signed = SignedCharter.decode(desk.sign_charter(SignedCharter(made).encode(), keys, ISSUED + 10))
    assert [one.fingerprint for one in signed.signatures] == [public.fingerprint]
    with pytest.raises(EnclaveError, match="belongs to no member"):
        desk.sign_charter(SignedCharter(charter()).encode(), keys, ISSUED + 10)
    with pytest.raises(EnclaveError, match="too late"):
        desk.sign_charter(SignedCharter(made).encode(), keys, BEGINS + 10)
    with pytest.raises(EnclaveError):
        desk.sign_charter(b"{}", keys)
    asked = Challenge.new(bytes.fromhex(made.hash), 0)
    device = tmp_path / "attestation"
    text = "name: basel\ndata: {connector: shipped, partition: 0, partitions: 3}\npopulation: {name: b, records: 9}\n"
    text += f"policy: {{{RECORD}}}\n"
    (store / "desk" / "silo.yaml").write_text(text)
    assert inside.answer(Challenge.new(bytes(32), 0), keys, device, store).identity == public
    (store / "desk" / "silo.yaml").write_text(f'{text}charter: {{file: charter, hash: "{made.hash}"}}\n')
    assert inside.answer(asked, keys, device, store).identity == public
    with pytest.raises(EnclaveError, match="The challenge is for 0000000000000000, and this silo's file pins"):
        inside.answer(Challenge.new(bytes(32), 0), keys, device, store)


def test_each_argument_does_its_one_thing_and_says_that_nothing_is_sealed(tmp_path, monkeypatch, capsys) -> None:
    for name in ("keys", "store"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"QUIRE_ENCLAVE_{name.upper()}", str(tmp_path / name))
    assert inside.main(["--key"]) == 0
    told = capsys.readouterr()
    (tmp_path / "mine.pub").write_text(told.out)
    assert read_key_file(tmp_path / "mine.pub").public() == desk.own_key(tmp_path / "keys")
    assert f"{BANNER}: nothing is sealed here" in told.err
    (tmp_path / "silo.yaml").write_text("name: basel\ndata: {connector: shipped, partition: 0, partitions: 3}\n")
    packed = io.BytesIO(desk.packed([tmp_path / "silo.yaml"]))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=packed))
    assert inside.main(["--install"]) == 0
    assert capsys.readouterr().out == "on the desk: silo.yaml\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"no charter")))
    assert inside.main(["--charter"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_manifest_for_sgx_outside_of_sgx_does_nothing(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("QUIRE_ENCLAVE", SGX)
    monkeypatch.setenv("QUIRE_ENCLAVE_KEYS", str(tmp_path))
    for argument in ("--key", "--answer", "--work", "--install", "--charter"):
        assert inside.main([argument]) == 2
        assert "is in no enclave, so that nothing would be sealed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_one_command_runs_outside_in_gramine_and_in_sgx(tmp_path, monkeypatch) -> None:
    work = tmp_path / "work.py"
    work.write_text("import os, sys; print(*sys.argv[1:], os.environ['OMP_NUM_THREADS'], 'SECRET' in os.environ)")
    settings, listing = enclave(
        tmp_path, f"command: [{work}, /silo/store/desk, /silo/keys, /silo/storehouse]\ncores: 3\n"
    )
    monkeypatch.setenv("SECRET", "x")
    command, variables = start_command(settings, tmp_path, read_profile("enclave=none"))
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert done.stdout == f"{settings.store}/desk {settings.keys} /silo/storehouse 3 False\n"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("gramine-direct", "gramine-sgx"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    direct = read_profile("enclave=direct")
    place = direct.place(settings, tmp_path)
    assert place == tmp_path / "hospital-1-direct.manifest"
    place.write_text(render(settings, listing, direct.profile))
    assert start_command(settings, tmp_path, direct) == ([str(programs / "gramine-direct"), "hospital-1-direct"], None)
    sgx = read_profile("enclave=sgx")
    sgx.place(settings, tmp_path).write_text(render(settings, listing, sgx.profile))
    with pytest.raises(EnclaveError, match="quire enclave sign"):
        start_command(settings, tmp_path, sgx)
    for wrong in ("enclave=cloud", "sgx", "enclave=", "enclave=../sgx", "x" * 200 + "\x1b"):
        with pytest.raises(EnclaveError, match="it is one of enclave=none") as caught:
            read_profile(wrong)
        assert "\x1b" not in str(caught.value)


def test_who_is_told_to_end_ends_what_runs_inside_too(tmp_path) -> None:
    (tmp_path / "work.py").write_text(
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('ended').touch(), sys.exit(7)))\n"
        "pathlib.Path('began').touch()\ntime.sleep(60)\n"
    )
    enclave(tmp_path, f"command: [{tmp_path / 'work.py'}]\n")
    for name in ("store", "keys"):
        (tmp_path / name).mkdir()
    command = [sys.executable, "-m", "quire", "enclave", "start", "enclave.yaml", "enclave=none"]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "began").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 7
    assert (tmp_path / "ended").exists()


def test_no_override_of_a_run_says_where_a_silo_runs() -> None:
    """The server sends overrides: were `enclave` among them, it could have a silo run outside."""
    from quire.conf.compose import compose

    for name in NAMES:
        for override in (f"enclave={name}", f"+enclave={name}", f"++enclave={name}"):
            with pytest.raises(QuireError):
                compose(override)


def test_a_pipe_in_the_list_of_files_is_refused_and_not_waited_for(tmp_path) -> None:
    settings, listing = enclave(tmp_path)
    path = tmp_path / "silo.manifest"
    path.write_text(render(settings, listing, SGX))
    assert check(path, SGX, files=True) == []
    (tmp_path / "a.py").unlink()
    os.mkfifo(tmp_path / "a.py")
    with pytest.raises(EnclaveError, match="is in the list of files, and is no file with content"):
        check(path, SGX, files=True)
    with pytest.raises(EnclaveError, match="no file with content"):
        render(settings, listing, SGX)
