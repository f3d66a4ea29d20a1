"""``clipping=adaptive`` at the silo: it clips to what it is told within its own limit, and sends one honest bit."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from real_silo import MODEL, RealSilo, code_of, merged, opened_files

from quire.clients.arrays import decode, encode
from quire.clients.client_app import SILO_KEY, app
from quire.clients.contract import CLIP, WITHIN
from quire.clients.private.plan import plan_of
from quire.clients.private.work import clipped_update
from quire.conf.compose import compose
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.events import from_json
from quire.privacy.receipts import Receipt
from quire.simulation.grid import server_identity

FIXED = "privacy=silo privacy.epsilon=1 privacy.delta=1e-4 privacy.clip=0.5"
MOVED = f"{FIXED} privacy.clipping=adaptive partition.silos=500"
POLICY = {"modes": "[silo]", "trusts_server": "true", "min_noise": "0.1", "max_clip": "0.8"}


@pytest.fixture
def silo(tmp_path):
    real = RealSilo(tmp_path)
    real.write(**POLICY)
    return real


def ask(silo, overrides, clip=None, round_number=1):
    told = {} if clip is None else {CLIP: clip}
    records = {"arrays": encode(MODEL), "config": ConfigRecord({"server-round": round_number, **told})}
    node = {SILO_KEY: str(silo.folder / "silo.yaml")}
    context = Context(silo.run, 10, node, silo.state, {"overrides": merged(overrides)})
    with server_identity(silo.run):
        message = Message(RecordDict(records), 10, "train")
        message.metadata.__dict__["_message_id"] = "m"
        return app(message, context)


def length(update):
    return np.sqrt(sum(float((part.astype(np.float64) ** 2).sum()) for name, part in update.items() if name != WITHIN))


def test_the_update_keeps_to_the_clip_of_the_round_and_the_bit_says_whether_it_had_to(silo):
    sent = {}
    for number, clip in enumerate((0.8, 1e-3, 0.4), start=1):
        reply = ask(silo, MOVED, clip, number)
        assert code_of(reply) == "ANSWERED"
        sent[clip] = update = decode(reply.content["update"])
        assert set(update) == {*MODEL, WITHIN}
        assert length(update) <= clip * (1 + 1e-5)
    assert float(sent[1e-3][WITHIN]) == -0.5
    assert length(sent[1e-3]) == pytest.approx(1e-3, rel=1e-5)
    assert float(sent[0.8][WITHIN]) == (0.5 if length(sent[0.8]) < 0.799 else -0.5)


def test_a_round_costs_what_it_costs_with_a_fixed_clip_wherever_the_clip_is(silo):
    receipts = []
    for number, clip in enumerate((0.5, 0.01), start=1):
        body = Receipt.decode(ask(silo, MOVED, clip, number).content["identity"]["receipt"]).body
        assert body["clip"] == clip
        receipts.append(from_json(body["event"]))
    silo.run += 1  # a run keeps its settings
    assert code_of(ask(silo, FIXED, None, 3)) == "ANSWERED"
    charges = [charge["charges"] for charge in silo.charges()]
    assert receipts[0] == receipts[1] == plan_of(compose(merged(FIXED)), 60).released(1)
    assert charges[0][0]["event"] == charges[1][0]["event"] == charges[2][0]["event"]


@pytest.mark.parametrize(
    ("overrides", "clip", "code", "words"),
    [
        (MOVED, 0.81, "POLICY_REFUSED", "the server has moved the clip to 0.81"),
        (MOVED, 1e300, "POLICY_REFUSED", "policy.max_clip (silo.yaml, line"),
        (MOVED, None, "POLICY_REFUSED", "does not say where the clip is"),
        (FIXED, 0.4, "POLICY_REFUSED", "a clip of 0.4, and the settings have a fixed one, 0.5"),
        (FIXED, 0.6, "POLICY_REFUSED", "a clip of 0.6, and the settings have a fixed one, 0.5"),
        ("privacy.clip=0.7", 0.6, "POLICY_REFUSED", "a fixed one, 0.7"),
        (MOVED, 0.0, "BAD_REQUEST", ""),
        (MOVED, -0.5, "BAD_REQUEST", ""),
        (MOVED, float("nan"), "BAD_REQUEST", ""),
        (MOVED, float("inf"), "BAD_REQUEST", ""),
        (MOVED, 1, "BAD_REQUEST", ""),
        (MOVED, "0.5", "BAD_REQUEST", ""),
    ],
)
def test_a_clip_that_is_not_the_silos_to_accept_is_refused_before_data_is_touched(
    overrides, clip, code, words, silo, caplog
):
    silo.write(**{**POLICY, "modes": "[silo, record]"})
    with opened_files() as files:
        assert code_of(ask(silo, overrides, clip)) == code
    assert str(silo.csv) not in files
    assert silo.charges() == []
    assert words in caplog.text


def test_a_fixed_clip_may_be_told_as_it_is_and_no_bit_is_sent(silo):
    reply = ask(silo, FIXED, 0.5)
    assert code_of(reply) == "ANSWERED"
    assert set(decode(reply.content["update"])) == set(MODEL)


def test_a_silo_without_a_policy_holds_the_clip_to_the_settings_as_well():
    settings = compose("task=breast_cancer privacy=silo privacy.delta=1e-5")
    assert plan_of(settings, 50, 1.0) == plan_of(settings, 50)
    with pytest.raises(PrivacyError, match=r"tells a clip of 2, and the settings have 1"):
        plan_of(settings, 50, 2.0)


def test_an_update_that_diverged_is_not_within_any_clip(silo, monkeypatch):
    from quire.clients.private import work

    def diverged(update, clip, weight):
        return clipped_update({name: np.full_like(part, np.nan) for name, part in update.items()}, clip, weight)

    monkeypatch.setattr(work, "clipped_update", diverged)
    update = decode(ask(silo, MOVED, 0.8).content["update"])
    assert float(update[WITHIN]) == -0.5
    assert length(update) == 0.0
