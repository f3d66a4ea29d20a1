"""``runtime.workers``: the same bits from any number of processes, and a clean end however one of them ends."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

import quire
from quire import compose
from quire.clients.arrays import decode, encode
from quire.errors import RunFailed, SettingsError
from quire.simulation import worker, workers
from quire.simulation.faults import Fault
from quire.simulation.grid import InlineGrid
from quire.simulation.workers import WorkersGrid, processes
from quire.strategies.folder import read_about

SMALL = "task=breast_cancer partition.silos=5 partition.alpha=1 strategy.rounds=3 output.report=false"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked")


def journal(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "round"]


def children():
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(autouse=True)
def none_left():
    before = {child.pid for child in children()}
    yield
    assert {child.pid for child in children()} <= before


@pytest.mark.parametrize(
    "more",
    [
        "runtime=inline",
        "runtime=batched",
        "runtime=inline strategy=scaffold",
        "runtime=inline aggregation=secure strategy.min_silos=3",
        pytest.param(
            "runtime=inline privacy=record privacy.epsilon=5 privacy.delta=0.005 training.batch_size=8",
            marks=pytest.mark.slow,
        ),
        "runtime=batched privacy=record privacy.epsilon=inf training.batch_size=8",
        "runtime=batched runtime.faults=[drop:train:2:hospital-2,error:evaluate:*:hospital-1]",
    ],
)
def test_any_number_of_workers_gives_the_bits_of_one(more, tmp_path):
    runs = {
        count: quire.run(f"{SMALL} output.baselines=false {more} runtime.workers={count}", tmp_path / str(count))
        for count in (1, 2, 3)
    }
    assert len({run.model for run in runs.values()}) == 1
    told = [
        [{key: line[key] for key in ("silos", "replied", "failed")} for line in journal(run.folder)]
        for run in runs.values()
    ]
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_silos_with_files_of_their_own_are_trained_together_as_in_one_process(strategy, tmp_path):
    """Whoever they stay with: the numbers of rows are such that it matters who is beside whom."""
    (tmp_path / "silos").mkdir()
    columns = [f"f{number}" for number in range(40)]
    (tmp_path / "silos" / "schema.yaml").write_text(
        f"columns: {{{', '.join(f'{name}: {{low: -5, high: 5}}' for name in columns)}}}\n"
        "target: {name: sick, kind: classification, classes: [0, 1]}\n"
    )
    for silo in range(6):
        x = np.random.default_rng(silo).normal(size=(100 if silo % 2 else 20, 40)).clip(-4, 4)
        rows = "".join(f"{','.join(f'{one:.4f}' for one in row)},{int(row[0] > 0)}\n" for row in x)
        (tmp_path / "silos" / f"{silo}.csv").write_text(f"{','.join(columns)},sick\n{rows}")
        (tmp_path / "silos" / f"silo-{silo}.yaml").write_text(
            f"name: silo-{silo}\ndata: {{connector: csv, path: {silo}.csv}}\n"
        )
    settings = (
        f"task=tabular task.model=mlp partition.silos=6 strategy={strategy} strategy.fraction=0.7 strategy.rounds=3 "
        "runtime=batched output.report=false output.baselines=false"
    )
    models = {
        quire.run(f"{settings} runtime.workers={count}", tmp_path / str(count), tmp_path / "silos").model
        for count in (1, 2, 3)
    }
    assert len(models) == 1


@pytest.mark.slow
def test_a_resumed_run_gives_silos_in_workers_their_memory_back(tmp_path):
    base = f"{SMALL} output.baselines=false strategy=scaffold".replace("strategy.rounds=3", "strategy.rounds=4")
    whole = quire.run(f"{base} runtime.workers=2", tmp_path / "whole")
    script = (
        "import sys, os, signal\n"
        "from quire.strategies.folder import RunFolder\n"
        "done = RunFolder.round_done\n"
        "def deadly(self, report, state):\n"
        "    done(self, report, state)\n"
        "    if state.round == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "RunFolder.round_done = deadly\n"
        "import quire\n"
        f"quire.run({f'{base} runtime.workers=2'!r}, sys.argv[1])\n"
    )
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "killed")], env={**os.environ, "WORKERS_TEST": mark}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert not wait_for_marked(mark)  # workers end with their server
    go_on(tmp_path / "killed")
    assert read_about(tmp_path / "killed")["model"] == whole.model


def wait_for_marked(mark, patience=10.0):
    """Return the processes of a test that are still there after a while."""
    until = time.monotonic() + patience
    while True:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("WORKERS_TEST") == mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.05)


def go_on(folder):
    from quire.simulation.launch import launch
    from quire.strategies.folder import read_overrides

    launch(compose(f"{read_overrides(folder)}"), folder, resume=True)


def test_a_killed_worker_ends_the_run_in_a_sentence_and_it_can_go_on(tmp_path, monkeypatch):
    base = f"{SMALL} output.baselines=false output.progress=none"
    whole = quire.run(base, tmp_path / "whole")
    deliver, asked = InlineGrid._deliver, []

    def deadly(self, message):
        asked.append(message)  # of this worker's own copy
        if message.metadata.message_type == "train" and message.metadata.group_id == "2":
            os.kill(os.getpid(), signal.SIGKILL)
        return deliver(self, message)

    with monkeypatch.context() as patch:
        patch.setattr(InlineGrid, "_deliver", deadly)
        with pytest.raises(RunFailed, match=r"was killed \(signal 9\).*quire run resume=FOLDER") as why:
            quire.run(f"{base} runtime.workers=2", tmp_path / "killed")
    assert "\n" not in str(why.value)
    about = read_about(tmp_path / "killed")
    assert (about["status"], about["rounds"]) == ("failed", 1)
    go_on(tmp_path / "killed")
    assert read_about(tmp_path / "killed")["model"] == whole.model


@pytest.mark.slow
def test_ctrl_c_ends_server_and_workers(tmp_path):
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    many = SMALL.replace("strategy.rounds=3", "strategy.rounds=100000")
    process = subprocess.Popen(
        [sys.executable, "-m", "quire", "run", *many.split(), "runtime.workers=2", f"hydra.run.dir={tmp_path / 'run'}"],
        env={**os.environ, "WORKERS_TEST": mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and len(rounds_at(tmp_path / "run")) < 2:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    assert not wait_for_marked(mark)


def rounds_at(folder):
    try:
        return [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"round"' in line]
    except FileNotFoundError:
        return []


# ------------------------------------------------------------------------------------------------- the grid by itself


def message(node, stage="train", round_number=1, **records):
    content = RecordDict(
        {"arrays": encode({"w": np.arange(40_000, dtype=np.float32)}), "config": ConfigRecord({"list": [1, 2]})}
    )
    content.update(records)
    return Message(content, node, stage, ttl=60.0, group_id=str(round_number))


def process_of(msg, ctx):
    count = ctx.state.get("n", MetricRecord({"n": 0}))["n"] + 1
    ctx.state["n"] = MetricRecord({"n": count})
    ctx.state["big"] = encode({"w": np.full(30_000, float(count))})
    total = float(decode(msg.content["arrays"])["w"].astype(np.float64).sum())
    told = MetricRecord({"pid": os.getpid(), "n": count, "node": ctx.node_id, "sum": total})
    return Message(RecordDict({"m": told, "arrays": msg.content["arrays"]}), reply_to=msg)


@pytest.mark.usefixtures("as_server")
def test_replies_come_in_the_order_of_sending_and_state_goes_where_the_silo_goes(grid_of):
    with WorkersGrid(grid_of(5, train=process_of), 2) as grid:
        for turn in (1, 2, 3):
            sent = [message(node, round_number=turn) for node in (12, 10, 14, 11, 13)]
            replies = list(grid.send_and_receive(sent))
            assert [reply.metadata.src_node_id for reply in replies] == [12, 10, 14, 11, 13]
            assert [reply.metadata.reply_to_message_id for reply in replies] == [m.metadata.message_id for m in sent]
            assert [reply.content["m"]["n"] for reply in replies] == [turn] * 5
            assert {reply.content["m"]["sum"] for reply in replies} == {float(np.arange(40_000).sum())}
            assert os.getpid() not in {reply.content["m"]["pid"] for reply in replies}
            np.testing.assert_array_equal(decode(replies[0].content["arrays"])["w"], np.arange(40_000))
        memory = grid.silo_memory()
        assert sorted(memory) == [f"{node}/big/w" for node in range(10, 15)]
        assert all((part == 3.0).all() for part in memory.values())
        grid.restore_silo_memory({"10/big/w": np.zeros(3)})
        assert list(grid.pull_messages([m.metadata.message_id for m in sent])) == []


@pytest.mark.usefixtures("as_server")
def test_more_arrays_than_the_shared_memory_holds_come_over_the_socket(grid_of, monkeypatch):
    monkeypatch.setattr(worker, "_SHARED", 4096 * 50)

    def many(msg, ctx):
        parts = {f"{place}": np.full(20_000, float(place)) for place in range(6)}
        return Message(RecordDict({"a": encode(parts)}), reply_to=msg)

    with WorkersGrid(grid_of(3, train=many), 2) as grid:
        for _ in range(3):
            for reply in grid.send_and_receive([message(node) for node in (10, 11, 12)]):
                found = decode(reply.content["a"])
                assert all((found[name] == float(name)).all() and found[name].shape == (20_000,) for name in found)
                assert len(found) == 6


@pytest.mark.usefixtures("as_server")
def test_faults_and_unknown_nodes_are_answered_as_in_one_process(grid_of):
    faults = [Fault.parse("drop:train:2:silo-1"), Fault.parse("error:train:2:silo-2")]

    def codes(grid):
        replies = grid.send_and_receive([message(node, round_number=2) for node in (10, 11, 12, 999)])
        return [(reply.error.code if reply.has_error() else 0, reply.metadata.src_node_id) for reply in replies]

    inline = codes(grid_of(3, faults, train=process_of))
    with WorkersGrid(grid_of(3, faults, train=process_of), 2) as grid:
        assert codes(grid) == inline
    assert [code for code, _ in inline] == [5, 2, 0, 3]


@pytest.mark.usefixtures("as_server")
def test_a_silo_with_files_of_its_own_stays_with_one_worker_and_answers_in_turn(grid_of):
    inner = grid_of(4, train=process_of)
    for context in inner._contexts.values():
        context.node_config["silo"] = "silo.yaml"
    with WorkersGrid(inner, 2) as grid:
        homes = {}
        for turn in range(4):
            nodes = [10, 11, 12, 13] if turn % 2 else [13, 11, 10, 12, 10]
            counts = {}
            for reply in grid.send_and_receive([message(node) for node in nodes]):
                about = reply.content["m"]
                homes.setdefault(about["node"], set()).add(about["pid"])
                assert about["n"] > counts.get(about["node"], 0)
                counts[about["node"]] = about["n"]
        assert {len(pids) for pids in homes.values()} == {1}
        assert len(set.union(*homes.values())) == 2


@pytest.mark.usefixtures("as_server")
def test_generators_are_refused_and_what_nobody_asks_for_is_dropped(grid_of):
    with WorkersGrid(grid_of(2, train=process_of), 2) as grid:
        with pytest.raises(TypeError, match="must be a list"):
            grid.push_messages(message(node) for node in (10, 11))
        ids = list(grid.push_messages([message(10), message(11)]))
        assert list(grid.pull_messages(["no such message"])) == []
        (reply,) = grid.pull_messages(ids[1:])
        assert reply.metadata.src_node_id == 11
        again = list(grid.send_and_receive([message(10), message(11)]))  # the first reply of node 10 is still waiting
        assert [one.content["m"]["n"] for one in again] == [2, 2]


# ------------------------------------------------------------------------------------------------- settings and sweeps
def test_settings_that_cannot_be_are_refused(monkeypatch):
    with pytest.raises(SettingsError, match=r"one thread each, not runtime.threads=2"):
        compose("runtime.workers=2 runtime.threads=2")
    with pytest.raises(SettingsError, match=r"runtime\.workers"):
        compose("runtime.workers=-1")
    assert compose("runtime.threads=2").runtime.workers == 1
    assert processes(0) == workers.cores()
    monkeypatch.setattr(workers.sys, "platform", "darwin")
    assert processes(1) == 1
    with pytest.raises(SettingsError, match="needs Linux"):
        processes(2)


def test_a_sweep_does_not_take_more_processes_than_cores(tmp_path, monkeypatch, capsys):
    import joblib

    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    from quire.simulation.sweep_plan import _side_by_side

    two, all_cores, one = (compose(f"runtime.workers={count}") for count in (2, 0, 1))
    assert _side_by_side({}, [one]) == 4
    assert _side_by_side({}, [one, two]) == 2
    assert _side_by_side({}, [all_cores]) == 1
    assert _side_by_side({"hydra.launcher.n_jobs": "2"}, [two]) == 2
    for asked in ("3", "-1"):
        with pytest.raises(SettingsError, match="more processes than the 4 cores"):
            _side_by_side({"hydra.launcher.n_jobs": asked}, [two])
