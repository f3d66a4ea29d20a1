"""From a string to settings: values, refusals, the cache, threads, and life inside a Hydra application."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quire.conf import compose as composing
from quire.conf.compose import compose
from quire.conf.overrides import MAX_LENGTH
from quire.conf.schema import DirichletPartition, FedProxStrategy, InlineRuntime, Settings
from quire.errors import SettingsError

ROOT = Path(__file__).resolve().parents[2]
STRINGS = [
    "",
    "seed=2",
    "task=synthetic",
    "strategy=fedprox strategy.mu=0.5",
    "partition=iid partition.silos=7",
    "runtime=flower runtime.cpus_per_silo=2",
    "task=synthetic strategy=fedprox runtime=flower",
    "task.model=mlp task.hidden=[32,8] training.lr=0.01",
]


def forget() -> None:
    composing._compose.cache_clear()
    composing._load.cache_clear()


# ------------------------------------------------------------------------------------------------- values
def test_the_defaults_are_five_hospitals() -> None:
    s = compose()
    assert isinstance(s, Settings)
    assert (s.task.name, s.data.name, s.partition.name, s.strategy.name) == (
        "breast_cancer",
        "sklearn",
        "dirichlet",
        "fedavg",
    )
    assert (s.training.name, s.runtime.name, s.privacy.name, s.aggregation.name) == ("sgd", "inline", "none", "plain")
    assert (s.partition.silos, s.seed, s.overrides) == (5, 1, "")
    assert compose("") == s


def test_a_task_brings_its_own_company() -> None:
    s = compose("task=synthetic")
    assert (s.data.name, s.partition.name, s.partition.silos, s.strategy.fraction) == ("synthetic", "iid", 100, 0.1)


@pytest.mark.parametrize("text", ["task=synthetic partition=dirichlet", "partition=dirichlet task=synthetic"])
def test_the_user_has_the_last_word_over_the_task(text: str) -> None:
    assert isinstance(compose(text).partition, DirichletPartition)
    assert compose(text + " partition.silos=30").partition.silos == 30


def test_values_are_laid_over_the_options() -> None:
    s = compose(
        "strategy=fedprox strategy.mu=0.25 strategy.rounds=3 training.lr=1 task.hidden=[8,4] seed=0 "
        "output.report=false runtime.faults=['drop:train:1:hospital-1',\"delay:*:*:*:0.5\"]"
    )
    assert isinstance(s.strategy, FedProxStrategy)
    assert (s.strategy.mu, s.strategy.rounds, s.task.hidden, s.seed, s.output.report) == (0.25, 3, (8, 4), 0, False)
    assert (s.training.lr, type(s.training.lr)) == (1.0, float)
    assert isinstance(s.runtime, InlineRuntime)
    assert s.runtime.faults == ("drop:train:1:hospital-1", "delay:*:*:*:0.5")


def test_settings_are_frozen_and_hash_by_value() -> None:
    s = compose("seed=3")
    with pytest.raises(dataclasses.FrozenInstanceError):
        s.seed = 4  # type: ignore[misc]
    forget()
    again = compose("seed=3")
    assert again is not s
    assert again == s
    assert hash(again) == hash(s)


def test_a_copy_as_dict_does_not_reach_into_the_settings() -> None:
    compose("task=synthetic").as_dict()["task"]["hidden"].append(1)
    assert compose("task=synthetic").task.hidden == compose("task=synthetic seed=9").task.hidden == (128,)


@pytest.mark.parametrize(
    "fault", ["drop:train:1:a", "error:*:*:*", "delay:evaluate:12:hospital-1:.5", "delay:query:1:b:86400"]
)
def test_faults_that_can_be_read(fault: str) -> None:
    runtime = compose(f"runtime.faults=[{fault}]").runtime
    assert isinstance(runtime, InlineRuntime)
    assert runtime.faults == (fault,)


def test_a_group_that_the_task_cannot_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task may lay a value over an option that does not have it."""
    tree = {**composing._load(()), "partition": {"name": "iid", "silos": 5, "alpha": 0.3}}
    monkeypatch.setattr(composing, "_load", lambda choices: tree)
    composing._compose.cache_clear()
    with pytest.raises(SettingsError, match=r"partition=iid has no setting 'alpha': task=breast_cancer cannot be"):
        compose()
    composing._compose.cache_clear()


# --------------------------------------------------------------------------------------- canonical strings
ITEMS = [
    "task=breast_cancer",
    "data=sklearn",
    "partition=dirichlet",
    "strategy=fedprox",
    "runtime=inline",
    "partition.silos=7",
    "partition.alpha=1e2",
    "strategy.mu=.5",
    "strategy.fraction=1",
    "training.lr=1e-3",
    "training.batch_size=+008",
    "task.model=mlp",
    "task.hidden=[ 8, 4 ]",
    "task.silo_label='hospital'",
    'output.progress="none"',
    "output.report=FALSE",
    "runtime.faults=['drop:train:1:a b', drop:train:2:b]",
    "seed=12",
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.permutations(ITEMS), st.integers(0, len(ITEMS)))
def test_order_does_not_matter_and_the_canonical_string_composes_to_the_same(items: list[str], count: int) -> None:
    chosen = items[:count]
    if "partition.alpha=1e2" in chosen or "strategy.mu=.5" in chosen:
        chosen = [*chosen, *({"partition=dirichlet", "strategy=fedprox"} - set(chosen))]
    s = compose(" ".join(chosen))
    assert compose("\n ".join(sorted(chosen))) == s
    assert compose(s.overrides) == s
    assert compose(s.overrides).overrides == s.overrides


