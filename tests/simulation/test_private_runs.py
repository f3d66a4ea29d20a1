"""Whole private federations in this process: what leaves, what is weighted by what, and that noise matters."""

import json

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord

import quire
from quire import compose
from quire.clients import contract
from quire.clients.data.simulated import federation
from quire.errors import RunFailed, SettingsError
from quire.simulation.grid import InlineGrid

RUN = "task=breast_cancer partition=iid partition.silos=4 strategy.rounds=3 training.batch_size=16"
RECORD = f"{RUN} privacy=record"
SILO = f"{RUN} privacy=silo privacy.delta=1e-5"


def rounds_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "round"]


@pytest.mark.parametrize("overrides", [pytest.param(RECORD, marks=pytest.mark.slow), SILO])
def test_the_same_seed_gives_the_same_noise_and_every_private_setting_matters(overrides, tmp_path):
    first = quire.run(overrides, tmp_path / "a").model
    assert quire.run(overrides, tmp_path / "b").model == first
    changes = ["privacy.epsilon=1", "privacy.clip=0.5", "seed=2", "strategy=fedprox"]
    changes += ["privacy.noise=gaussian"] if "record" in overrides else ["privacy.weights=capped privacy.cap=1000"]
    models = {quire.run(f"{overrides} {change}", tmp_path / str(place)).model for place, change in enumerate(changes)}
    assert len(models | {first}) == len(changes) + 1


def test_ghost_clipping_hooks_and_rows_alone_differ_by_less_than_their_slack(tmp_path):
    """Without noise all take the same steps, but for what ghost clipping clips more."""
    from safetensors.numpy import load_file

    models = []
    for method in ("hooks", "ghost", "rows"):
        quire.run(f"{RECORD} privacy.epsilon=inf privacy.gradients={method}", tmp_path / method)
        models.append(load_file(tmp_path / method / "model.safetensors"))
    for name, array in models[0].items():
        assert models[1][name] == pytest.approx(array, abs=5e-3)
        assert models[2][name] == pytest.approx(array, abs=5e-3)
    assert any(not np.array_equal(models[1][name], array) for name, array in models[0].items())


@pytest.fixture
def replies(monkeypatch):
    """Every reply that reaches the server, by stage."""
    seen = {}
    pull = InlineGrid.pull_messages

    def watched(self, message_ids):
        found = list(pull(self, message_ids))
        for reply in found:
            seen.setdefault(reply.metadata.message_type, []).append(reply)
        return found

    monkeypatch.setattr(InlineGrid, "pull_messages", watched)
    return seen


@pytest.mark.parametrize("overrides", [RECORD, SILO])
def test_nothing_leaves_but_the_update_and_public_figures(overrides, replies, tmp_path):
    quire.run(overrides, tmp_path / "run")
    counts = {len(silo.train) for silo in federation(compose(overrides))}
    for reply in replies[contract.TRAIN]:
        assert set(reply.content) == {contract.UPDATE, contract.IDENTITY, contract.SHOWN}
        identity = reply.content[contract.IDENTITY]
        assert isinstance(identity, ConfigRecord)
        assert identity[contract.RECORDS] in counts  # the simulator declares what it dealt out
        shown = reply.content[contract.SHOWN]
        assert isinstance(shown, MetricRecord)
        assert contract.NUM_EXAMPLES not in shown


@pytest.mark.parametrize("overrides", [RECORD, SILO])
def test_a_silo_that_is_not_simulated_shows_nothing(overrides, replies, tmp_path, monkeypatch):
    from dataclasses import replace

    from quire.clients import client_app

    place = client_app.member_of
    monkeypatch.setattr(client_app, "member_of", lambda *args: _real(place(*args), replace))
    with pytest.raises(RunFailed, match="its operator has given it no policy"):
        quire.run(overrides, tmp_path / "run")


def _real(member, replace):
    return replace(member, simulated=False)


def test_an_update_that_left_with_the_clip_cut_out_is_a_dropout(tmp_path, monkeypatch):
    from quire.clients.private import work

    honest = work.clipped_update
    monkeypatch.setattr(work, "clipped_update", lambda update, clip, weight: honest(update, 3 * clip + 1e3, weight))
    with pytest.raises(RunFailed, match="its update is longer than the clip"):
        quire.run(f"{SILO} privacy.clip=0.001", tmp_path / "run")


def test_a_silo_smaller_than_a_batch_is_named(tmp_path):
    overrides = RECORD.replace("partition=iid", "partition.alpha=0.1").replace("batch_size=16", "batch_size=100")
    with pytest.raises(SettingsError, match=r"hospital-\d cannot take part: training.batch_size=100 is larger than"):
        quire.run(overrides, tmp_path / "run")


def test_records_weight_the_mean_and_not_the_rows_that_were_drawn(tmp_path):
    quire.run(RECORD, tmp_path / "run")
    federated = federation(compose(RECORD))
    for line in rounds_of(tmp_path / "run"):
        for place, silo in enumerate(federated):
            assert line["silos"][f"hospital-{place + 1}"]["records"] == len(silo.train)


def test_less_epsilon_is_more_noise(tmp_path):
    noise = []
    for epsilon in (0.5, 2, 8):
        quire.run(f"{RECORD} privacy.epsilon={epsilon}", tmp_path / str(epsilon))
        noise.append(rounds_of(tmp_path / str(epsilon))[-1]["train"]["noise_norm"])
    assert noise[0] > 2 * noise[1] > 4 * noise[2] / 2
    assert noise == sorted(noise, reverse=True)
