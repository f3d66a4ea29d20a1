"""What a machine lacks, Gramine's programs where they are (stand-ins here), and what runs inside."""

import dataclasses
import io
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from enclaves import enclave, signature

from quire.clients.identity import new_identity
from quire.enclave import inside, programs
from quire.enclave.doctor import MAP_COUNT, examine
from quire.enclave.errors import EnclaveError
from quire.enclave.manifest import DIRECT, SGX, render
from quire.enclave.quotes import report_data
from quire.enclave.settings import read_settings
from quire.enclave.sigstruct import Sigstruct
from quire.enclave.tracing import trace
from quire.enclave.verify import Answer, Challenge

ASKED = Challenge(b"n" * 32, b"p" * 32, 1_790_000_000)


def machine(root, count=MAP_COUNT, memory=64, device=True, aesm=True):
    (root / "proc/sys/vm").mkdir(parents=True)
    (root / "proc/sys/vm/max_map_count").write_text(f"{count}\n")
    (root / "proc/meminfo").write_text(f"MemTotal: {memory * 2**20} kB\n")
    if device:
        (root / "dev").mkdir()
        (root / "dev/sgx_enclave").touch()
    if aesm:
        (root / "var/run/aesmd").mkdir(parents=True)
        (root / "var/run/aesmd/aesm.socket").touch()
    return root


