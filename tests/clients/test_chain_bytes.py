"""What a message says of the model chain, and what a silo keeps of it: read as it was written, or refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from chain_sums import known_of, path_of
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.arrays import encode
from quire.clients.contract import Code
from quire.clients.secure.agreement import Agreement
from quire.clients.secure.chain import MOST_SUMS, Known, Path, digest_of, follow
from quire.clients.secure.link import read_path
from quire.privacy.dp.probes import ProbeTest
from quire.privacy.dp.wire import pack
from quire.privacy.secagg.errors import ImplausibleSum, ModelChainMismatch, Replay
from quire.simulation.grid import server_identity


@given(st.integers(1, 2**32 - 1), st.binary(min_size=32, max_size=32), st.lists(st.floats(0, 1e5), max_size=4))
def test_what_is_known_is_read_as_it_was_written(number: int, digest: bytes, statistics: list[float]) -> None:
    test = ProbeTest()
    for statistic in statistics:
        test = test.add(1024, statistic)
    known = Known(number, digest, test)
    assert Known.decode(known.encode()) == known


@given(st.binary(max_size=80))
def test_any_other_bytes_are_a_record_that_is_lost(data: bytes) -> None:
    with pytest.raises(ModelChainMismatch, match="takes part again in another run"):
        Known.decode(data)


def message_of(path: Path, agreement: Agreement, **other: ArrayRecord | ConfigRecord | MetricRecord | None) -> Message:
    sums = {str(at): np.frombuffer(pack(total, agreement.point.bits), np.uint8) for at, total in path.sums.items()}
    records: dict[str, ArrayRecord | ConfigRecord | MetricRecord | None] = {
        contract.ARRAYS: encode(path.state.model),
        contract.CONFIG: ConfigRecord({contract.ROUND: path.last}),
        contract.CHAIN: ConfigRecord({contract.BASE: path.first, contract.SURVIVORS: [5] * len(sums)}),
        contract.CHAIN_MEMORY: encode(path.state.memory),
        contract.SUMS: encode(sums),
    }
    records |= {name.replace("_", "-"): record for name, record in other.items()}
    with server_identity(1):
        return Message(RecordDict({name: record for name, record in records.items() if record is not None}), 1, "train")


def test_a_path_is_read_as_the_server_writes_it() -> None:
    agreement, algorithm, path, states = path_of("strategy=fedadam", first=2)
    found = read_path(message_of(path, agreement), agreement, algorithm, path.state.model)
    assert (found.first, found.last, set(found.sums)) == (2, 4, {2, 3})
    assert follow(agreement, algorithm, found, known_of(states, 3))[1] == digest_of(states[4])


def _sums(**arrays: np.ndarray) -> dict[str, ArrayRecord]:
    return {"chain_sums": encode({name.removeprefix("_"): array for name, array in arrays.items()})}


GOOD = np.zeros(27 * 3, np.uint8)
BAD = {
    "no chain": {"chain": None},
    "a chain of another kind": {"chain": encode({contract.BASE: np.zeros(1)})},
    "no base": {"chain": ConfigRecord({})},
    "a base that is no number": {"chain": ConfigRecord({contract.BASE: "2"})},
    "a base that is true": {"chain": ConfigRecord({contract.BASE: True})},
    "a base of zero": {"chain": ConfigRecord({contract.BASE: 0})},
    "a base below zero": {"chain": ConfigRecord({contract.BASE: -3})},
    "a base after the round": {"chain": ConfigRecord({contract.BASE: 5})},
    "a huge base": {"chain": ConfigRecord({contract.BASE: 2**62})},
    "no survivors": {"chain": ConfigRecord({contract.BASE: 2})},
    "survivors of one sum": {"chain": ConfigRecord({contract.BASE: 2, contract.SURVIVORS: [5]})},
    "too few survivors": {"chain": ConfigRecord({contract.BASE: 2, contract.SURVIVORS: [5, 1]})},
    "too many survivors": {"chain": ConfigRecord({contract.BASE: 2, contract.SURVIVORS: [5, 6]})},
    "survivors that are no numbers": {"chain": ConfigRecord({contract.BASE: 2, contract.SURVIVORS: ["5", "5"]})},
    "a memory of another kind": {"chain_memory": ConfigRecord({"m": 1})},
    "half a memory": {"chain_memory": encode({"m/w": np.zeros((7, 3))})},
    "another algorithm's memory": {"chain_memory": encode({"v/w": np.zeros((7, 3)), "v/a": np.zeros(5)})},
    "sums of another kind": {"chain_sums": MetricRecord({"2": 1.0})},
    "a sum of floats": _sums(_2=np.zeros(27)),
    "a sum of words": _sums(_2=np.zeros(27, np.uint32)),
    "a sum of two dimensions": _sums(_2=GOOD.reshape(27, 3)),
    "a short sum": _sums(_2=GOOD[:-1]),
    "a long sum": _sums(_2=np.zeros(28 * 3, np.uint8)),
    "an empty sum": _sums(_2=GOOD[:0]),
    "a sum of the round itself": _sums(_4=GOOD),
    "a sum of a round before": _sums(_1=GOOD),
    "another spelling": _sums(_02=GOOD),
    "a sum of no number": _sums(two=GOOD),
    "too many sums": {"chain_sums": encode({str(at): GOOD for at in range(2, MOST_SUMS + 3)})},
    "not an array": {"chain_sums": encode({"2": GOOD})},
}


@pytest.mark.parametrize("what", BAD)
def test_a_chain_that_is_malformed_is_a_bad_request(what: str) -> None:
    agreement, algorithm, path, _ = path_of("strategy=fedadam", first=2)
    message = message_of(path, agreement, **BAD[what])
    if what == "not an array":
        message.content[contract.SUMS]["2"].data = b"\x93NUMPY nonsense"  # type: ignore[union-attr, index]
    with pytest.raises(Refusal) as caught:
        read_path(message, agreement, algorithm, path.state.model)
    assert caught.value.code is Code.BAD_REQUEST


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_a_message_holds_is_read_or_refused(data: st.DataObject) -> None:
    agreement, algorithm, path, states = path_of("strategy=fedadam", first=2, last=3)
    names = st.one_of(
        st.sampled_from(["2", "1", "02", "٢", "2\x00", "-2", "9" * 40, "m/w", "v/w"]), st.text(max_size=6)
    )
    arrays = st.one_of(
        st.binary(max_size=100).map(lambda found: np.frombuffer(found, np.uint8)),
        st.sampled_from([GOOD, np.zeros(()), np.zeros((7, 3)), np.zeros((2, 0), np.int64), np.ones(3, bool)]),
    )
    record = st.dictionaries(names, arrays, max_size=3).map(encode)
    base = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=3), st.booleans(), st.floats())
    message = message_of(
        path,
        agreement,
        chain=data.draw(
            st.one_of(
                st.none(),
                st.builds(
                    lambda at, told: ConfigRecord({contract.BASE: at, contract.SURVIVORS: told}),
                    base,
                    st.one_of(st.just([5]), st.lists(st.integers(-9, 9), max_size=3), st.text(max_size=3)),
                ),
            )
        ),
        chain_memory=data.draw(st.one_of(st.none(), record)),
        chain_sums=data.draw(st.one_of(st.none(), record)),
    )
    with contextlib.suppress(Refusal, ModelChainMismatch, ImplausibleSum, Replay):
        found = read_path(message, agreement, algorithm, path.state.model)
        follow(agreement, algorithm, found, known_of(states, 2))
