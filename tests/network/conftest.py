"""One consortium of four hospitals, a network namespace each, for all tests of this folder."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from evidence import tapped
from heart import HOSPITALS, STRANGER, WATCHED, bundle_of, provision, write_silo
from proxied import PLACES
from running import SERVER, Running
from wires import wired

from quire.clients.code import code_hash
from quire.consortium.services import free_ports

PORT = 8443


@pytest.fixture(scope="package")
def hearts() -> Iterator[Running]:
    """Provisioned, approved and started; over policies, to begin with, that let a seed decide.

    One hospital's requests are recorded, and its packets sniffed, from the first byte on.
    """
    if shutil.which("haproxy", path=PLACES) is None:
        pytest.skip("haproxy is not installed")
    home = Path(tempfile.mkdtemp(prefix="q-", dir="/tmp"))
    with wired(SERVER, *HOSPITALS, STRANGER) as wires:
        if not wires.real:
            warnings.warn(f"All on loopback, and no link can be cut: {wires.why_not}", stacklevel=1)
        host = wires.addresses[SERVER]
        server = f"{host}:{PORT if wires.real else free_ports(1)[0]}"
        folders = {name: home / name for name in (SERVER, *HOSPITALS)}
        made = Running(home, folders, server, wires)
        try:
            provision(made, server)
            bundle = bundle_of(made)
            for name in HOSPITALS:
                made.good("app", "approve", bundle, "--silo", folders[name] / "silo.yaml", at=name)
                more = f"code: ['{code_hash()}'], test_seed: true"
                write_silo(folders[name], name, more, population=f"{name}-test")
            with tapped(made, WATCHED):
                made.start_all()
                yield made
        finally:
            left = made.close()
    assert left == []