def stand_in(folder, monkeypatch, **scripts):
    """Put programs on the PATH that do what shell scripts say."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")


def manifest(folder, profile=SGX):
    path = folder / "silo.manifest"
    path.write_text(render(*enclave(folder), profile))
    return path


def test_the_doctor_finds_nothing_missing_on_a_machine_that_has_all(tmp_path, monkeypatch):
    config, _ = enclave(tmp_path)
    for folder in (config.store, config.keys):
        folder.mkdir()
    all_of_them = dict.fromkeys(("gramine_direct", "gramine_sgx", "gramine_sgx_sign", "gramine_manifest_check"), "")
    stand_in(tmp_path / "bin", monkeypatch, **all_of_them)
    found = examine(config, machine(tmp_path / "root"))
    assert [one.what for one in found if not one.good and one.mode != "verify"] == []


def test_the_doctor_says_each_thing_that_is_missing_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    config, _ = enclave(tmp_path, "size: 16G\n")
    shutil.rmtree(config.gramine)
    root = machine(tmp_path / "root", count=65530, memory=8, device=False, aesm=False)
    found = {one.what: one for one in examine(config, root)}
    assert "install Gramine" in found["gramine-sgx"].words
    assert f"sysctl -w vm.max_map_count={MAP_COUNT}" in found["vm.max_map_count"].words
    assert "BIOS" in found["SGX device"].words
    assert "aesmd" in found["AESM, for quotes"].words
    assert "make 'size' smaller" in found["memory"].words
    assert "set 'gramine'" in found["Gramine's library"].words
    assert f"mkdir -m 700 {config.store}" in found["folder for the store"].words
    assert not any(one.good for what, one in found.items() if not what.startswith("dcap"))
    assert "cannot be read" in {one.what: one for one in examine(None, tmp_path / "none")}["vm.max_map_count"].words


def test_without_gramine_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path, key = manifest(tmp_path), tmp_path / "key.pem"
    key.touch()
    for call in (lambda: programs.sign(path, key), lambda: programs.gramine_check(path)):
        with pytest.raises(EnclaveError, match=r"no gramine-.* on the PATH: install Gramine"):
            call()
    with pytest.raises(EnclaveError, match="quire enclave sign"):
        programs.command_to_run(path, "sgx")
    path.write_text(render(*enclave(tmp_path), DIRECT))
    with pytest.raises(EnclaveError, match="no gramine-direct on the PATH"):
        programs.command_to_run(path, "direct")


def test_signing_hands_gramine_a_sound_manifest_and_keeps_what_it_writes(tmp_path, monkeypatch):
    (tmp_path / "made").write_bytes(signature(product=1, version=1))
    script = f'[ "$1 $3 $5 $7" = "--key --manifest --output --sigfile" ] && cp {tmp_path}/made "$8" && cp "$4" "$6"'
    stand_in(tmp_path / "bin", monkeypatch, gramine_sgx_sign=script, gramine_sgx="exit 7")
    path, key = manifest(tmp_path), tmp_path / "key.pem"
    with pytest.raises(EnclaveError, match="gramine-sgx-gen-private-key"):
        programs.sign(path, key)
    key.touch()
    assert programs.sign(path, key).read_bytes() == signature(product=1, version=1)
    assert programs.command_to_run(path, "sgx") == [str(tmp_path / "bin" / "gramine-sgx"), "silo"]
    path.write_text(path.read_text().replace("debug = false", "debug = true"))
    for call in (lambda: programs.sign(path, key), lambda: programs.command_to_run(path, "sgx")):
        with pytest.raises(EnclaveError, match=r"no sound sgx-prod manifest: sgx\.debug must be false"):
            call()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("debug = false", "debug = true", r"sgx\.debug differs; run `quire enclave sign"),
        ("[loader]", "[loader]\ninsecure__use_host_env = true", "insecure__use_host_env differs"),
        ("[sgx]", '[sgx]\nallowed_files = ["file:/"]', r"sgx\.allowed_files differs"),
        ('type = "encrypted"', 'type = "chroot"', r"fs\.mounts differs"),
        ('sha256 = "', 'sha256 = "00', r"sgx\.trusted_files differs"),
        ("isvsvn = 1\n", "", r"sgx\.isvsvn differs"),
        ("debug = false", "debug =", "is not TOML"),
        ("", "", None),
        ("[sgx]", "[sgx]\nenable_stats = false\nallowed_files = []\nrequire_avx = false", None),
    ],
)
def test_what_was_signed_has_to_be_what_is_checked(tmp_path, monkeypatch, old, new, words):
    """Gramine starts the signed file; defaults that Gramine writes into it are no change."""
    stand_in(tmp_path / "bin", monkeypatch, gramine_sgx="exit 7")
    path = manifest(tmp_path)
    (tmp_path / "silo.manifest.sgx").write_text(path.read_text().replace(old, new, 1))
    (tmp_path / "silo.sig").write_bytes(signature(product=1, version=1))
    if words is None:
        assert programs.command_to_run(path, "sgx")
        return
    with pytest.raises(EnclaveError, match=words):
        programs.command_to_run(path, "sgx")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: signature(product=1, version=1, flags=0x6), "debug mode"),
        (lambda: signature(product=1, version=1, mask=2**64 - 1 - 2), "debug mode"),
        (lambda: signature(product=1, version=2), "product 1, version 2"),
        (lambda: bytes(1808), "SIGSTRUCT"),
    ],
)
def test_a_signature_of_another_enclave_is_not_started(tmp_path, monkeypatch, made, words):
    stand_in(tmp_path / "bin", monkeypatch, gramine_sgx="exit 7")
    path = manifest(tmp_path)
    (tmp_path / "silo.manifest.sgx").write_text(path.read_text())
    (tmp_path / "silo.sig").write_bytes(made())
    with pytest.raises(EnclaveError, match=words):
        programs.command_to_run(path, "sgx")


def test_a_signature_that_failed_leaves_nothing_and_keeps_the_old(tmp_path, monkeypatch):
    stand_in(tmp_path / "bin", monkeypatch, gramine_sgx_sign='echo x > "$6"; echo "no such key" >&2; exit 1')
    path, key = manifest(tmp_path), tmp_path / "key.pem"
    key.touch()
    (tmp_path / "silo.sig").write_text("old")
    with pytest.raises(EnclaveError, match=r"Gramine did not sign .*: no such key"):
        programs.sign(path, key)
    assert (tmp_path / "silo.sig").read_text() == "old"
    assert not list(tmp_path.glob(".*.new"))
    assert not (tmp_path / "silo.manifest.sgx").exists()


def test_gramines_own_check_is_told_on(tmp_path, monkeypatch):
    stand_in(tmp_path / "bin", monkeypatch, gramine_manifest_check='echo "extra keys not allowed" >&2; exit 1')
    assert programs.gramine_check(manifest(tmp_path)) == "extra keys not allowed"
    stand_in(tmp_path / "bin", monkeypatch, gramine_manifest_check="exit 0")
    assert programs.gramine_check(tmp_path / "silo.manifest") is None


@pytest.mark.parametrize("name", ["silo", "silo.toml", ".manifest", "-x.manifest"])
def test_a_manifest_has_a_name_that_gramine_knows(tmp_path, name):
    with pytest.raises(EnclaveError, match=r"not named NAME\.manifest"):
        programs.named(tmp_path / name)


def test_inside_a_challenge_is_answered_with_a_key_that_stays_and_a_quote_that_names_it(tmp_path):
    device, keys = tmp_path / "attestation", tmp_path / "keys"
    device.mkdir()
    keys.mkdir()
    assert not inside.attestable(device)
    plain = inside.answer(ASKED, keys, device)
    assert plain.quote is None
    assert stat.S_IMODE((keys / "identity.key").stat().st_mode) == 0o600
    (device / "quote").write_bytes(b"a quote")
    found = inside.answer(ASKED, keys, device)
    assert found == Answer(plain.identity, b"a quote")
    asked = (device / "user_report_data").read_bytes()
    assert asked == report_data(found.identity, ASKED.nonce, ASKED.policy)
    os.remove(device / "user_report_data")
    (device / "user_report_data").mkdir()
    with pytest.raises(EnclaveError, match="was given no quote"):
        inside.answer(ASKED, keys, device)


def test_outside_it_says_that_nothing_is_confidential_and_nothing_attested(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inside, "KEYS", tmp_path)
    monkeypatch.setattr(inside.answer, "__defaults__", (tmp_path, tmp_path / "none"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ASKED.encode())))
    assert inside.main([inside.ANSWER]) == 0
    out, err = capsys.readouterr()
    assert Answer.decode(out.encode()).quote is None
    assert err.count(inside.BANNER) == 2
    assert "0600" in err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    assert inside.main([inside.ANSWER]) == 2
    assert "quire: This is no challenge" in capsys.readouterr().err


def test_while_tracing_it_answers_a_challenge_of_its_own_with_a_key_that_is_forgotten(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QUIRE_ENCLAVE", "trace")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(sys, "stdin", None)
    assert inside.main([inside.ANSWER]) == 0
    assert Answer.decode(capsys.readouterr().out.encode()).quote is None
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_inside_a_federation_is_rehearsed_in_one_process(capsys):
    small = ["strategy.rounds=1", "partition.silos=2", "output.report=false", "output.baselines=false"]
    assert inside.main([*small, "output.progress=none"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("rehearsed; model ")
    assert inside.BANNER in err


def test_settings_that_are_none_are_one_sentence_inside_too(capsys):
    assert inside.main(["strategy.round=1"]) == 2
    assert "quire: " in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("gramine-direct") is None, reason="there is no gramine-direct on the PATH")
def test_gramine_direct_runs_what_is_rendered_and_a_changed_file_stops_it(tmp_path):
    """Needs QUIRE_GRAMINE: the folder with Gramine's libsysdb.so and runtime/glibc/."""
    gramine = os.environ.get("QUIRE_GRAMINE")
    if not gramine:
        pytest.skip("QUIRE_GRAMINE does not say where Gramine's libsysdb.so is")
    work = tmp_path / "work.py"
    work.write_text("print('it works')\n")
    text = f"name: silo\nstore: store\nkeys: keys\ngramine: {gramine}\ncommand: [{work}]\n"
    (tmp_path / "enclave.yaml").write_text(text)
    config = read_settings(tmp_path / "enclave.yaml")
    for folder in (config.store, config.keys):
        folder.mkdir(mode=0o700)
    path = tmp_path / "silo.manifest"
    path.write_text(render(config, trace(config), DIRECT))
    command = programs.command_to_run(path, "direct")
    good = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "it works" in good.stdout, good.stderr
    work.write_text("print('something else')\n")
    bad = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert bad.returncode != 0
    assert "something else" not in bad.stdout


@pytest.mark.skipif(shutil.which("gramine-sgx") is None, reason="there is no gramine-sgx on the PATH")
def test_gramine_signs_what_is_rendered_and_the_measurement_is_read(tmp_path):
    gramine = os.environ.get("QUIRE_GRAMINE")
    if not gramine:
        pytest.skip("QUIRE_GRAMINE does not say where Gramine's libsysdb.so is")
    key = tmp_path / "key.pem"
    subprocess.run(["gramine-sgx-gen-private-key", str(key)], check=True)
    config, listing = enclave(tmp_path)
    path = tmp_path / "silo.manifest"
    path.write_text(render(dataclasses.replace(config, gramine=Path(gramine)), listing, SGX))
    assert not Sigstruct.decode(programs.sign(path, key).read_bytes()).debug


def test_the_json_of_an_answer_is_one_line(tmp_path):
    text = Answer(new_identity(tmp_path / "k"), b"q").encode()
    assert text.count(b"\n") == 1
    assert set(json.loads(text)) == {"identity", "quote"}
