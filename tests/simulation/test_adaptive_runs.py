"""Whole federations of 500 silos whose clip follows their norms: told, journalled, resumed, and held to its rule."""

import json

import numpy as np
import pytest
from killing import die, killed, lines, resumed

import quire
from quire.clients.arrays import decode, encode
from quire.clients.contract import ARRAYS, CLIP, CONFIG, TRAIN, UPDATE, WITHIN
from quire.errors import RunFailed
from quire.privacy.dp.adaptive import next_clip
from quire.simulation.grid import InlineGrid
from quire.simulation.verify import verify_run
from quire.strategies.checkpoint import Checkpoints
from quire.strategies.folder import RunFolder

RUN = (
    "task=synthetic data.rows=3000 data.features=4 task.hidden=[2] partition.silos=500 strategy=fedavgm "
    "strategy.fraction=1 strategy.fraction_evaluate=0 privacy=silo privacy.delta=1e-5 privacy.epsilon=40 "
    "privacy.clipping=adaptive output.progress=none output.baselines=false output.report=false"
)


def rounds_of(path):
    return [line for line in lines(path) if line["event"] == "round"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two rounds, and every message and reply of its training."""
    path, seen = tmp_path_factory.mktemp("adaptive") / "run", []
    with pytest.MonkeyPatch.context() as patch:
        deliver = InlineGrid._deliver

        def watched(self, message, *args):
            reply = deliver(self, message, *args)
            if message.metadata.message_type == TRAIN:
                seen.append((message.content, reply.content))
            return reply

        patch.setattr(InlineGrid, "_deliver", watched)
        result = quire.run(f"{RUN} strategy.rounds=2", path)
    return path, result.model, seen


def test_every_silo_is_told_the_rounds_clip_and_the_journal_has_it(whole):
    path, _, seen = whole
    journal = rounds_of(path)
    clip = 1.0
    for number, line in enumerate(journal, start=1):
        asked = [told for told, _ in seen if told[CONFIG]["server-round"] == number]
        assert len(asked) == 500
        assert {told[CONFIG][CLIP] for told in asked} == {clip}
        assert line["released"]["clip"] == clip
        clip = next_clip(clip, line["released"]["within"], 0.5)
    assert Checkpoints(path / "checkpoint").load().state.memory[CLIP] == clip


def test_bits_leave_beside_the_update_and_nothing_else_does(whole):
    path, _, seen = whole
    for line, start in zip(rounds_of(path), (0, 500), strict=True):
        bits = []
        for told, reply in seen[start : start + 500]:
            update = decode(reply[UPDATE])
            assert set(update) == {*decode(told[ARRAYS]), WITHIN}
            bits.append(float(update[WITHIN]))
        assert set(bits) <= {0.5, -0.5}
        norms = np.array([about["signal_norm"] for about in line["silos"].values()])
        assert sum(bits) == (norms <= line["released"]["clip"]).sum() - 250
        noise = line["released"]["within"] - (sum(bits) / 500 + 0.5)
        assert 0 < abs(noise) < 5 / 20  # five standard deviations of the noise on the share


def test_the_run_verifies_and_a_share_that_was_changed_does_not(whole, tmp_path):
    import shutil

    path = shutil.copytree(whole[0], tmp_path / "run")
    assert verify_run(path).wrong == []
    card = json.loads((path / "privacy_card.json").read_text())
    assert card["worst"]["rdp"] <= 50.0
    assert "The clip moves with the noisy share" in json.dumps(card["words"])
    journal = path / "metrics.jsonl"
    text = [json.loads(line) for line in journal.read_text().splitlines()]
    text[1]["released"]["within"] += 1e-6
    journal.write_text("".join(json.dumps(line) + "\n" for line in text))
    assert any("the clip of round 2 is not the one that follows" in words for words in verify_run(path).wrong)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_clip_it_had_reached(whole, tmp_path):
    path, model, _ = whole
    overrides, again = f"{RUN} strategy.rounds=2", tmp_path / "run"

    def arm():
        original = RunFolder.round_done

        def round_then_die(self, report, state):
            original(self, report, state)
            if state.round == 1:
                die()

        RunFolder.round_done = round_then_die

    killed(overrides, again, arm)
    assert resumed(overrides, again) == model
    assert lines(again) == lines(path)


def test_a_silo_whose_bit_is_none_drops_out_and_the_round_goes_on(tmp_path, monkeypatch):
    """They lie on the wire: the code that is shipped to them does not."""
    lies = {"silo-7": np.array(250.0), "silo-41": np.array(np.nan), "silo-300": np.array(0.5, np.float32)}
    deliver = InlineGrid._deliver

    def lying(self, message, *args):
        reply = deliver(self, message, *args)
        silo = reply.content["identity"]["silo"]
        if message.metadata.message_type == TRAIN and silo in lies:
            reply.content[UPDATE] = encode({**decode(reply.content[UPDATE]), WITHIN: lies[silo]})
        return reply

    monkeypatch.setattr(InlineGrid, "_deliver", lying)
    quire.run(f"{RUN} strategy.rounds=1", tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert {failure["silo"]: failure["code"] for failure in line["failed"]} == {
        "silo-7": "impossible_update",
        "silo-41": "not_finite",
        "silo-300": "wrong_dtype",
    }
    assert len(line["replied"]) == 497


def test_a_round_that_asks_too_few_ends_before_anybody_is_asked(tmp_path):
    faults = "runtime.faults=['drop:query:*:silo-9']"
    with pytest.raises(RunFailed, match="needs at least 500 units and there are 499"):
        quire.run(f"{RUN} strategy.rounds=2 {faults} runtime.join_timeout=1", tmp_path / "run")
    assert rounds_of(tmp_path / "run") == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("start", [0.3, 0.012])
def test_the_clip_moves_to_the_median_of_the_norms(start, tmp_path):
    """It starts at five times the median norm, and at a fifth of it."""
    quire.run(f"{RUN} strategy.rounds=26 privacy.clip={start}".replace("fedavgm", "fedavg"), tmp_path / "run")
    journal = rounds_of(tmp_path / "run")
    within = []
    for line in journal:
        norms = np.array([about["signal_norm"] for about in line["silos"].values()])
        within.append((norms <= line["released"]["clip"]).mean())
    assert within[0] in (0.0, 1.0)
    assert np.mean(within[-6:]) == pytest.approx(0.5, abs=0.15)
