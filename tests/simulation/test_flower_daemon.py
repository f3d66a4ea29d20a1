"""The private SuperLink: its environment, its port, and that nothing of it is left behind."""

import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from quire.simulation import flower_daemon
from quire.simulation.flower_daemon import FlowerDaemon, environment, free_port, log_variables
from quire.simulation.processes import ProcessTree, alive


# ------------------------------------------------------------------------------------------------ environment
def test_the_environment_is_ours_alone(tmp_path):
    checkout, libraries = tmp_path / "checkout", tmp_path / "libraries"
    (checkout / "quire").mkdir(parents=True)
    libraries.mkdir()
    before = {
        "PATH": "/usr/bin",
        "PYTHONPATH": os.pathsep.join([str(checkout), "", "relative", str(libraries)]),
        "FLWR_HOME": "/somebody",
        "FLWR_INTERNAL_GRPC_FLEET_API": "1",
        "RAY_ADDRESS": "ray://elsewhere:10001",
        "NO_PROXY": "example.org",
        "KEPT": "yes",
    }
    made = environment(before, tmp_path / "home", tmp_path / "run")
    assert made["PYTHONPATH"] == str(libraries)
    assert made["FLWR_HOME"] == str(tmp_path / "home" / "flwr")
    assert made["QUIRE_RUN_DIR"] == str(tmp_path / "run")
    assert made["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert made["FLWR_TELEMETRY_ENABLED"] == made["RAY_USAGE_STATS_ENABLED"] == "0"
    assert made["HF_HUB_OFFLINE"] == made["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert made["NO_PROXY"] == "example.org,127.0.0.1,localhost"
    assert made["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert made["PATH"].endswith("/usr/bin")
    assert made["KEPT"] == "yes"
    assert not {"RAY_ADDRESS", "FLWR_INTERNAL_GRPC_FLEET_API"} & made.keys()
    assert "PYTHONPATH" not in environment({"PYTHONPATH": str(checkout)}, tmp_path, tmp_path)


def test_the_run_folder_is_named_absolutely(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert environment({}, tmp_path, Path("run"))["QUIRE_RUN_DIR"] == str(tmp_path / "run")


def test_the_key_of_the_log_goes_to_the_server_and_to_nobody_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {"QUIRE_LOG_KEY": "log.key", "QUIRE_PASSPHRASE_FILE": "words", "QUIRE_OTHER": "x"}
    keys = {"QUIRE_LOG_KEY": str(tmp_path / "log.key"), "QUIRE_PASSPHRASE_FILE": str(tmp_path / "words")}
    assert log_variables(before) == keys
    assert not keys.keys() & environment(before, tmp_path, tmp_path).keys()
    assert log_variables({"QUIRE_PASSPHRASE_FILE": "words"}) == {}


def test_a_free_port_can_be_listened_on():
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


# -------------------------------------------------------------------------------------------------- processes
BROOD = """
import subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
detached = [sys.executable, "-c", f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {code!r}], "
            "start_new_session=True, stdout=subprocess.PIPE); p.stdout.readline()"]
subprocess.run(detached)                                   # its parent ends at once: an orphan that ignores SIGTERM
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""


def test_a_tree_is_stopped_with_its_orphans_and_its_deaf_ones_and_nobody_else():
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    tree = ProcessTree()
    root = subprocess.Popen(
        [sys.executable, "-c", BROOD], env={**os.environ, **tree.mark}, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        tree.add(root.pid)
        root.stdout.readline()
        family = tree.update(thorough=True)
        assert len(family) == 3
        assert tree.stop(grace=0.5) == []
        assert not any(alive(process) for process in family)
        assert bystander.poll() is None
        assert tree.stop() == []
    finally:
        bystander.kill()
        bystander.wait()
        root.wait()
        root.stdout.close()


def test_a_process_that_was_never_added_is_found_by_its_mark():
    tree = ProcessTree()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={**os.environ, **tree.mark})
    deadline = time.monotonic() + 20
    while not tree.update(thorough=True) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tree.stop() == []
    assert child.wait(10) != 0


# ------------------------------------------------------------------------------------------------- the daemon
def test_a_daemon_leaves_nothing_behind(tmp_path, fake_programs, fake_superlink):
    fake_programs(flower_superlink=fake_superlink)
    daemon = FlowerDaemon(tmp_path / "run")
    daemon.start()
    processes = daemon.processes.update(thorough=True)
    (superlink,) = processes
    assert os.listdir(superlink.cwd()) == []  # Ray's workers import from there before they import from the bundle
    options = " ".join(superlink.cmdline())
    assert "--simulation" in options
    assert "--isolation subprocess" in options
    assert "--host 127.0.0.1" in options
    assert "--disable-runtime-dependency-installation" in options
    daemon.close()
    daemon.close()
    assert not daemon.home.exists()
    assert not any(alive(process) for process in processes)


class _Stranger(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


def test_a_stranger_at_the_port_is_not_taken_for_ours(tmp_path, fake_programs, fake_superlink, monkeypatch):
    """Two launchers may pick the same port; the other's SuperLink would answer, and run our app."""
    stranger = HTTPServer(("127.0.0.1", 0), _Stranger)
    threading.Thread(target=stranger.serve_forever, daemon=True).start()
    ports = iter([stranger.server_port, free_port()])
    monkeypatch.setattr(flower_daemon, "free_port", lambda: next(ports))
    fake_programs(flower_superlink=fake_superlink)
    daemon = FlowerDaemon(tmp_path / "run")
    try:
        daemon.start()
        assert str(stranger.server_port) not in (daemon.home / "flwr" / "config.toml").read_text()
    finally:
        daemon.close()
        stranger.shutdown()
        stranger.server_close()
