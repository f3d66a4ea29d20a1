"""What is kept between two stages: state that is whole or absent, and secrets that are ciphertext where they lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import Home

from quire.clients.store import Store, StoreDamaged, StoreError, secret_key
from quire.clients.store.blobs import Blobs
from quire.clients.store.files import private_folder
from quire.privacy.identity.keys import PrivateIdentity

WRONG_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a//b",
    "a/../b",
    "A",
    "a b",
    "a.b",
    "a/b/c/d/e",
    "x" * 65,
    "ä",
    "a\n",
]


def everything(folder: Path) -> bytes:
    return b"".join((Path(root) / name).read_bytes() for root, _, files in os.walk(folder) for name in files)


def test_state_survives_and_is_replaced_whole(home: Home) -> None:
    with home.open() as store:
        assert store.state.get("scaffold") is None
        store.state.put("scaffold", b"one")
        store.state.put("session-7/round-3/mine", b"")
        store.state.put("scaffold", b"two")
    with home.open() as store:
        assert store.state.get("scaffold") == b"two"
        assert store.state.get("session-7/round-3/mine") == b""
        assert list(store.state.names()) == ["scaffold", "session-7/round-3/mine"]
        store.state.put("session-70", b"stays")
        store.state.put("session-7", b"goes")
        store.state.clear("session-7")
        store.state.clear("never-there")
        store.state.delete("never-there")
        assert list(store.state.names()) == ["scaffold", "session-70"]


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_no_name_leads_out_of_the_store(home: Home, name: str) -> None:
    with home.open() as store:
        for use in (store.state.get, store.state.delete, store.state.clear, store.secrets.get, store.secrets.wipe):
            with pytest.raises(StoreError, match="cannot name something"):
                use(name)
        for put in (store.state.put, store.secrets.put):
            with pytest.raises(StoreError, match="cannot name something"):
                put(name, b"")


def test_state_is_bounded(tmp_path: Path) -> None:
    private_folder(tmp_path / "state")
    blobs = Blobs(tmp_path / "state", limit=100)
    blobs.put("a", bytes(100))
    with pytest.raises(StoreError, match="has 101 bytes; at most 100"):
        blobs.put("a", bytes(101))
    assert blobs.get("a") == bytes(100)


def test_a_link_is_not_followed(home: Home, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    with home.open() as store:
        (home.store / "state" / "a.bin").symlink_to(outside)
        with pytest.raises(StoreError):
            store.state.get("a")
        (home.store / "state" / "b.bin.new").symlink_to(outside)
        with pytest.raises(StoreError):
            store.state.put("b", b"new")
    assert outside.read_bytes() == b"untouched"


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.binary(max_size=40), st.integers(0, 10**6), st.integers(0, 7), st.sampled_from(["state", "secrets"]))
def test_a_flipped_bit_is_found(home: Home, data: bytes, place: int, bit: int, part: str) -> None:
    with home.open() as store:
        kept = getattr(store, part)
        kept.put("a", data)
        assert kept.get("a") == data
        file = home.store / part / "a.bin"
        content = bytearray(file.read_bytes())
        content[place % len(content)] ^= 1 << bit
        file.write_bytes(content)
        with pytest.raises(StoreDamaged):
            kept.get("a")
        file.write_bytes(content[: place % len(content)])
        with pytest.raises(StoreDamaged):
            kept.get("a")


def test_secrets_are_ciphertext_where_they_lie(home: Home) -> None:
    secret = os.urandom(64)
    with home.open() as store:
        store.secrets.put("masks/round-1", secret)
        store.secrets.put("masks/round-2", secret)
        assert store.secrets.get("masks/round-1") == secret
    content = everything(home.folder)
    assert secret not in content
    assert secret_key(home.identity) not in content
    assert home.identity.encode_secret()[2:] not in content
    first, second = (home.store / "secrets" / "masks" / f"round-{n}.bin" for n in (1, 2))
    assert first.read_bytes() != second.read_bytes()  # a nonce of its own
    second.write_bytes(first.read_bytes())
    with home.open() as store, pytest.raises(StoreDamaged, match="cannot be decrypted"):
        store.secrets.get("masks/round-2")


def test_secrets_of_another_store_or_another_key_do_not_open(home: Home, tmp_path: Path) -> None:
    with home.open() as store:
        store.secrets.put("a", b"secret")
    with home.open(key=b"k" * 32) as store, pytest.raises(StoreDamaged, match="cannot be decrypted"):
        store.secrets.get("a")
    with pytest.raises(StoreError, match="32 bytes, not 5"):
        home.open(key=b"short")
    with Store.open(tmp_path / "other", home.identity) as other:
        other.secrets.put("a", b"")
        (tmp_path / "other" / "secrets" / "a.bin").write_bytes((home.store / "secrets" / "a.bin").read_bytes())
        with pytest.raises(StoreDamaged, match="cannot be decrypted"):
            other.secrets.get("a")
    assert secret_key(home.identity) != secret_key(PrivateIdentity.from_seed(b"j" * 32))


def test_a_wiped_secret_is_overwritten_before_it_is_unlinked(home: Home) -> None:
    with home.open() as store:
        store.secrets.put("s/a", b"1" * 100)
        store.secrets.put("s/b", b"2" * 100)
        store.secrets.put("t", b"3" * 100)
        file = home.store / "secrets" / "s" / "a.bin"
        before = file.read_bytes()
        held = os.open(file, os.O_RDONLY)  # the same inode, seen after its name is gone
        store.secrets.wipe("s/a")
        after = os.pread(held, 1000, 0)
        os.close(held)
        assert not file.exists()
        assert len(after) == len(before)
        assert sum(a == b for a, b in zip(after, before, strict=True)) < len(before) // 4
        store.secrets.wipe("s/a")
        assert store.secrets.get("s/a") is None
        assert store.secrets.wipe_all("s") == 1
        assert store.secrets.names() == ["t"]
        assert store.secrets.wipe_all() == 1
        assert store.secrets.names() == []
