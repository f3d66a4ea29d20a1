"""Three doors, one set of apps: the same seed gives the same model, bit for bit, through each of them."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from gated import SHIPPED

import quire
from quire.clients import client_app
from quire.clients.code import code_hash
from quire.clients.identity import new_identity
from quire.conf.compose import compose
from quire.errors import RunFailed
from quire.simulation.flower import run_flower
from quire.simulation.flower_daemon import environment, free_port
from quire.simulation.grid import InlineGrid
from quire.simulation.processes import ProcessTree

ROOT = Path(__file__).resolve().parents[1]
SILOS = 3
OVERRIDES = f"task=breast_cancer partition.silos={SILOS} strategy=fedprox strategy.rounds=2 strategy.min_silos=2 seed=7"


def about(folder):
    return json.loads((folder / "run.json").read_text())


def events(folder, kind="round"):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def plant(folder, *packages):
    """Put packages there that must never be imported."""
    for name in packages:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('the foreign package {name} was imported')")
    return folder


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    return quire.run(OVERRIDES, tmp_path_factory.mktemp("inline") / "run")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout of the code as it is now."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, folder / name)
    return folder


class FlowerUser:
    """Somebody with a Flower of their own: a home, ports, and what was started there, stopped at the end."""

    def __init__(self):
        self.home = Path(tempfile.mkdtemp(prefix="q-"))
        self.flwr_home = self.home / "flwr"
        self.flwr_home.mkdir()
        self.processes = ProcessTree()
        self.variables = {
            **environment(os.environ, self.home, self.home),
            **self.processes.mark,
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        }
        del self.variables["QUIRE_RUN_DIR"]

    def call(self, *command, cwd, limit=300):
        return subprocess.run(
            command, cwd=cwd, env=self.variables, capture_output=True, text=True, timeout=limit, check=False
        )

    def start(self, *command, cwd, **variables):
        with (self.home / "log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=cwd, env={**self.variables, **variables}, stdout=log, stderr=subprocess.STDOUT
            )
        self.processes.add(process.pid)

    def close(self):
        assert self.processes.stop() == []
        shutil.rmtree(self.home, ignore_errors=True)


def silo_file(folder, partition):
    """Write the file of a silo in a test deployment: a part of a shipped data set, and the policy of a test."""
    folder.mkdir()
    new_identity(folder / "silo.key")
    path = folder / "silo.yaml"
    path.write_text(
        f"data: {{connector: shipped, partition: {partition}, partitions: {SILOS}}}\n"
        f"population: {{name: breast-{partition}, records: 150}}\n"
        "policy: {modes: [none], aggregation: [plain], code: [], min_cohort: 2, colluders: 0, test_seed: true}\n"
    )
    return path


@pytest.fixture(scope="module")
def flower_user():
    user = FlowerUser()
    yield user
    user.close()


# ----------------------------------------------------------------------------------------- door 1: runtime=flower
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_runtime_flower_gives_the_inline_model_whatever_lies_where_it_is_called(tmp_path, monkeypatch, inline):
    monkeypatch.chdir(plant(tmp_path / "here", "quire", "clients", "strategies"))
    monkeypatch.setenv("PYTHONPATH", str(plant(tmp_path / "path", "clients", "strategies", "conf")))
    result = run_flower(compose(f"{OVERRIDES} runtime=flower"), tmp_path / "run")
    assert result.model == inline.model
    found = about(tmp_path / "run")
    assert (found["status"], found["runtime"], found["rounds"]) == ("completed", "flower", 2)
    assert found["code"] == about(inline.folder)["code"] == code_hash()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (inline.folder / "model.safetensors").read_bytes()
    assert not (tmp_path / "run" / "flower.log").exists()
    for mine, theirs in zip(events(tmp_path / "run"), events(inline.folder), strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}


# ------------------------------------------------------------------------------------------- door 2: flwr run .
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_flwr_run_gives_the_inline_model_though_flowers_daemon_came_from_a_foreign_app(
    tmp_path, flower_user, checkout, inline
):
    foreign = plant(tmp_path / "foreign", "clients", "strategies", "conf", "privacy", "simulation")
    declared = (checkout / "pyproject.toml").read_bytes()
    assert flower_user.call("flwr", "ls", cwd=foreign).returncode == 0  # this starts the daemon, and there

    config = ("--run-config", f'overrides="{OVERRIDES}"', "--federation-config", f"num-supernodes={SILOS}")
    done = flower_user.call("flwr", "run", ".", *config, "--stream", cwd=checkout)
    (folder,) = (flower_user.flwr_home / "quire-runs").iterdir()
    assert about(folder)["model"] == inline.model, done.stdout
    assert about(folder)["status"] == "completed"
    assert f"Results are in {folder}" in done.stdout
    assert (checkout / "pyproject.toml").read_bytes() == declared
    assert {path.name for path in checkout.iterdir()} == set(SHIPPED)

    # Flower's default of two SuperNodes is answered at once, with what to type.
    started = time.monotonic()
    done = flower_user.call("flwr", "run", ".", *config[:2], "--stream", cwd=checkout)
    assert f"2 nodes joined, but the settings have {SILOS} silos" in done.stdout
    assert f"--federation-config 'num-supernodes={SILOS}'" in done.stdout
    assert time.monotonic() - started < 100


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_daemon_that_serves_other_code_is_found_out(tmp_path, checkout):
    stale = tmp_path / "stale"
    shutil.copytree(checkout, stale)
    with (stale / "clients" / "training.py").open("a") as file:
        file.write("\n# an edit\n")
    user = FlowerUser()
    try:
        assert user.call("flwr", "ls", cwd=stale).returncode == 0
        config = ("--run-config", f'overrides="{OVERRIDES}"', "--federation-config", f"num-supernodes={SILOS}")
        done = user.call("flwr", "run", ".", *config, "--stream", cwd=checkout)
        (folder,) = (user.flwr_home / "quire-runs").iterdir()
        found = about(folder)
    finally:
        user.close()
    assert found["status"] == "failed"
    assert f"{SILOS} of {SILOS} silos run other code than the server" in found["error"]
    assert found["error"] in done.stdout


# ------------------------------------------------------------------------- door 3: a SuperLink with SuperNodes
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_superlink_with_supernodes_gives_the_inline_model(tmp_path, checkout, inline):
    user = FlowerUser()
    try:
        address, empty = f"127.0.0.1:{free_port()}", user.home / "empty"
        empty.mkdir()
        (user.flwr_home / "config.toml").write_text(
            f'[superlink]\ndefault = "loopback"\n[superlink.loopback]\naddress = "{address}"\ninsecure = true\n'
        )
        options = ("--insecure", "--isolation", "subprocess", "--host", "127.0.0.1", "--port", address.split(":")[1])
        folder = tmp_path / "run"
        user.start(
            "flower-superlink",
            *options,
            "--disable-runtime-dependency-installation",
            cwd=empty,
            QUIRE_RUN_DIR=str(folder),
        )
        for silo in range(SILOS):
            user.start(
                *("flower-supernode", "--insecure", "--superlink", address, "--port", str(free_port())),
                *("--node-config", f'silo="{silo_file(user.home / f"silo-{silo}", silo)}"'),
                cwd=empty,
                FLWR_HOME=str(user.home / f"node-{silo}"),
            )
        deadline = time.monotonic() + 120
        config = ("--run-config", f'overrides="{OVERRIDES}"', "--format", "json")
        while (done := user.call("flwr", "run", ".", "loopback", *config, cwd=checkout)).stdout.count('"run-id"') == 0:
            assert time.monotonic() < deadline, done.stdout + done.stderr
            time.sleep(1)
        deadline = time.monotonic() + 500
        while not (folder / "run.json").exists() or about(folder)["status"] == "running":
            assert time.monotonic() < deadline, (user.home / "log").read_text()
            time.sleep(0.5)
        ledgers = [
            (user.home / f"silo-{silo}" / "store" / "ledger" / f"breast-{silo}.jsonl").read_text()
            for silo in range(SILOS)
        ]
    finally:
        user.close()
    found = about(folder)
    assert (found["status"], found["runtime"], found["error"]) == ("completed", "deployment", None)
    assert found["model"] == inline.model
    assert found["code"] == code_hash()
    assert [event["replied"] for event in events(folder)] == [event["replied"] for event in events(inline.folder)]
    for silo in range(SILOS):  # counted and charged before anything left
        assert ledgers[silo].count('"kind":"charge"') == 1


# --------------------------------------------------------------------------------- what may not come through a door
def test_other_code_than_the_servers_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(client_app, "CODE_HASH", "0" * 64)
    with pytest.raises(RunFailed, match="run other code than the server"):
        quire.run(OVERRIDES, tmp_path / "run")
    assert about(tmp_path / "run")["status"] == "failed"


def test_one_silo_with_other_code_is_left_out(tmp_path, monkeypatch, caplog):
    real = client_app._Silo.identity

    def identity(silo):
        record = real(silo)
        if silo.name == "hospital-2":
            record["code-hash"] = "0" * 64
        return record

    monkeypatch.setattr(client_app._Silo, "identity", identity)
    quire.run(OVERRIDES, tmp_path / "run")
    assert events(tmp_path / "run", "start")[0]["silos"] == ["hospital-1", "hospital-3"]
    assert "it runs other code than the server" in caplog.text


def test_what_an_exception_says_never_reaches_the_server(tmp_path, monkeypatch):
    secret, received = "patient Zywicki has fever", []

    def raising(*args):
        raise ValueError(secret)

    def listening(grid, ids):
        replies = pull(grid, ids)
        received.extend(replies)
        return replies

    pull = InlineGrid.pull_messages
    monkeypatch.setattr(InlineGrid, "pull_messages", listening)
    monkeypatch.setattr("quire.clients.work.train_update", raising)
    with pytest.raises(RunFailed) as caught:
        quire.run(OVERRIDES, tmp_path / "run")
    errors = [reply for reply in received if reply.has_error()]
    assert len(errors) == SILOS
    assert {reply.error.reason for reply in errors} == {"quire:training_failed"}
    # Each word by itself, and none that is hexadecimal: random identities of messages hold any four such digits.
    for word in ("patient", "Zywicki", "fever"):
        assert word in secret
        assert not any(word in repr(reply) + repr(vars(reply)) for reply in received)
        assert word not in str(caught.value)
        assert not any(
            word in path.read_text(errors="replace") for path in (tmp_path / "run").rglob("*") if path.is_file()
        )


def test_a_checkout_an_installation_and_the_bundles_of_both_hold_the_same_code(tmp_path, checkout):
    installed = tmp_path / "site"
    shutil.copytree(checkout / "quire", installed / "quire")
    for room in set(SHIPPED) - {"quire", "pyproject.toml", ".gitignore"}:
        shutil.copytree(checkout / room, installed / "quire" / room)
    script = "import sys; from pathlib import Path; from quire.clients.code import code_hash; print(code_hash());"
    script += "from quire.simulation.flower_app import stage; stage(Path(sys.argv[1])) if sys.argv[1:] else None"

    def hash_in(folder, *target):
        command = [sys.executable, "-c", script, *map(str, target)]
        variables = {**os.environ, "PYTHONPATH": str(folder)}
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    bundles = tmp_path / "from-checkout", tmp_path / "from-installation"
    hashes = {hash_in(checkout, bundles[0]), hash_in(installed, bundles[1]), *map(hash_in, bundles)}
    assert hashes == {code_hash()}
    contents = [{path.relative_to(b): path.read_bytes() for path in b.rglob("*.*") if path.is_file()} for b in bundles]
    caches = {path for content in contents for path in content if "__pycache__" in path.parts}
    assert contents[0].keys() - caches == contents[1].keys() - caches
    assert all(contents[0][path] == contents[1][path] for path in contents[0].keys() - caches)
