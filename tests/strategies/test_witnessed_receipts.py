"""Which receipts of earlier runs a server shows to whom: each silo its own, and nobody another one's."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from fake_grid import FakeGrid, identity
from flwr.app import ConfigRecord, Error, Message
from flwr.proto.node_pb2 import NodeInfo

from quire.clients import contract
from quire.clients.policy import witnessed as silos_side
from quire.privacy.dp.events import SampledGaussian, to_json
from quire.privacy.identity.ephemeral import ephemeral_roster
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.receipts import FORMAT, Receipt
from quire.strategies.cohort import enrol
from quire.strategies.witnessed import MOST, newest_receipts

NAMES = ("clinic", "hospital", "ward")
ROSTER, KEYS = ephemeral_roster(b"r" * 32, NAMES)
# Another consortium whose run folders lie beside ours: two silos that are called like ours, and one that is not.
_, OTHERS = ephemeral_roster(b"o" * 32, ["clinic", "hospital", "surgery"])
NODES = {7: "clinic", 3: "hospital", 5: "ward"}
MEMBERS = {name.encode(): name for name in NAMES}


def receipt(silo: str, entries: int, key: PrivateIdentity | None = None, population: str = "people") -> bytes:
    body = {
        **{"format": FORMAT, "run": "5", "round": entries, "settings": "ab" * 32, "code": "cd" * 32},
        **{"model": "ef" * 32, "silo": silo, "population": population, "records": 60, "unit": "record"},
        **{"relation": "add_remove", "weights": "uniform", "clip": 1.0, "noise_multiplier": 1.0},
        **{"sampling_rate": 0.2, "steps": 2, "event": to_json(SampledGaussian(1.0, 0.2, 2)), "delta": 1e-5},
        **{"epsilon": 2.0, "guarded": False, "simulated": False, "test_seed": False, "broken_gradients": None},
        "ledger": {"entries": entries, "head": f"{entries:064x}", "epsilon": 1.0, "delta": 1e-5},
    }
    return Receipt.sign(body, key or KEYS[silo]).encode()


def journal(folder: Path, lines: Iterable[Mapping[str, bytes]], at: int = 0) -> None:
    folder.mkdir()
    rounds = [{name: base64.b64encode(data).decode() for name, data in line.items()} for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"receipts": told}) + "\n" for told in rounds))
    os.utime(folder, (at, at))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of ours, in which the ward took no part, and one of another consortium; where the next run goes."""
    journal(tmp_path / "a", [{name: receipt(name, entries) for name in NAMES[:2]} for entries in (2, 3, 4)])
    journal(tmp_path / "b", [{"clinic": receipt("clinic", 5)}], at=1)
    journal(tmp_path / "c", [{name: receipt(name, 9, key) for name, key in OTHERS.items()}], at=2)
    return tmp_path / "new"


class Noted(FakeGrid):
    """A grid that notes which receipts each node was shown, message by message, and tells its nodes' keys."""

    def __init__(self, answers: Mapping[int, object]) -> None:
        super().__init__(dict(answers))
        self.shown: list[tuple[int, list[bytes]]] = []

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node, public_key=NODES[node].encode()) for node in self.get_node_ids()]

    def push_messages(self, messages: list[Message]) -> list[str]:
        for message in messages:
            told = message.content.config_records.get(contract.CONFIG, ConfigRecord())
            self.shown.append((message.metadata.dst_node_id, list(told.get(contract.WITNESSED, []))))
        return super().push_messages(messages)


def answering(**names: str) -> Noted:
    return Noted({node: identity(names.get(name, name)) for node, name in NODES.items()})


def test_of_each_silo_the_receipt_with_the_most_entries_is_found_and_nobody_elses(runs: Path) -> None:
    assert newest_receipts(runs, ROSTER) == {"clinic": [receipt("clinic", 5)], "hospital": [receipt("hospital", 4)]}
    assert newest_receipts(runs / "nowhere" / "new", ROSTER) == {}


def test_without_a_roster_nobody_knows_whose_a_receipt_is_and_none_is_shown(runs: Path) -> None:
    assert newest_receipts(runs, None) == {}


@pytest.mark.parametrize("members", [None, MEMBERS])
def test_no_message_holds_another_silos_receipt(runs: Path, members: dict[bytes, str] | None) -> None:
    grid = answering()
    found = newest_receipts(runs, ROSTER)
    enrolled, failed = enrol(grid, 3, 2, "x", join_timeout=20, simulated=False, members=members, witnessed=found)
    assert (enrolled.silos, failed) == (NODES, [])
    for node, shown in grid.shown:
        assert all(json.loads(data)["body"]["silo"] == NODES[node] for data in shown)
        assert all(json.loads(data)["signer"] == KEYS[NODES[node]].public.fingerprint for data in shown)
    # All who have one see it; where the server knows its members' nodes, with the one message that there ever was.
    assert {node: shown for node, shown in grid.shown if shown} == {3: found["hospital"], 7: found["clinic"]}
    assert len(grid.shown) == (3 if members else 5)


