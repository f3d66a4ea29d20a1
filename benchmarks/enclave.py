"""Enclaves: rendering beside hashing, verifying a quote beside plain ECDSA, and how many files a silo opens.

Rendering a manifest of 5,000 trusted files, beside SHA-256 over the same files, in turns; the files are of this
machine's Python and warm in its cache. Verifying a quote with `dcap-qvl` (three certificates under a root of our own,
revocation lists, TCB information, four signatures of the quote's own) beside a plain chain of P-256 certificates of the
same length, each signature checked by OpenSSL, in turns. And the list of files of the default silo, traced by running
it; what the short form leaves out.

Nothing of this ran inside Gramine or on a processor with SGX.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import harness

FILES, MODULES = 5000, ("stdlib", "purelib", "platlib")


def of_this_machine(count: int) -> list[str]:
    """Return files of Python's and its packages', sorted by name."""
    from quire.enclave.settings import PLAIN

    found: set[str] = set()
    for name in MODULES:
        for folder, _, names in os.walk(sysconfig.get_path(name)):
            paths = (os.path.join(folder, one) for one in names if one.endswith(".py"))
            found.update(path for path in paths if PLAIN.fullmatch(path) and os.path.isfile(path))
    if len(found) < count:
        raise SystemExit(f"Only {len(found)} files were found; {count} are wanted.")
    return sorted(found)[:count]


def rendering(folder: Path, repetitions: int) -> list[harness.Figure]:
    """Render and hash in turns."""
    from quire.enclave.check import problems
    from quire.enclave.files import Listing
    from quire.enclave.manifest import SGX, render
    from quire.enclave.settings import read_settings

    runtime = folder / "gramine" / "runtime" / "glibc"
    runtime.mkdir(parents=True)
    (folder / "gramine" / "libsysdb.so").write_bytes(b"a stand-in")
    (folder / "enclave.yaml").write_text("name: bench\nstore: store\nkeys: keys\ngramine: gramine\n")
    settings, files = read_settings(folder / "enclave.yaml"), of_this_machine(FILES)
    python = os.path.realpath(sys.executable)
    files[-1] = python
    listing = Listing(python, ("/x",), ("/lib",), "/x/y", tuple(files))

    def plainly() -> float:
        started = time.perf_counter()
        for name in files:
            with open(name, "rb") as file:
                hashlib.sha256(file.read()).hexdigest()
        return time.perf_counter() - started

    def whole() -> float:
        started = time.perf_counter()
        render(settings, listing, SGX)
        return time.perf_counter() - started

    def checked() -> float:
        started = time.perf_counter()
        if wrong := problems(render(settings, listing, SGX), SGX):
            raise SystemExit(f"The rendering is not sound: {wrong[0]}")
        return time.perf_counter() - started

    plainly()
    times = harness.interleaved({"render": whole, "checked": checked, "hash": plainly}, repetitions)
    size = sum(os.path.getsize(name) for name in files) / 2**20
    note = f"{size:.0f} MiB; rendering {harness.spread(times['render'])} s, hashing {harness.spread(times['hash'])} s"
    what, ratio = f"{FILES:,} trusted files over hashing them", harness.median_ratio
    more = "as `quire enclave render` does: the rendering is read again as TOML and held against the schema"
    return [
        harness.Figure(f"rendering {what}", ratio(times, "render", "hash"), "<= 2", note),
        harness.Figure(f"rendering and checking {what}", ratio(times, "checked", "hash"), None, more),
    ]


def verifying(repetitions: int, calls: int) -> list[harness.Figure]:
    """Verify a quote, and a plain chain of as many certificates, in turns."""
    sys.path.insert(1, str(harness.ROOT / "tests" / "support"))
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from sgx_chain import MEASUREMENT, NOW, Authority

    from quire.enclave.chain import collateral_of, dcap_chain
    from quire.enclave.policy import Allowed
    from quire.enclave.quotes import report_data
    from quire.enclave.verify import Challenge, verify
    from quire.privacy.identity.keys import PrivateIdentity

    made, key = Authority(), PrivateIdentity.from_seed(b"benchmark".ljust(32)).public
    asked, allowed = Challenge(bytes(32), bytes(32), NOW), Allowed(frozenset({MEASUREMENT.hex()}))
    quote = made.quote(report_data(key, asked.nonce, asked.policy))
    proof, chain = collateral_of(made.collateral()), dcap_chain(made.root_der)
    links = [(made.pck, made.ca), (made.ca, made.root), (made.root, made.root)]

    def whole() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            verify(quote, key, asked, allowed, proof, NOW, chain)
        return (time.perf_counter() - started) / calls

    def plain() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            for one, issuer in links:
                public = issuer.public_key()
                public.verify(  # type: ignore[union-attr, call-arg, arg-type]
                    one.signature, one.tbs_certificate_bytes, ec.ECDSA(SHA256())
                )
        return (time.perf_counter() - started) / calls

    times = harness.interleaved({"quote": whole, "chain": plain}, repetitions)
    note = f"quote {harness.spread([1e3 * t for t in times['quote']])} ms, chain of {len(links)} certificates "
    note += f"{harness.spread([1e3 * t for t in times['chain']])} ms"
    return [
        harness.Figure(
            "a quote over a plain ECDSA P-256 chain", harness.median_ratio(times, "quote", "chain"), "<= 10", note
        )
    ]


def tracing(folder: Path) -> list[harness.Figure]:
    """Trace the default silo."""
    from quire.enclave.settings import read_settings
    from quire.enclave.tracing import trace

    started = time.perf_counter()
    listing = trace(read_settings(folder / "enclave.yaml"))
    seconds = time.perf_counter() - started
    compiled = sum(name.endswith(".pyc") for name in listing.files)
    size = sum(os.path.getsize(name) for name in listing.files) / 2**20
    note = f"{size:.0f} MiB, {compiled:,} of them compiled modules; traced and compiled in {seconds:.0f} s"
    return [harness.Figure("files in the list of the default silo", len(listing.files), "< 8000", note)]


def main() -> int:
    """Measure all of it."""
    args = harness.arguments(__doc__)
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        figures += rendering(Path(scratch), 3 if args.quick else 11)
        try:
            figures += verifying(3 if args.quick else 11, 50 if args.quick else 300)
        except ImportError as error:
            note = f"Not measured: {error}."
            figures.append(harness.Figure("a quote over a plain ECDSA P-256 chain", None, "<= 10", note))
        if not args.quick:
            figures += tracing(Path(scratch))
    return harness.report(figures, args, "Enclaves")


if __name__ == "__main__":
    sys.exit(main())
