"""The machines that the other tests here run on: they have addresses, reach each other, and can be cut off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from wires import LOOPBACK, Wires

pytestmark = pytest.mark.slow
_SERVE = "import socket; s = socket.create_server(('', 7777)); print('up', flush=True); [s.accept() for _ in range(9)]"
_REACH = "import socket, sys; socket.create_connection((sys.argv[1], 7777), timeout=1)"


@pytest.mark.parametrize("user", [False, True], ids=["as we are", "in a user namespace"])
def test_machines_reach_each_other_until_a_link_is_cut_and_leave_nothing_behind(user: bool) -> None:
    wires = Wires(["server", "clinic"], user=user)
    try:
        wires.needed()
        server, clinic = wires.addresses["server"], wires.addresses["clinic"]
        assert len({server, clinic, LOOPBACK}) == 3
        with subprocess.Popen(
            [*wires.inside("server"), sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, text=True
        ) as serving:
            try:
                assert serving.stdout is not None
                assert serving.stdout.readline() == "up\n"
                reach = (sys.executable, "-c", _REACH)
                assert wires.listening("server") == {"0.0.0.0"}
                assert wires.listening("clinic") == set()
                assert wires.run("clinic", *reach, server).returncode == 0
                assert wires.run("clinic", *reach, LOOPBACK).returncode == 1  # its own, on which nobody listens
                wires.cut("clinic")
                assert wires.run("clinic", *reach, server).returncode == 1
                wires.mend("clinic")
                assert wires.run("clinic", *reach, server).returncode == 0
            finally:
                serving.kill()
    finally:
        wires.close()
    assert not Path("/run/netns/clinic").exists()


def test_without_namespaces_all_are_this_machine_and_it_is_said_why() -> None:
    wires = Wires(["server", "clinic"], real=False)
    assert (wires.real, wires.inside("clinic"), wires.addresses["clinic"]) == (False, [], LOOPBACK)
    with pytest.raises(pytest.skip.Exception, match=r"needs a network of its own: \S+ is set"):
        wires.cut("clinic")