def test_the_order_of_choices_is_not_composed_anew() -> None:
    forget()
    choices = ["task=synthetic", "strategy=fedprox", "partition=iid", "runtime=flower"]
    for order in itertools.permutations(choices):
        compose(" ".join(order))
    assert composing._load.cache_info().misses == 1


def test_a_canonical_string_too_long_to_travel_is_refused() -> None:
    start = "training.lr=.5 runtime.faults=["
    text = start + "drop:train:1:" + "a" * (MAX_LENGTH - len(start) - 14) + "]"
    assert len(text) == MAX_LENGTH
    with pytest.raises(SettingsError, match=f"{MAX_LENGTH + 1} characters long; at most {MAX_LENGTH} are read"):
        compose(text)
    assert len(compose(text.replace("=.5", "=0.5").replace("aa", "a", 1)).overrides) == MAX_LENGTH


# ----------------------------------------------------------------------------------- cache, threads, Hydra
def test_the_same_string_gives_the_same_object() -> None:
    assert compose("seed=4 training.lr=0.3") is compose("seed=4 training.lr=0.3")


def best(times: int, action: Any) -> float:
    """Fastest of so many goes: a guard against doing the work again, not a benchmark."""
    seconds = []
    for turn in range(times):
        began = time.perf_counter()
        action(turn)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def test_composing_again_is_cheap() -> None:
    compose("seed=5")
    assert best(50, lambda _: compose("seed=5")) < 100e-6
    forget()
    compose("strategy=fedprox")
    assert best(20, lambda turn: compose(f"strategy=fedprox seed={turn}")) < 5e-3


def test_threads_compose_different_strings_at_once() -> None:
    expected = {text: compose(text) for text in STRINGS}
    forget()
    barrier = threading.Barrier(8)
    wrong: list[object] = []

    def work(number: int) -> None:
        order = STRINGS * 4
        random.Random(number).shuffle(order)
        barrier.wait(30)
        for text in [STRINGS[number % len(STRINGS)], *order]:
            try:
                if compose(text) != expected[text]:
                    wrong.append(text)
                compose(f"task=nothing seed={number}")
            except SettingsError:
                continue
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_inside_a_hydra_application(tmp_path: Path) -> None:
    """Eight threads, several strings, inside ``@hydra.main``; Hydra's own state is as it was."""
    (tmp_path / "app.py").write_text(
        textwrap.dedent(
            f"""
            from concurrent.futures import ThreadPoolExecutor
            import hydra
            from hydra.core.global_hydra import GlobalHydra
            from hydra.core.hydra_config import HydraConfig
            from quire.conf.compose import compose

            STRINGS = {STRINGS!r}

            @hydra.main(config_path={str(ROOT / "conf")!r}, config_name="config", version_base="1.3")
            def main(config):
                before = GlobalHydra.instance().hydra, HydraConfig.get().run.dir
                with ThreadPoolExecutor(8) as pool:
                    found = list(pool.map(compose, STRINGS * 8))
                assert found == [compose(text) for text in STRINGS] * 8
                assert (GlobalHydra.instance().hydra, HydraConfig.get().run.dir) == before
                mine = compose(" ".join(HydraConfig.get().overrides.task))
                print("seed", mine.seed, config.seed, "lr", mine.training.lr, config.training.lr)

            main()
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "app.py", "seed=7", "training.lr=0.25", "hydra.run.dir=out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["seed", "7", "7", "lr", "0.25", "0.25"]


def test_hydra_composes_around_us_as_before() -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    assert not GlobalHydra.instance().is_initialized()
    forget()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        expected = compose("task=synthetic")
        tree = hydra_compose("config", ["task=synthetic"])
        assert (tree.partition.silos, expected.partition.silos) == (100, 100)
    compose("runtime=flower")
    assert not GlobalHydra.instance().is_initialized()


def test_what_other_applications_told_hydra_has_no_say(tmp_path: Path) -> None:
    """Neither a search path plugin nor a config store of an application beside ours changes the settings."""
    plugin = tmp_path / "hydra_plugins" / "evil" / "plugin.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(
        textwrap.dedent(
            f"""
            from hydra.plugins.search_path_plugin import SearchPathPlugin

            class Evil(SearchPathPlugin):
                def manipulate_search_path(self, search_path):
                    search_path.prepend("evil", "file://{tmp_path}/elsewhere")
            """
        )
    )
    (plugin.parent / "__init__.py").write_text("")
    (tmp_path / "elsewhere" / "training").mkdir(parents=True)
    (tmp_path / "elsewhere" / "training" / "sgd.yaml").write_text("name: sgd\nmomentum: 0.666\n")
    code = (
        "import json\nfrom hydra.core.config_store import ConfigStore\n"
        "ConfigStore.instance().store(name='other', group='strategy', node={'name': 'fedavg', 'server_lr': 666.0})\n"
        "from quire.conf.compose import compose\n"
        "print(json.dumps(compose('').as_dict()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == compose("").as_dict()
