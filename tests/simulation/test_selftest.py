"""``quire selftest noise`` at this machine's doors: noise as promised passes, each seeded bug ends with status 1."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Call, command_line
from killing import die, killed, resumed
from safetensors.numpy import load_file, save_file
from shared_runs import lines_of

import quire
from quire.clients import contract
from quire.clients.secure import terms
from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.privacy.dp.discrete_gaussian import sample
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.encoding import Encoding
from quire.simulation.flower import run_flower
from quire.simulation.grid import InlineGrid
from quire.simulation.selftest import settings_of
from quire.strategies.distributed import SUMS
from quire.strategies.folder import read_about
from quire.strategies.selftest import SUMS_FILE, judge

SMALL = ["task=breast_cancer", "privacy.epsilon=4", "strategy.rounds=50"]
#: Many numbers: five uniform shares add up to something that is close to normal.
LARGE = [
    *("task=synthetic", "data.features=100", "data.rows=500", "partition=iid", "partition.silos=5"),
    *("strategy.fraction=1", "strategy.min_silos=4", "privacy.epsilon=4"),
]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return command_line(monkeypatch, capsys)


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every way to a row end in an error."""

    def load(*args: object) -> None:
        raise RuntimeError("a row was about to be read")

    for place in ("clients.client_app.load", "clients.work.load", "clients.data.own.federation"):
        monkeypatch.setattr(f"quire.{place}", load)
    for place in ("silos.load", "silos.federation", "baselines.federation"):
        monkeypatch.setattr(f"quire.simulation.{place}", load, raising=False)


@pytest.mark.parametrize("unit", ["record_distributed", "silo_distributed privacy.delta=1e-5"])
def test_noise_as_promised_ends_with_0_and_reads_no_row(unit: str, cli: Call, blind: None, tmp_path: Path) -> None:
    more = [*SMALL, *f"privacy={unit}".split()]
    status, out, err = cli("selftest", "noise", *more, "--json", "found.json", "--folder", "run")
    assert (status, err) == (0, "")
    assert "The noise is as promised: 3 opened sums of 1055 numbers" in out
    assert "ALARM" not in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == json.loads((tmp_path / "run" / "selftest.json").read_text())
    assert (found["passed"], found["rounds"]) == (True, 3)
    assert len(found["questions"]) == 5
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        *("settings.yaml", "run.json", "run.log", "metrics.jsonl", "checkpoint"),
        *("selftest.json", "selftest.safetensors"),
    }


def test_the_noise_is_that_of_the_run_in_whose_place_it_is(tmp_path: Path) -> None:
    """Three rounds are run, with the shares that fifty would have."""
    run = "task=breast_cancer partition=iid aggregation=secure privacy=record_distributed strategy.rounds=50"
    quire.run(f"{run} privacy.selftest=3 strategy.fraction_evaluate=0", tmp_path / "test")
    start, *rest = lines_of(tmp_path / "test")
    assert [line["event"] for line in rest] == ["round"] * 3 + ["end"]
    from quire.clients.secure.noise import noise_of

    assert start["distributed"]["noise"]["noise_multiplier"] == noise_of(compose(run)).noise_multiplier
    assert start["distributed"]["noise"]["rounds"] == 50


