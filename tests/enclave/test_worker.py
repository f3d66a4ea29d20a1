"""A silo in one process, as it would be in an enclave, in a federation on loopback; and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from gated import ROOT, Federation, checkout
from sgx_chain import Authority

import quire
from quire.clients.identity import load_identity, new_identity
from quire.clients.identity.rosters import Change, first_roster, sign_roster, write_new
from quire.enclave import inside, worker
from quire.enclave.errors import EnclaveError
from quire.enclave.worker import Connection, work
from quire.privacy.identity.signed import SignedRoster

SCHEMA = "columns: {age: {low: 0, high: 100}}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"
POLICY = """population: {name: clinic, records: 60}
policy: {modes: [none], aggregation: [plain, secure], code: [], min_cohort: 2, colluders: 0, test_seed: true}
"""
OVERRIDES = "task=tabular partition.silos=2 strategy.rounds=3 data.preprocessing=federated seed=3"
SECURE = "task=tabular partition.silos=2 strategy.rounds=2 aggregation=secure aggregation.max_rows=30 seed=3"


def run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Start Python on its own: an audit hook stays for good."""
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "quire.enclave.inside", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def test_one_process_starts_no_other() -> None:
    code = (
        "from quire.enclave.inside import one_process; one_process()\n"
        "import os, subprocess, pty\n"
        "ways = [os.fork, pty.fork, lambda: subprocess.run(['true']), lambda: os.system('true'),\n"
        "        lambda: os.posix_spawn('/bin/true', ['true'], {}), lambda: os.execv('/bin/true', ['true'])]\n"
        "for way in ways:\n"
        "    try: way()\n"
        "    except PermissionError as error: print('refused', error)\n"
    )
    done = run(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused") == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--work"], "required: --superlink; it takes"),
        (["--work", "--superlink", "127.0.0.1:1", "--insecure"], "There is no file /silo/store/desk/silo.yaml"),
        (["--work", "--superlink", "127.0.0.1:1", "--silo", "nowhere.yaml", "--insecure"], "There is no file"),
        (["--work", "--superlink", "127.0.0.1:1", "--silo", "silo.yaml"], "--root-certificates FILE, or --insecure"),
        (["--work", "--superlink", "127.0.0.1:1", "--silo", "x", "--bogus\x1b"], "unrecognized arguments"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(arguments, words, capsys) -> None:
    assert inside.main(arguments) == 2
    told = capsys.readouterr().err
    assert words in told
    assert not {"Traceback", "\x1b"} & {told, *told}


def test_files_that_the_connection_names_have_to_be_what_they_should(tmp_path) -> None:
    key = tmp_path / "node.key"
    with pytest.raises(EnclaveError, match=r"cannot be read: No such file"):
        work(Connection("127.0.0.1:1", key), tmp_path)
    key.write_text("no key")
    with pytest.raises(EnclaveError, match="holds no certificates in PEM"):
        work(Connection("127.0.0.1:1", key), tmp_path)
    root = tmp_path / "ca.pem"
    root.write_bytes(Authority().root.public_bytes(Encoding.PEM))
    with pytest.raises(EnclaveError, match="no private key of a node"):
        work(Connection("127.0.0.1:1", root, key), tmp_path)
    made = ec.generate_private_key(ec.SECP384R1())
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    with pytest.raises(EnclaveError, match="needs TLS"):
        work(Connection("127.0.0.1:1", None, key), tmp_path)


def test_a_message_that_cannot_be_read_is_passed_over(caplog) -> None:
    """A server may send anything at all: Flower's own reading of it may not end the silo."""
    head, gone = SimpleNamespace(metadata=SimpleNamespace(message_id="torn")), []

    def tree(name):
        raise ValueError(f"{name} is no tree")

    state = SimpleNamespace(
        get_messages_legacy=lambda **_: [head],
        record_message_processing_start=lambda name: None,
        record_message_processing_end=lambda name: None,
        get_tasks=lambda: [],
    )
    store = SimpleNamespace(get_object_tree=tree, delete=gone.append)
    worker._answer_all(state, store, 1, Path("silo.yaml"), lambda *_: pytest.fail("it was answered"))
    assert gone == ["torn"]
    assert "cannot be read" in caplog.text


def test_a_worker_whose_superlink_is_away_ends_when_it_is_told_to(tmp_path) -> None:
    (tmp_path / "silo.yaml").write_text("name: a\n")
    code = (
        "import os, signal, sys, threading; from quire.enclave import inside, worker; worker.PATIENCE = 0.2\n"
        "def tell():\n"
        "    while signal.getsignal(signal.SIGALRM) is signal.SIG_DFL: threading.Event().wait(0.05)\n"
        "    threading.Event().wait(1); os.kill(os.getpid(), signal.SIGTERM)\n"
        "threading.Thread(target=tell, daemon=True).start()\n"
        f"sys.exit(inside.main(['--work', '--superlink', '127.0.0.1:1', '--silo', {str(tmp_path / 'silo.yaml')!r}, "
        "'--insecure']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        **{"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True, "timeout": 60},
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.fixture(scope="module")
def silos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two silos' files and rows: as a folder for the simulator, and each in a home of its own, with a roster."""
    folder, members = tmp_path_factory.mktemp("silos"), {}
    (folder / "schema.yaml").write_text(SCHEMA)
    for number in (1, 2):
        rng = np.random.default_rng(number)
        age = rng.integers(10, 90, 30)
        rows = "".join(f"{a},{int(a + rng.normal(0, 9) > 50)}\n" for a in age)
        (folder / f"{number}.csv").write_text(f"age,sick\n{rows}")
        text = f"name: clinic-{number}\ndata: {{connector: csv, path: {number}.csv}}\n"
        (folder / f"clinic-{number}.yaml").write_text(text)
        place = home_of(folder, number)
        place.mkdir()
        for name in ("schema.yaml", f"{number}.csv"):
            shutil.copy(folder / name, place / name)
        (place / "silo.yaml").write_text(text + POLICY)
        members[f"clinic-{number}"] = new_identity(place / "silo.key", name=f"clinic-{number}")
    admin, now = new_identity(folder.parent / "admin.key"), int(time.time())
    change = Change(members, {"anna": admin}, valid_from=now - 60, valid_to=now + 86_400)
    signed = sign_roster(SignedRoster(first_roster("clinics", change)), load_identity(folder.parent / "admin.key"))
    for number in (1, 2):
        write_new(home_of(folder, number) / "roster.json", signed)
        with (home_of(folder, number) / "silo.yaml").open("a") as file:
            file.write(f"roster: {{file: roster.json, hash: {signed.roster.hash}}}\n")
    return folder


def home_of(silos: Path, number: int) -> Path:
    return silos.parent / f"{silos.name}-home-{number}"


def home(silos: Path, number: int) -> Path:
    return home_of(silos, number) / "silo.yaml"


@pytest.fixture(scope="module")
def federation(silos: Path) -> Iterator[Federation]:
    """One silo behind a gate, as everywhere; the other in one process, which the kernel watches if strace is here."""
    roster = home_of(silos, 1) / "roster.json"
    made = Federation([home(silos, 1)], silos / "schema.yaml", QUIRE_ROSTER=str(roster))
    watch = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=process", "-o", str(made.home / "strace"))
    arguments = ("--work", "--superlink", made.address, "--silo", str(home(silos, 2)), "--insecure")
    made.start(
        "worker",
        *(watch if shutil.which("strace") else ()),
        *(sys.executable, "-m", "quire.enclave.inside", *arguments),
        PYTHONPATH=str(ROOT),
    )
    yield made
    made.close()


def starts_nothing(federation: Federation) -> None:
    """See to it that the worker has started no process, where the kernel watched."""
    if (trace := federation.home / "strace").exists():
        calls = trace.read_text()
        started = re.findall(r"\b(?:v?fork|clone3?|execve|execveat)\(.*", calls)
        assert [call for call in started[1:] if "CLONE_THREAD" not in call] == []  # the first is Python itself
        assert "CLONE_THREAD" in calls  # strace saw what it should


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_silo_in_one_process_trains_three_rounds_and_starts_nothing(federation, silos, tmp_path) -> None:
    app = checkout(tmp_path / "app")
    federation.quire("app", "approve", str(app), "--silo", str(home(silos, 1)), "--note", "reviewed")
    inline = quire.run(OVERRIDES, tmp_path / "inline", silos=silos)
    found = federation.run(app, OVERRIDES)
    assert (found["status"], found["error"]) == ("completed", None), federation.logs()
    assert found["model"] == inline.model
    lines = (found["folder"] / "metrics.jsonl").read_text()
    assert lines.count('"event": "round"') == 3 or lines.count('"event":"round"') == 3
    starts_nothing(federation)
    assert "NO CONFIDENTIALITY, NO ATTESTATION" in federation.log("worker")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_silo_in_one_process_takes_part_in_secure_aggregation(federation, silos, tmp_path) -> None:
    """Keys, shares and masks stay with one process and one store over all exchanges, beside a silo behind a gate."""
    app = checkout(tmp_path / "app")
    federation.quire("app", "approve", str(app), "--silo", str(home(silos, 1)), "--note", "reviewed")
    inline = quire.run(SECURE, tmp_path / "inline", silos=silos)
    found = federation.run(app, SECURE)
    assert (found["status"], found["error"]) == ("completed", None), federation.logs()
    assert found["model"] == inline.model
    rounds = [json.loads(line) for line in (found["folder"] / "metrics.jsonl").read_text().splitlines()]
    rounds = [line for line in rounds if line["event"] == "round"]
    assert [line["replied"] for line in rounds] == [["clinic-1", "clinic-2"]] * 2
    assert [len(line["secure"]["attempts"]) for line in rounds] == [1, 1]
    assert all(line["silos"] == {} for line in rounds)  # no silo's own figures: one sum and nothing else
    starts_nothing(federation)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_other_code_than_what_was_measured_is_refused(federation, silos, tmp_path) -> None:
    app = checkout(tmp_path / "app")
    with (app / "clients" / "contract.py").open("a") as file:
        file.write("\n# one line more\n")
    found = federation.run(app, OVERRIDES)
    assert found["status"] == "failed"
    assert "an enclave runs the code that was measured and no other" in federation.log("worker")
