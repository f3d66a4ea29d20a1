"""Settings, the list of files, and what is rendered from them."""

import dataclasses
import hashlib
import json
import os
import tomllib

import pytest
from enclaves import SETTINGS, enclave
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.enclave.check import problems
from quire.enclave.errors import EnclaveError
from quire.enclave.files import Listing
from quire.enclave.inside import BANNER
from quire.enclave.manifest import DIRECT, PROFILES, SGX, mounts, render
from quire.enclave.settings import SIZES, read_settings
from quire.errors import DataError


@pytest.mark.parametrize("profile", PROFILES)
def test_a_rendering_is_sound_and_has_no_insecure_key(tmp_path, profile):
    text = render(*enclave(tmp_path), profile)
    assert problems(text, profile) == []
    assert "insecure" not in text
    assert (BANNER in text) == (profile == DIRECT)


def test_the_same_files_give_the_same_manifest(tmp_path):
    assert render(*enclave(tmp_path), SGX) == render(*enclave(tmp_path), SGX)


def test_production_is_closed(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/of/the/host")
    monkeypatch.setenv("LD_PRELOAD", "/of/the/host.so")
    config, listing = enclave(tmp_path)
    found = tomllib.loads(render(config, listing, SGX))
    assert found["sgx"]["debug"] is False
    assert found["sgx"]["remote_attestation"] == "dcap"
    assert "allowed_files" not in found["sgx"]
    assert found["loader"]["argv"] == [listing.python, *config.command]
    assert "of/the/host" not in json.dumps(found)
    assert all(isinstance(value, str) for value in found["loader"]["env"].values())
    sealed = {one["path"]: one for one in found["fs"]["mounts"] if one["type"] == "encrypted"}
    assert set(sealed) == {"/silo/store", "/silo/keys"}
    assert {one["key_name"] for one in sealed.values()} == {"_sgx_mrenclave"}
    assert found["sys"]["disallow_subprocesses"] is True


def test_every_file_is_listed_with_its_hash_gramines_own_included(tmp_path):
    config, listing = enclave(tmp_path)
    found = tomllib.loads(render(config, listing, SGX))["sgx"]["trusted_files"]
    files = {one["uri"].removeprefix("file:"): one["sha256"] for one in found}
    own = {str(config.gramine / "libsysdb.so"), str(config.gramine / "runtime/glibc/libc.so.6")}
    assert set(files) == {*listing.files, *own}
    for path, digest in files.items():
        with open(path, "rb") as file:
            assert digest == hashlib.sha256(file.read()).hexdigest()


@pytest.mark.parametrize(
    ("line", "where", "value"),
    [
        ("size: 16G", ("sgx", "enclave_size"), "16G"),
        ("threads: 128", ("sgx", "max_threads"), 128),
        ("product: 5", ("sgx", "isvprodid"), 5),
        ("version: 6", ("sgx", "isvsvn"), 6),
        ("stack: 16M", ("sys", "stack", "size"), "16M"),
        ("descriptors: 1000", ("sys", "fds", "limit"), 1000),
        ("cores: 4", ("loader", "env", "OMP_NUM_THREADS"), "4"),
        ("cores: 4", ("loader", "env", "MKL_NUM_THREADS"), "4"),
        ("seal: signer", ("fs", "mounts", -1, "key_name"), "_sgx_mrsigner"),
        ("command: [-c, 'print(\"\\u00e9 \\\\ 7\")']", ("loader", "argv", -1), 'print("\\u00e9 \\\\ 7")'),
    ],
)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_setting_is_rendered(tmp_path, profile, line, where, value):
    text = render(*enclave(tmp_path, line + "\n"), profile)
    assert problems(text, profile) == []
    found = tomllib.loads(text)
    if line.startswith("seal") and profile == DIRECT:
        assert "key_name" not in text
        return
    for key in where:
        found = found[key]
    assert found == value


@settings(max_examples=15)
@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), min_size=1, max_size=4))
def test_any_command_comes_through_as_it_is(tmp_path_factory, command):
    config, listing = enclave(tmp_path_factory.mktemp("e"))
    text = render(dataclasses.replace(config, command=tuple(command)), listing, SGX)
    assert tomllib.loads(text)["loader"]["argv"][1:] == command
    assert problems(text, SGX) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SETTINGS + "size: 3G\n", "'size' must be one of"),
        (SETTINGS + "threads: 1\n", "from 4 to 4096"),
        (SETTINGS + "seal: nobody\n", "measurement, signer"),
        (SETTINGS + "command: []\n", "what Python shall run"),
        (SETTINGS + "debug: true\n", "no key 'debug'"),
        (SETTINGS.replace("keys: keys", "keys: store"), "two folders"),
        (SETTINGS.replace("keys: keys", "keys: store/keys"), "two folders"),
        (SETTINGS.replace("store: store", "store: ../store"), "plain characters"),
        (SETTINGS.replace("store: store", 'store: "a\\"b"'), "plain characters"),
        (SETTINGS.replace("hospital-1", '"Hospital 1"'), "small letters"),
        (SETTINGS.replace("gramine: gramine\n", ""), "lacks the key 'gramine'"),
    ],
)
def test_wrong_settings_are_one_sentence(tmp_path, text, words):
    (tmp_path / "enclave.yaml").write_text(text)
    with pytest.raises(DataError, match=words):
        read_settings(tmp_path / "enclave.yaml")


def test_every_size_is_a_power_of_two():
    assert SIZES[0] == "512M"
    assert SIZES[-1] == "512G"


def test_what_is_missing_is_said(tmp_path):
    config, listing = enclave(tmp_path)
    os.remove(tmp_path / "a.py")
    with pytest.raises(EnclaveError, match=r"a\.py is in the list of files and cannot be read"):
        render(config, listing, SGX)
    os.remove(config.gramine / "libsysdb.so")
    with pytest.raises(EnclaveError, match="no Gramine in"):
        render(config, listing, SGX)


def test_what_is_sealed_cannot_be_trusted(tmp_path):
    config, listing = enclave(tmp_path)
    config.store.mkdir()
    (config.store / "x").write_text("x")
    within = Listing(listing.python, (), ("/lib",), "/x", (*listing.files, str(config.store / "x")))
    with pytest.raises(EnclaveError, match="sealed folder"):
        render(config, within, SGX)


def test_mounts_are_as_narrow_as_the_files_need():
    paths = ("/usr/lib/x/a.so", "/usr/lib/y/b.so", "/usr/share/c", "/etc/hosts", "/opt/venv/lib/d.py")
    assert mounts(paths) == ["/etc/hosts", "/opt/venv", "/usr/lib", "/usr/share"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        {"format": 2},
        {"files": []},
        {"files": ["relative"]},
        {"files": ["/a/../b"]},
        {"files": ["/a", "/a"]},
        {"files": ["/a\nb"]},
        {"files": ['/a"b']},
        {"files": [7]},
        {"files": "/a"},
        {"python": None},
        {"more": 1},
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, body):
    sound = {"format": 1, "python": "/p", "path": [], "libraries": ["/lib"], "bytecode": "/b", "files": ["/p"]}
    path = tmp_path / "list.json"
    path.write_text(json.dumps(sound))
    Listing.read(path)
    path.write_bytes(body if isinstance(body, bytes) else json.dumps(sound | body).encode())
    with pytest.raises(EnclaveError):
        Listing.read(path)
    with pytest.raises(EnclaveError, match="quire enclave trace"):
        Listing.read(tmp_path / "missing")
