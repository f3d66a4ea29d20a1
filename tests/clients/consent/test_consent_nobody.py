"""A silo whose subjects have all withdrawn: under privacy it answers as any other, with an update of zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from consenting import CONSENT, RECORDS, Consenting
from real_silo import MODEL, all_bytes

from quire.clients.arrays import decode
from quire.clients.contract import WITHIN
from quire.clients.data.silo import Rows
from quire.clients.entropy import Seeded
from quire.clients.private.plan import Plan, SharedPlan, plan_of
from quire.clients.private.work import private_update, shared_vector
from quire.clients.tasks import Task, task_of
from quire.clients.training import workbench
from quire.conf.compose import compose
from quire.privacy.dp.adaptive import centred_bit

SILO = "privacy=silo privacy.epsilon=8 privacy.delta=1e-5 strategy.fraction=1"
LENGTHS = ("training.steps=2", "training.steps=0 training.epochs=2")
EVERYBODY = tuple(f"p{place}" for place in range(RECORDS))


def nobody(task: Task) -> Rows:
    return Rows(np.zeros((0, task.features), np.float32), np.zeros(0, np.int64))


@pytest.fixture
def silo(tmp_path: Path) -> Consenting:
    found = Consenting(tmp_path)
    found.write(CONSENT, modes="[silo]", epsilon="40.0", trusts_server="true")
    return found


@pytest.mark.timeout(60)
@pytest.mark.parametrize("length", LENGTHS)
def test_an_empty_silo_answers_as_any_other(silo: Consenting, length: str) -> None:
    sizes = []
    for number, gone in enumerate([(), EVERYBODY], start=1):
        silo.withdraw(*gone)
        reply = silo.ask("train", f"{SILO} {length}", number)
        assert not reply.has_error(), reply.error
        sizes.append(len(all_bytes(reply)))
    update = decode(reply.content["update"])
    assert set(update) == set(MODEL)
    assert all(not update[name].any() and update[name].dtype == MODEL[name].dtype for name in MODEL)
    assert max(sizes) - min(sizes) < 64
    assert silo.lines()[-1]["trained"] == 0


@pytest.mark.timeout(60)
@pytest.mark.parametrize("length", LENGTHS)
def test_under_an_adaptive_clip_its_bit_is_that_of_a_short_update(length: str) -> None:
    settings = compose(f"task=synthetic {SILO} privacy.clipping=adaptive partition.silos=500 {length}")
    task = task_of(settings)
    plan = plan_of(settings, RECORDS)
    assert isinstance(plan, Plan)
    model = task.initial_arrays(np.random.default_rng(1))
    update, _ = private_update(settings, task, nobody(task), plan, Seeded(1), "a", model, 1)
    assert {name: part.dtype for name, part in update.items() if name != WITHIN} == {
        name: part.dtype for name, part in model.items()
    }
    assert not any(part.any() for name, part in update.items() if name != WITHIN)
    assert update[WITHIN] == centred_bit(0.0, plan.clip)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", ["silo_distributed", "record_distributed"])
def test_an_empty_silo_adds_zero_to_a_sum_under_distributed_noise(kind: str, length: str) -> None:
    more = "privacy.sampling_rate=0.2 privacy.records=300 privacy.largest=100" if kind.startswith("record") else ""
    settings = compose(
        f"privacy={kind} privacy.epsilon=8 privacy.delta=1e-5 aggregation=secure {more} "
        f"{length if kind.startswith('silo') else ''}"
    )
    task = task_of(settings)
    model = task.initial_arrays(np.random.default_rng(1))
    plan = plan_of(settings, 100)
    assert isinstance(plan, SharedPlan)
    vector, shown = shared_vector(settings, task, nobody(task), plan, Seeded(1), "a", model, (1, 1))
    assert vector.shape == (sum(part.size for part in model.values()),)
    assert not vector.any()
    assert np.isfinite(list(shown.values())).all()


def test_a_course_of_no_rows_is_an_error_and_no_endless_loop(silo: Consenting) -> None:
    settings = compose("training.steps=2")
    task = task_of(settings)
    with pytest.raises(ValueError, match="no row to train on"):
        workbench(task).train(nobody(task), settings.training, np.random.default_rng(1))
