"""The published vectors come out again, byte by byte."""

import json

import numpy as np
import pytest
import secagg_vectors
from secagg_vectors import FILE, run

from quire.privacy.identity.keys import PrivateIdentity


@pytest.fixture(scope="module")
def published():
    return json.loads(FILE.read_text(encoding="utf-8"))


def test_every_message_and_the_sum_come_out_again(published):
    again = run(published)
    assert [message["stage"] for message in again["messages"]] == [m["stage"] for m in published["messages"]]
    for one, other in zip(again["messages"], published["messages"], strict=True):
        assert one == other, f"{one['stage']} {one['way']} {one['silo']}"
    assert again == published


def test_the_sum_is_that_of_the_survivors(published):
    words = [np.frombuffer(bytes.fromhex(published["silos"][str(i)]["vector"]), "<u4") for i in published["survivors"]]
    assert [sum(map(int, column)) % 2**24 for column in zip(*words, strict=True)] == published["sum_low_24_bits"]
    assert secagg_vectors.DROPPED not in published["survivors"]


def test_identities_are_given_with_their_secrets(published):
    for silo in published["silos"].values():
        assert PrivateIdentity.decode_secret(bytes.fromhex(silo["identity"])).public


def test_the_vectors_see_a_change(published):
    changed = json.loads(json.dumps(published))
    coins = changed["silos"]["0"]["random_bytes"]
    changed["silos"]["0"]["random_bytes"] = coins[:-1] + ("0" if coins[-1] != "0" else "1")
    assert run(changed)["messages"] != published["messages"]