def test_with_many_silos_a_message_is_as_small_as_with_few(tmp_path: Path) -> None:
    names = [f"s-{place}" for place in range(40)]
    roster, keys = ephemeral_roster(b"m" * 32, names)
    journal(tmp_path / "a", [{name: receipt(name, entries, keys[name]) for name in names} for entries in (2, 3)])
    found = newest_receipts(tmp_path / "new", roster)
    assert {name: len(shown) for name, shown in found.items()} == dict.fromkeys(names, 1)


def test_a_node_sees_what_its_key_says_is_its_own_or_has_to_stay_with_its_word(runs: Path) -> None:
    """With a list of members what it says of itself does not count; without one that is all there is."""
    found = newest_receipts(runs, ROSTER)
    grid = answering(ward="clinic", clinic="ward")  # each says that it is the other
    with_list = enrol(grid, 3, 1, "x", join_timeout=20, simulated=False, members=MEMBERS, witnessed=found)
    assert with_list[0].names == ["hospital"]
    assert [shown for node, shown in grid.shown if NODES[node] == "ward"] == [[]]
    turning = answering()
    before = turning.push_messages

    def push(messages: list[Message]) -> list[str]:
        if turning.shown:  # it is asked a second time, and says that it is somebody else
            turning.answers[7] = identity("ward")
        return before(messages)

    turning.push_messages = push  # type: ignore[method-assign]
    enrolled, failed = enrol(turning, 3, 1, "x", join_timeout=20, simulated=False, witnessed=found)
    assert enrolled.names == ["hospital", "ward"]
    assert [(failure.silo, failure.code) for failure in failed] == [("clinic", "another_member")]


def test_a_silo_whose_ledger_was_put_back_is_left_out_by_name(runs: Path) -> None:
    """Without a list of members it was about to be enrolled before it was shown its receipt."""

    class Refusing(Noted):
        def push_messages(self, messages: list[Message]) -> list[str]:
            pushed = super().push_messages(messages)
            if any(node == 7 and shown for node, shown in self.shown):
                code = contract.Code.BOOKS_UNUSABLE
                self.answers[7] = Error(code, contract.reason(code))
            return pushed

    grid = Refusing({node: identity(name) for node, name in NODES.items()})
    found = newest_receipts(runs, ROSTER)
    enrolled, failed = enrol(grid, 3, 2, "x", join_timeout=20, simulated=False, witnessed=found)
    assert enrolled.names == ["hospital", "ward"]
    assert [failure.code for failure in failed] == ["books_unusable"]


def test_a_receipt_that_the_key_has_not_signed_stands_before_none_that_it_has(tmp_path: Path) -> None:
    forged = json.loads(receipt("clinic", 99, OTHERS["clinic"]))
    forged["signer"] = KEYS["clinic"].public.fingerprint
    data = json.dumps(forged, sort_keys=True, separators=(",", ":")).encode()
    journal(tmp_path / "a", [{"clinic": receipt("clinic", 2)}, {"clinic": data}, {"ward": data}])
    assert newest_receipts(tmp_path / "new", ROSTER) == {"clinic": [receipt("clinic", 2)]}


def test_a_receipt_counts_for_whom_it_names_not_for_where_it_stands(tmp_path: Path) -> None:
    journal(tmp_path / "a", [{"ward": receipt("hospital", 3)}])
    assert newest_receipts(tmp_path / "new", ROSTER) == {"hospital": [receipt("hospital", 3)]}


def test_a_silo_is_shown_one_for_each_population_and_no_more_than_it_looks_at(tmp_path: Path) -> None:
    many = [{"ward": receipt("ward", entries, population=f"p-{entries % 20}")} for entries in range(1, 41)]
    journal(tmp_path / "a", many)
    shown = newest_receipts(tmp_path / "new", ROSTER)["ward"]
    assert len({json.loads(data)["body"]["population"] for data in shown}) == len(shown) == MOST <= silos_side.MOST
    assert all(json.loads(data)["body"]["ledger"]["entries"] > 20 for data in shown)


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    journal(tmp_path / "a", [{"clinic": receipt("clinic", 2)}])
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write('[1, 2]\n{"receipts": {"clinic": 3}}\n{"receipts": ["clinic"]}\n{"receipts": {"clinic": "torn')
    journal(tmp_path / "b", [{"clinic": b"{}"}], at=1)
    (tmp_path / "file").touch()
    assert newest_receipts(tmp_path / "new", ROSTER) == {"clinic": [receipt("clinic", 2)]}


def test_a_pipe_in_the_place_of_a_journal_keeps_no_server(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "metrics.jsonl")
    journal(tmp_path / "b", [{"clinic": receipt("clinic", 2)}])
    found: list[dict[str, list[bytes]]] = []
    waiting = threading.Thread(target=lambda: found.append(newest_receipts(tmp_path / "new", ROSTER)), daemon=True)
    waiting.start()
    waiting.join(20)
    assert found == [{"clinic": [receipt("clinic", 2)]}]
