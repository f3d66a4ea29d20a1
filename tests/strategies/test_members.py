"""A node of a consortium answers under its own member's name, or is left out: its key says whose it is."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_grid import FakeGrid, identity
from flwr.proto.node_pb2 import NodeInfo
from hypothesis import given
from hypothesis import strategies as st

from quire.consortium.proxy import render_keys
from quire.errors import RunFailed
from quire.strategies.cohort import enrol
from quire.strategies.folder import RunFolder
from quire.strategies.members import members_of, read_members

KEYS = {"clinic": b"key of the clinic", "hospital": b"key of the hospital", "ward": b"key of the ward"}
MEMBERS = {key: name for name, key in KEYS.items()}
NAMES = st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True)
NODES = {7: "clinic", 3: "hospital", 5: "ward"}


class Link(FakeGrid):
    """A SuperLink's grid: it tells the keys of its nodes, and names that somebody registered them under."""

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node, public_key=KEYS[NODES[node]], name="whoever") for node in self.get_node_ids()]


def answering(**names: str) -> Link:
    return Link({node: identity(names.get(member, member)) for node, member in NODES.items()})


def test_who_answers_under_its_own_name_is_enrolled() -> None:
    enrolled, failed = enrol(answering(), 3, 2, "x", join_timeout=20, simulated=False, members=MEMBERS)
    assert enrolled.silos == NODES
    assert failed == []


@pytest.mark.parametrize("order", [(7, 3, 5), (5, 3, 7)])
def test_who_answers_under_another_members_name_is_left_out_and_the_other_is_not(order: tuple[int, ...]) -> None:
    """Whoever answers first: the impostor does not take the name."""
    grid = answering(ward="clinic")
    grid.answers = {node: grid.answers[node] for node in order}
    enrolled, failed = enrol(grid, 3, 2, "x", join_timeout=20, simulated=False, members=MEMBERS)
    assert enrolled.silos == {7: "clinic", 3: "hospital"}
    (failure,) = failed
    assert (failure.silo, failure.stage, failure.code) == ("ward", "query", "another_member")
    assert failure.words == "its node is ward's, and it answers as clinic"
    # Without a list nodes are who they say, as in a plain run of Flower's: of two the first.
    enrolled, failed = enrol(grid, 3, 2, "x", join_timeout=20, simulated=False)
    assert sorted(enrolled.silos.values()) == ["clinic", "hospital"]
    assert [failure.code for failure in failed] == ["name_taken"]


def test_a_node_whose_key_is_no_members_is_left_out() -> None:
    known = {key: name for key, name in MEMBERS.items() if name != "ward"}
    enrolled, failed = enrol(answering(), 3, 2, "x", join_timeout=20, simulated=False, members=known)
    assert sorted(enrolled.silos.values()) == ["clinic", "hospital"]
    assert [(failure.silo, failure.code) for failure in failed] == [("node 5", "no_member")]


def test_members_that_swap_their_names_are_both_left_out_and_the_run_says_so(tmp_path: Path) -> None:
    grid = answering(ward="clinic", clinic="ward")
    with pytest.raises(RunFailed, match=r"1 of 3 silos could be enrolled, 2 are needed: .*it answers as ward"):
        enrol(grid, 3, 2, "x", join_timeout=20, simulated=False, members=MEMBERS)
    _, failed = enrol(grid, 3, 1, "x", join_timeout=20, simulated=False, members=MEMBERS)
    folder = RunFolder(tmp_path / "run")
    folder.left_out([])
    folder.left_out(failed)
    folder.close()
    (line,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert line["event"] == "enrolment"
    assert {one["silo"] for one in line["failed"]} == {"clinic", "ward"}
    assert {one["code"] for one in line["failed"]} == {"another_member"}


def test_the_superlinks_own_name_for_a_node_counts_for_nothing() -> None:
    assert members_of(answering(), MEMBERS) == NODES  # type: ignore[arg-type]


@given(st.dictionaries(NAMES, st.binary(min_size=1, max_size=200), max_size=6))
def test_the_list_is_read_as_the_server_writes_it_for_its_proxy(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, bytes]
) -> None:
    place = tmp_path_factory.mktemp("list") / "nodes.map"
    place.write_text(render_keys(keys))
    if len(set(keys.values())) < len(keys):
        with pytest.raises(RunFailed, match="cannot be read"):
            read_members(place)
    else:
        assert read_members(place) == {key: name for name, key in keys.items()}


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: good + b"clinic\n",
        lambda good: good + b"clinic  \n",
        lambda good: good + b"clinic " + base64.b64encode(KEYS["ward"]) + b"\n",
        lambda good: good.replace(b"clinic ", b"clinic !"),
        lambda good: good + b"\xff \xff\n",
    ],
)
def test_a_damaged_list_ends_the_run_in_a_sentence(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    place = tmp_path / "nodes.map"
    place.write_bytes(damage(render_keys(KEYS).encode()))
    with pytest.raises(RunFailed, match=r"The list of members' node keys, .* cannot be read") as told:
        read_members(place)
    assert "\n" not in str(told.value)
    with pytest.raises(RunFailed, match="cannot be read"):
        read_members(tmp_path / "none")
