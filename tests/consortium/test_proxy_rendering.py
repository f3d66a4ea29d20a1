"""The proxy's configuration as text: what it must say, and what no path can make it say."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from proxied import PLACES, needs_haproxy

from quire.consortium.about import Server
from quire.consortium.authority import Authority
from quire.consortium.loopback import make_loopback
from quire.consortium.proxy import ProxyError, ServerProxy, SiloProxy, find_haproxy
from quire.errors import QuireError

PARTS = ServerProxy(8443, Path("/a/s.pem"), Path("/a/ca.pem"), Path("/a/crl.pem"), 1, Path("/a/l.pem"), Path("/a/n"), 2)


def test_every_listener_asks_for_a_certificate_or_is_on_loopback_or_this_users_own() -> None:
    text = PARTS.render()
    binds = [line.split() for line in text.splitlines() if line.strip().startswith("bind ")]
    assert len(binds) == 3
    (lane,) = [words for words in binds if words[1].startswith("unix@")]
    assert "/" not in lane[1]  # in the folder that it is started in, whose path may be too long for a socket's
    assert lane[2:] == ["mode", "600"]
    for words in binds:
        if words is not lane and not words[1].startswith("127.0.0.1:"):
            assert words[words.index("verify") + 1] == "required"
            assert {"ssl", "ca-file", "crl-file"} <= set(words)
    assert "ssl-min-ver TLSv1.2" in text
    assert "track-sc1 src,ipmask(32,64) table addresses" in text  # who has one IPv6 address has a /64 of them
    silo = SiloProxy(Server("h.example"), Path("/c"), Path("/d"), Path("/e"), 3, Path("/f"), 4).render()
    assert all(" 127.0.0.1:" in line for line in silo.splitlines() if line.strip().startswith("bind "))
    (out,) = [line for line in silo.splitlines() if " server consortium " in line]
    assert "verify required verifyhost h.example sni str(h.example)" in out


@given(st.text(max_size=60))
@settings(max_examples=100)
def test_no_path_can_say_anything_to_the_proxy(name: str) -> None:
    try:
        text = replace(PARTS, crl=Path("/a") / name).render()
    except (ProxyError, ValueError):
        return
    plain = PARTS.render()
    assert len(text.splitlines()) == len(plain.splitlines())
    changed = [line for line, other in zip(text.splitlines(), plain.splitlines(), strict=True) if line != other]
    assert len(changed) <= 1
    for line in changed:  # it stays within its own quotes
        before, _, after = line.partition("crl-file '")
        assert before.startswith("    bind ")
        assert after.count("'") == 1
        assert after.endswith("' verify required alpn http/1.1")


@needs_haproxy
@pytest.mark.parametrize("name", ["a b", "a#b", "a$HOME", 'a"b', "a\\b", "ä", "a;b", "a,b)(c", "a%[src]"])
def test_haproxy_reads_strange_paths_as_they_are(tmp_path: Path, name: str) -> None:
    folder, now = tmp_path / name, int(time.time())
    folder.mkdir()
    own, authority = make_loopback(folder), Authority.new("hearts", now)
    (folder / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    (folder / "crl.pem").write_bytes(authority.crl({}, 1, now).public_bytes(Encoding.PEM))
    keys = folder / "nodes.map"
    keys.write_text("clinic AAAA\n")
    parts = ServerProxy(8443, own.both, folder / "ca.pem", folder / "crl.pem", 1, own.certificate, keys, 2)
    file = folder / "h.cfg"
    file.write_text(parts.render())
    done = subprocess.run([find_haproxy(PLACES), "-c", "-f", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr


def test_a_machine_without_haproxy_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.consortium.proxy._PLACES", ())
    with pytest.raises(QuireError, match="it is the package 'haproxy'"):
        find_haproxy("/nowhere")
