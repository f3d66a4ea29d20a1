"""What leaves a silo under secure aggregation: messages of the protocol, and nothing else."""

import numpy as np
import pytest
from flwr.app import ArrayRecord
from secure_runs import RUN, SECURE, SECURE_ONE, apart, model_of, rounds_of, vector_of

import quire
from quire.clients import contract
from quire.clients.arrays import decode


@pytest.mark.parametrize(
    "privacy",
    [
        "none",
        "record training.batch_size=16 training.steps=3",
        "record_distributed",
        "silo_distributed privacy.delta=1e-5",
    ],
)
def test_nothing_leaves_but_messages_of_the_protocol(privacy, replies, tmp_path):
    quire.run(f"{SECURE} privacy={privacy}", tmp_path / "run")
    assert set(replies) == {contract.QUERY, contract.EVALUATE, *contract.SECURE_STAGES}
    private = privacy != "none"
    for stage in contract.SECURE_STAGES:
        for reply in replies[stage]:
            beside = {contract.SHOWN} if private and stage == contract.SHARES else set()
            assert set(reply.content) == {contract.IDENTITY, contract.PROTOCOL} | beside
            receipt = {contract.RECEIPT} if beside else set()
            assert set(reply.content[contract.IDENTITY]) == {
                contract.SILO,
                contract.CODE_HASH,
                contract.CONTRACT,
                *receipt,
            }
            assert isinstance(reply.content[contract.PROTOCOL], ArrayRecord)
            (message,) = decode(reply.content[contract.PROTOCOL]).values()
            assert message.tobytes()[:3] == b"QSQ"
    for line in rounds_of(tmp_path / "run"):
        about = {"loss", "accuracy", "balanced_accuracy", "auc", "test_rows"}  # of simulated silos, from evaluate
        assert all(private or set(silo) <= about for silo in line["silos"].values())
        assert line["bytes_up"] == sum(
            stage["bytes_up"] for attempt in line["secure"]["attempts"] for stage in attempt["stages"].values()
        )


def test_a_masked_vector_says_nothing_of_the_update(replies, tmp_path):
    """The same silos, the same round: what two runs send differs in every way that can be seen."""
    overrides = SECURE_ONE.replace("breast_cancer", "digits")
    vectors = []
    for name in "ab":
        quire.run(overrides, tmp_path / name)
        vectors += [vector_of(reply, 650 * 3) for reply in replies.pop(contract.MASK)]
    size = len(vectors[0])
    for vector in vectors:
        counts = np.bincount(np.frombuffer(vector, np.uint8), minlength=256)
        chi = float(((counts - size / 256) ** 2 / (size / 256)).sum())
        assert 130 < chi < 420  # 255 degrees of freedom
    equal = np.mean(np.frombuffer(vectors[0], np.uint8) == np.frombuffer(vectors[5], np.uint8))
    assert equal < 0.02


def test_privacy_by_records_and_several_local_steps_come_to_the_plain_mean(tmp_path):
    private = "privacy=record privacy.epsilon=8 training.batch_size=16 training.steps=4 training.lr=0.05"
    quire.run(f"{RUN} {private}", tmp_path / "plain")
    quire.run(f"{SECURE} {private} aggregation.bits=32", tmp_path / "secure")
    plain, secure = (rounds_of(tmp_path / name) for name in ("plain", "secure"))
    assert apart(model_of(tmp_path / "plain"), model_of(tmp_path / "secure")) < 1e-5
    assert [set(line["receipts"]) for line in plain] == [set(line["receipts"]) for line in secure]
    assert all(len(line["receipts"]) == 5 for line in secure)
    assert secure[-1]["silos"]["hospital-1"]["records"] == plain[-1]["silos"]["hospital-1"]["records"]