Bug = Callable[[Encoding, np.ndarray, int], np.ndarray]
BUGS: dict[str, tuple[str, Bug]] = {
    "noise times 0.9": ("its variance is 0.", lambda own, drawn, call: np.rint(0.9 * drawn)),
    "the root forgotten": ("its variance is 0.", lambda own, drawn, call: _rootless(own, drawn)),
    "one silo of five adds none": ("its variance is 0.", lambda own, drawn, call: drawn * (call % 5 != 0)),
    "biased": ("its mean is +0.", lambda own, drawn, call: drawn + math.isqrt(own.noise_variance) // 8),
}


def _rootless(own: Encoding, drawn: np.ndarray) -> np.ndarray:
    from quire.privacy.csprng import Csprng

    return sample(math.isqrt(own.noise_variance), len(drawn), Csprng(drawn[:4].tobytes()))


def tampered(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine, calls = Encoding.noise, [0]

    def wrong(self: Encoding, source: Any) -> np.ndarray:
        calls[0] += 1
        return bug(self, genuine(self, source), calls[0]).astype(np.int64)

    monkeypatch.setattr(Encoding, "noise", wrong)


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_in_a_share_ends_with_1_and_one_sentence(bug: str, monkeypatch: pytest.MonkeyPatch, cli: Call) -> None:
    words, broken = BUGS[bug]
    tampered(broken, monkeypatch)
    status, out, err = cli("selftest", "noise", *SMALL)
    assert status == 1
    assert "ALARM" in out
    assert err.startswith("quire: The noise is not as promised: ")
    assert words in err
    assert err.count("\n") == 1


def test_the_same_noise_in_two_rounds_is_found(monkeypatch: pytest.MonkeyPatch, cli: Call) -> None:
    """The generator of one silo alone is keyed without the round."""
    kept: dict[int, np.ndarray] = {}
    tampered(lambda own, drawn, call: kept.setdefault(call % 5, drawn) if call % 5 == 0 else drawn, monkeypatch)
    status, _, err = cli("selftest", "noise", *SMALL)
    assert status == 1
    assert "are correlated (+0.2" in err or "are correlated (+0.1" in err


def test_sums_that_are_the_same_are_called_so(monkeypatch: pytest.MonkeyPatch, cli: Call) -> None:
    kept: dict[int, np.ndarray] = {}
    tampered(lambda own, drawn, call: kept.setdefault(call % 5, drawn), monkeypatch)
    status, _, err = cli("selftest", "noise", *SMALL)
    assert status == 1
    assert "the sums of rounds 1 and 2 are the same" in err


@pytest.mark.parametrize("broken", [True, False])
def test_uniform_noise_of_the_right_variance_is_found(broken: bool, monkeypatch: pytest.MonkeyPatch, cli: Call) -> None:
    def uniform(own: Encoding, drawn: np.ndarray, call: int) -> np.ndarray:
        half = math.sqrt(3 * own.noise_variance)
        return np.rint(np.random.default_rng(call).uniform(-half, half, len(drawn)))

    if broken:
        tampered(uniform, monkeypatch)
    status, _, err = cli("selftest", "noise", *LARGE)
    assert status == int(broken)
    assert ("its kurtosis is 2.7" in err) == broken


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["privacy=record"], "A self-test is of noise that silos share"),
        (["privacy.selftest=0"], "A self-test is of noise that silos share"),
        (["privacy.epsilon=inf"], "epsilon=inf has none"),
        (["privacy.selftest=9", "strategy.rounds=8"], "more rounds than the run has"),
        (["privacy.selftest=65"], "privacy.selftest"),
        (["strategy.fraction_evaluate=1.0"], "set strategy.fraction_evaluate=0"),
        (["aggregation=plain"], "take aggregation=secure"),
        (["--json", "none/found.json"], "does not exist"),
        (["--judge", "nowhere"], "is not the folder of a self-test"),
        (["--judge", "nowhere", "seed=1"], "leave out settings"),
        (["nonsense"], "write key=value"),
    ],
)
def test_mistakes_end_with_2(more: list[str], words: str, cli: Call) -> None:
    status, _, err = cli("selftest", "noise", *more)
    assert status == 2
    assert words in err
    assert err.count("\n") == 1


def test_fewer_rounds_than_three_are_tested_with_what_there_is() -> None:
    assert settings_of(["strategy.rounds=2"]).rounds == 2
    assert settings_of(["strategy.rounds=1"]).rounds == 1
    assert settings_of(["strategy.rounds=90"]).rounds == 3


