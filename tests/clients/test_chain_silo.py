"""Real silos and the model chain: what a store remembers of it, through kills, and what a silo does where it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from real_silo import code_of
from secure_place import RECORD, RUN, SILOS, Place
from secure_runs import PRIVATE
from secure_silos import Deployment, Killed, overrides_of, serve, warm, write_silos

from quire.clients import contract
from quire.clients.arrays import decode, encode
from quire.clients.identity import load_identity, new_identity
from quire.clients.policy.books import today
from quire.clients.secure.chain import Known
from quire.clients.secure.memory import InStore
from quire.clients.store import Store
from quire.errors import RunFailed
from quire.privacy.secagg.errors import ModelChainMismatch
from quire.privacy.secagg.messages import Start

SHARED = (
    "privacy=record_distributed privacy.epsilon=8 privacy.sampling_rate=0.2 privacy.records=300 privacy.largest=100 "
    "training.lr=0.1"
)
POLICY = "modes: [record_distributed], aggregation: [secure], code: [], min_cohort: 2, colluders: 0, epsilon: 40"


@pytest.fixture
def store(tmp_path: Path):
    new_identity(tmp_path / "silo.key", name="hospital-1")
    with Store.open(tmp_path / "store", load_identity(tmp_path / "silo.key")) as opened:
        yield opened


def known(store: Store, run: int = 7) -> Known | None:
    return InStore(store, run, today()).known()


# ------------------------------------------------------------------------------------------------------ the store
def test_a_silo_that_took_part_in_nothing_knows_nothing(store: Store) -> None:
    assert known(store) is None


def test_what_was_known_last_is_known_for_each_run(store: Store) -> None:
    memory = InStore(store, 7, today())
    for number in (1, 2, 2, 9):
        memory.know(Known(number, bytes([number]) * 32))
        assert known(store) == Known(number, bytes([number]) * 32)
    assert known(store, 77) is None


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "older", "empty"])
def test_a_record_that_is_lost_damaged_or_put_back_is_told_from_none(damage: str, store: Store) -> None:
    memory = InStore(store, 7, today())
    memory.know(Known(1, bytes(32)))
    path = store.path / "state" / "secure" / "run-7" / "chain.bin"
    old = path.read_bytes()
    memory.know(Known(2, bytes(32)))
    new = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "empty":
        store.state.put("secure/run-7/chain", b"")
    else:
        flipped = bytes([*new[:-1], new[-1] ^ 1])
        path.write_bytes({"cut": new[:-1], "flipped": flipped, "older": old}[damage])
    with pytest.raises(ModelChainMismatch, match="takes part again in another run"):
        known(store)
    assert known(store, 77) is None


def test_killed_between_record_and_counter_the_record_counts(store: Store) -> None:
    memory = InStore(store, 7, today())
    memory.know(Known(1, bytes(32)))
    store.state.put("secure/run-7/chain", Known(2, bytes(32)).encode())
    assert known(store) == Known(2, bytes(32))
    memory.know(Known(2, bytes(32)))
    memory.know(Known(3, bytes(32)))
    assert known(store) == Known(3, bytes(32))


# ----------------------------------------------------------------------------------------------------- whole runs
def bend(place: Place, number: int, *silos: str) -> None:
    """Tell silos another model at the beginning of a round, by one float."""

    def swap(message: Message, silo: str) -> None:
        about = message.metadata
        if (about.message_type, about.group_id) == (contract.SHARES, str(number)) and silo in silos:
            arrays = {name: np.array(part) for name, part in decode(message.content[contract.ARRAYS]).items()}  # type: ignore[arg-type]
            first = next(iter(arrays.values())).reshape(-1)
            first[0] = np.nextafter(first[0], np.float32(np.inf))
            message.content = type(message.content)({**message.content, contract.ARRAYS: encode(arrays)})

    place.grid.swap = swap


@pytest.mark.parametrize(("more", "policy"), [(PRIVATE, RECORD), (SHARED, POLICY)])
def test_a_lying_server_is_refused_by_every_silo_before_it_is_charged(more: str, policy: str, tmp_path: Path) -> None:
    place = Place(tmp_path, overrides_of(SILOS, 3, more), policy)
    bend(place, 2, *place.files)
    with pytest.raises(RunFailed, match=r"Round 2 failed.*the model does not follow"):
        place.serve()
    assert [place.charges(silo) for silo in place.files] == [1] * SILOS
    for name in place.files:
        with place.store(name) as kept:
            memory = InStore(kept, RUN, today())
            found = memory.known()
            assert found is not None
            assert found.round == 1
            assert memory.vector() is None


def test_no_silo_follows_sums_of_rounds_beyond_the_run(tmp_path: Path) -> None:
    """A server that has opened one sum says that it is round 4 of 3, in a session that would hold five."""
    place = Place(tmp_path, overrides_of(SILOS, 3, SHARED), POLICY)
    refused: list[str] = []

    def jump(message: Message, silo: str) -> None:
        about = message.metadata
        if (about.message_type, about.group_id) != (contract.SHARES, "2"):
            return
        content = message.content
        start = Start.decode(content[contract.PROTOCOL][contract.MESSAGE])  # type: ignore[index, arg-type]
        told = {name: np.array(part) for name, part in decode(content[contract.SUMS]).items()}  # type: ignore[arg-type]
        (sum_of,) = told.values()
        told |= {str(number): np.zeros_like(sum_of) for number in (2, 3)}
        content[contract.SUMS] = encode(told)
        content[contract.CHAIN][contract.SURVIVORS] = [SILOS] * 3  # type: ignore[index]
        content[contract.CONFIG][contract.ROUND] = 4  # type: ignore[index]
        content[contract.PROTOCOL][contract.MESSAGE] = replace(start, round=4).encode()  # type: ignore[index]
        refused.append(silo)

    place.grid.swap = jump
    with pytest.raises(RunFailed, match=r"Round 2 failed.*its own limit of rounds is reached"):
        place.serve()
    assert set(refused) == set(place.files)
    assert [place.charges(silo) for silo in place.files] == [1] * SILOS


@pytest.mark.parametrize(
    ("more", "rounds"), [(SHARED, 3), (f"{SHARED} privacy.selftest=2 strategy.fraction_evaluate=0", 2)]
)
def test_a_round_beyond_those_that_the_settings_name_is_refused(more: str, rounds: int, tmp_path: Path) -> None:
    place = Place(tmp_path, overrides_of(SILOS, 3, more), POLICY)
    assert code_of(place.ask(contract.SHARES, number=rounds)) != "ROUNDS_REFUSED"
    assert code_of(place.ask(contract.SHARES, number=rounds + 1)) == "ROUNDS_REFUSED"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_silo_whose_record_is_lost_stays_out_of_the_run_and_the_others_go_on(damage: str, tmp_path: Path) -> None:
    place = Place(tmp_path, overrides_of(SILOS, 4, SHARED), POLICY)
    path = place.files["hospital-1"].parent / "store" / "state" / "secure" / f"run-{RUN}" / "chain.bin"

    def lose(message: Message, silo: str) -> None:
        about = message.metadata
        if (about.message_type, about.group_id, silo) == (contract.SHARES, "3", "hospital-1"):
            path.write_bytes(b"?") if damage == "damaged" else path.unlink()

    place.grid.swap = lose
    reports = [report for report, _ in place.serve()]
    assert [len(report.replied) for report in reports] == [3, 3, 2, 2]
    for report in reports[2:]:
        ((silo, code),) = {(failure.silo, failure.code) for failure in report.failed}
        assert (silo, code) == ("hospital-1", "model_chain_mismatch")
    assert [place.charges(silo) for silo in place.files] == [2, 4, 4]


@pytest.mark.slow
def test_silos_killed_at_every_sync_of_a_round_s_beginning_still_know_their_last_model(tmp_path: Path) -> None:
    """SIGKILL at each fsync, one a round, and once before the reply leaves: no later round is refused for it."""
    moments: list[int | str] = [*range(1, 14), "reply"]
    overrides = overrides_of(SILOS, len(moments) + 2, "aggregation.rekey_every=1 strategy=fedadam")
    warm(overrides)
    files = write_silos(tmp_path / "silos", SILOS)
    grid = Deployment(files, 7, overrides, tmp_path / "left")
    for at, moment in enumerate(moments):
        grid.kills[contract.SHARES, str(at + 2), f"hospital-{at % SILOS + 1}"] = Killed(moment)
    seen = serve(grid, 7, tmp_path / "run", tmp_path / "silos" / "roster.json", overrides)
    assert len(seen) == len(moments) + 2
    assert len(grid.died) >= 8  # at the least so many syncs there are
    assert "model_chain_mismatch" not in {failure.code for report, _ in seen for failure in report.failed}
    for at, (report, _) in enumerate(seen):
        dead = {silo for stage, number, silo in grid.died if number == str(at + 1)}
        assert set(report.replied) == set(files) - dead
    for name, path in files.items():
        with Store.open(path.parent / "store", load_identity(path.parent / "silo.key")) as kept:
            found = known(kept)
            assert found is not None, name
            assert found.round == len(moments) + 2
