"""A small enclave in a folder: settings, a stand-in for Gramine's files, a list of files. And signatures."""

from __future__ import annotations

import functools
import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric import rsa

from quire.enclave.files import Listing
from quire.enclave.settings import read_settings
from quire.enclave.sigstruct import padded, signed_part

SETTINGS = "name: hospital-1\nstore: store\nkeys: keys\ngramine: gramine\n"


def enclave(folder, more: str = ""):
    """Return settings and a list of three files, all below a folder."""
    runtime = folder / "gramine" / "runtime" / "glibc"
    runtime.mkdir(parents=True, exist_ok=True)
    (folder / "gramine" / "libsysdb.so").write_bytes(b"libos")
    (runtime / "libc.so.6").write_bytes(b"libc")
    (folder / "enclave.yaml").write_text(SETTINGS + more)
    python = folder / "python3"
    python.write_bytes(b"python")
    files = [python]
    for name in ("a.py", "b.py"):
        (folder / name).write_text(f"# {name}\n")
        files.append(folder / name)
    settings = read_settings(folder / "enclave.yaml")
    names = tuple(sorted(map(str, files)))
    listing = Listing(str(python), (str(folder),), ("/lib",), str(folder / "enclave-bytecode"), names)
    listing.write(settings.files)
    return settings, listing


@functools.cache
def signature(measurement=b"\x33" * 32, flags=0x4, mask=2**64 - 1, product=7, version=9, exponent=3) -> bytes:
    """Return a SIGSTRUCT, signed with a key made for it (Intel SDM volume 3D, SIGSTRUCT)."""
    modulus, private = _key()
    out = bytearray(1808)
    out[:16] = bytes.fromhex("06000000e10000000000010000000000")
    out[20:24] = bytes([0x22, 0x11, 0x26, 0x20])
    out[24:40] = bytes.fromhex("01010000600000006000000001000000")
    out[128:512] = modulus.to_bytes(384, "little")
    struct.pack_into("<I", out, 512, exponent)
    struct.pack_into("<QQ", out, 928, flags, 3)
    struct.pack_into("<QQ", out, 944, mask, 0)
    out[960:992] = measurement
    struct.pack_into("<HH", out, 1024, product, version)
    out[516:900] = pow(padded(signed_part(bytes(out))), private, modulus).to_bytes(384, "little")
    return bytes(out)


def signer_of(data: bytes) -> str:
    return hashlib.sha256(data[128:512]).hexdigest()


@functools.cache
def _key() -> tuple[int, int]:
    numbers = rsa.generate_private_key(public_exponent=3, key_size=3072).private_numbers()
    return numbers.public_numbers.n, numbers.d