def test_a_folder_is_judged_once_more_from_its_sums(cli: Call, tmp_path: Path) -> None:
    assert cli("selftest", "noise", *SMALL, "--folder", "run")[0] == 0
    assert cli("selftest", "noise", "--judge", "run")[0] == 0
    arrays = load_file(tmp_path / "run" / SUMS_FILE)
    save_file({**arrays, SUMS: arrays[SUMS] // 2}, tmp_path / "run" / SUMS_FILE)
    status, _, err = cli("selftest", "noise", "--judge", "run")
    assert (status, "its variance is 0.2" in err) == (1, True)
    for broken in ({SUMS: arrays[SUMS]}, {**arrays, SUMS: arrays[SUMS][:, :500]}, {**arrays, SUMS: arrays[SUMS][0]}):
        save_file({name: np.ascontiguousarray(part) for name, part in broken.items()}, tmp_path / "run" / SUMS_FILE)
        with pytest.raises(SettingsError, match="cannot be read"):
            judge(tmp_path / "run")


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Let server and silos agree on 0.3 times the noise that the settings ask for; undone when called."""
    genuine = terms.noise_of
    with monkeypatch.context() as patch:
        patch.setattr(terms, "noise_of", lambda *args: _times(0.3, genuine(*args)))
        yield patch.undo


def _times(factor: float, noise: SharedNoise) -> SharedNoise:
    return replace(noise, noise_multiplier=factor * noise.noise_multiplier)


@pytest.mark.parametrize("undone", [False, True])
def test_too_little_noise_that_all_agreed_on_is_found(
    undone: bool, weak: Callable[[], None], cli: Call, tmp_path: Path
) -> None:
    more = ["privacy=record_distributed", "aggregation=secure", "privacy.selftest=3", "strategy.fraction_evaluate=0"]
    quire.run(" ".join([*SMALL, *more, "output.progress=none"]), tmp_path / "run")
    assert judge(tmp_path / "run").passed  # the sums are as their journal says
    if undone:
        weak()
    status, _, err = cli("selftest", "noise", "--judge", "run")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("quire: The noise is not as promised: the journal tells of a noise multiplier of 0.")
    if not undone:
        for command in (("selftest", "noise", *SMALL), ("run", *SMALL, *more, "output.progress=none")):
            status, _, err = cli(*command)
            assert (status, "The noise is not as promised: the journal" in err) == (1, True)


def test_numbers_of_a_journal_that_settings_do_not_give_are_found(cli: Call, tmp_path: Path) -> None:
    assert cli("selftest", "noise", *SMALL, "--folder", "run")[0] == 0
    journal, chosen = tmp_path / "run" / "metrics.jsonl", tmp_path / "run" / "settings.yaml"
    start, *rest = journal.read_text().splitlines(keepends=True)
    told = json.loads(start)
    for part, name, factor in (("noise", "rounds", 2), ("encoding", "clip", 2.0), (None, "parameters", 0)):
        changed = copy.deepcopy(told)
        place = changed["distributed"][part] if part else changed
        place[name] = type(place[name])(place[name] * factor)
        journal.write_text("".join([json.dumps(changed) + "\n", *rest]))
        status, _, err = cli("selftest", "noise", "--judge", "run")
        assert (status, "promised" in err) == (1, True), name
    journal.write_text("".join([start, *rest]))
    chosen.write_text(chosen.read_text().replace("rounds: 50", "rounds: 20"))
    status, _, err = cli("selftest", "noise", "--judge", "run")
    assert (status, "settings.yaml does not say what its own overrides compose to" in err) == (1, True)


def test_a_self_test_is_nobodys_result(cli: Call) -> None:
    assert cli("selftest", "noise", *SMALL, "--folder", "run")[0] == 0
    for command, words in (("verify", "has no card"), ("report", "which learned nothing")):
        status, _, err = cli(command, "run")
        assert (status, words in err) == (2, True)
    sweep = ("-m", "privacy=record_distributed", "aggregation=secure", "privacy.selftest=1", "seed=1,2")
    status, _, err = cli("run", *sweep, "strategy.fraction_evaluate=0")
    assert (status, "no scores to sweep over" in err) == (2, True)


def test_quire_run_with_the_setting_ends_with_the_verdict(cli: Call, tmp_path: Path) -> None:
    settings = [*SMALL, "privacy=record_distributed", "aggregation=secure", "privacy.selftest=2"]
    status, out, err = cli("run", *settings, "strategy.fraction_evaluate=0", "hydra.run.dir=run")
    assert (status, err) == (0, "")
    assert "The noise is as promised: 2 opened sums" in out
    assert not (tmp_path / "run" / "report.html").exists()
    assert not (tmp_path / "run" / "comparison.json").exists()


def test_a_self_test_that_is_killed_goes_on_with_the_sums_it_had(tmp_path: Path) -> None:
    overrides = settings_of([*SMALL, "output.progress=none"]).overrides
    quire.run(overrides, tmp_path / "whole")

    def arm() -> None:
        deliver = InlineGrid._deliver

        def deadly(self: InlineGrid, message: Any) -> Any:
            if (message.metadata.message_type, message.metadata.group_id) == (contract.MASK, "3"):
                die()
            return deliver(self, message)

        InlineGrid._deliver = deadly  # type: ignore[method-assign]

    killed(overrides, tmp_path / "run", arm)
    resumed(overrides, tmp_path / "run")
    mine, theirs = (load_file(tmp_path / name / SUMS_FILE) for name in ("run", "whole"))
    assert {name: part.tolist() for name, part in mine.items()} == {
        name: part.tolist() for name, part in theirs.items()
    }


def test_silos_with_a_policy_that_lets_no_simulation_read_their_rows_can_be_tested(cli: Call, tmp_path: Path) -> None:
    folder = tmp_path / "silos"
    folder.mkdir()
    (folder / "schema.yaml").write_text(
        "columns:\n  age: {low: 0, high: 100}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"
    )
    policy = "{modes: [record_distributed], aggregation: [secure], code: [], min_cohort: 2, colluders: 0, "
    for place in (1, 2, 3):
        (folder / f"silo-{place}.yaml").write_text(
            f"name: hospital-{place}\nschema: schema.yaml\ndata: {{connector: csv, path: missing-{place}.csv}}\n"
            f"population: {{name: p{place}, records: 100}}\npolicy: {policy}epsilon: 4, delta: 1.0e-4}}\n"
        )
    more = ["task=tabular", "silos=silos", "privacy.records=300", "privacy.largest=100", "strategy.rounds=20"]
    status, out, err = cli("selftest", "noise", *more)
    assert (status, err) == (0, ""), out  # there are no rows at all


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_flowers_simulation_engine_opens_the_same_sums(tmp_path: Path) -> None:
    settings = settings_of([*SMALL, "partition.silos=3", "output.progress=none"])
    quire.run(settings.overrides, tmp_path / "inline")
    run_flower(compose(f"{settings.overrides} runtime=flower"), tmp_path / "flower")
    assert read_about(tmp_path / "flower")["runtime"] == "flower"
    mine, theirs = (load_file(tmp_path / name / SUMS_FILE)[SUMS] for name in ("flower", "inline"))
    assert np.array_equal(mine, theirs)
    assert judge(tmp_path / "flower").passed
