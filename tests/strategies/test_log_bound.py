"""What the server shows each silo of its log: whatever was lost on the way, a silo can go on from where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import SERVER, SILOS, entry, identity, opened, roster

from quire.clients import contract
from quire.errors import RunFailed
from quire.privacy.secagg.context import GENESIS
from quire.strategies.log_bound import Bound
from quire.strategies.reading import Unusable
from quire.transparency.checkpoints import countersign
from quire.transparency.errors import LogError, SplitView
from quire.transparency.log import Log
from quire.transparency.memory import check_goes_on
from quire.transparency.shown import MOST_PATHS, Shown

NAMES = dict(enumerate(SILOS))
TIME = 2000


class Silo:
    """Goes on with what it is shown."""

    def __init__(self, name: str) -> None:
        self.name, self.seen = name, None

    def take(self, content: RecordDict) -> RecordDict:
        """Take what is shown and return the reply; raise where it refuses."""
        record = content[contract.LOG]
        shown = Shown.read(*(record.get(key, []) for key in ("checkpoint", "log-key", "sizes", "paths")))
        now = shown.note.checkpoint
        size = None if self.seen is None else self.seen[0].checkpoint.size
        path = () if size in (None, now.size) else shown.paths.get(size, ())
        check_goes_on(self.seen, shown.note, shown.key, path)
        self.seen = shown.note, shown.key
        return signed(self.name, now)


def signed(name, checkpoint):
    blob = countersign(checkpoint, name, identity(name), TIME).blob
    return RecordDict({contract.LOG: ConfigRecord({contract.COUNTERSIGNATURE: blob})})


def shown(bound: Bound) -> dict[int, RecordDict]:
    content = RecordDict({"x": ConfigRecord()})
    return dict(bound.beside(dict.fromkeys(NAMES, content), NAMES))


@pytest.fixture
def log(tmp_path: Path):
    with opened(tmp_path / "log") as log:
        log.append(entry(1))
        log.checkpoint(1)
        yield log


def grow(log: Log, number: int) -> None:
    log.append(entry(number), entry(number + 1000))
    log.checkpoint(number)


ROUNDS = st.lists(
    st.tuples(st.tuples(*(st.sampled_from(("answers", "lost", "away")) for _ in SILOS)), st.booleans()), max_size=12
)


@given(rounds=ROUNDS)
@settings(max_examples=40, deadline=None)
def test_no_silo_is_ever_without_a_path(rounds, tmp_path_factory):
    """Answers that are lost, silos that are away, and servers that go on with the log of another process."""
    folder = tmp_path_factory.mktemp("run") / "log"
    silos = {index: Silo(name) for index, name in NAMES.items()}
    log = opened(folder)
    log.append(entry(1))
    log.checkpoint(1)
    bound = Bound(log, roster())
    for number, (what, restarted) in enumerate(rounds, start=2):
        if restarted:
            log.close()
            log = opened(folder)
            bound = Bound(log, roster())
        told = shown(bound)
        for index, fate in enumerate(what):
            if fate != "away":
                reply = silos[index].take(told[index])
                if fate == "answers":
                    bound.accept(NAMES[index], reply)
        bound.keep()
        grow(log, number)
    log.close()


def test_silos_that_stand_at_one_place_are_told_the_same(log):
    bound = Bound(log, roster())
    told = shown(bound)
    assert told[0] is told[1] is told[2]
    assert contract.SIZES not in told[0][contract.LOG]
    for index in (0, 1):
        bound.accept(NAMES[index], signed(NAMES[index], log.notes[-1].checkpoint))
    bound.keep()
    grow(log, 2)
    grow(log, 3)
    told = shown(bound)
    assert told[0] is told[1]
    assert told[0][contract.LOG][contract.SIZES] == [2, 4]


def test_a_silo_long_away_is_told_so_many_paths_and_says_where_it_stands(log):
    bound, silo = Bound(log, roster()), Silo(SILOS[0])
    silo.take(shown(bound)[0])
    grow(log, 2)
    silo.take(shown(bound)[0])  # it stands at the second checkpoint, and no answer of it has ever come
    for number in range(3, MOST_PATHS + 10):
        grow(log, number)
    told = shown(bound)[0]
    assert len(told[contract.LOG][contract.SIZES]) == MOST_PATHS
    with pytest.raises(SplitView):
        silo.take(told)
    bound.refused(SILOS[0], RecordDict({contract.LOG: ConfigRecord({contract.SEEN: 4})}))
    bound.accept(SILOS[0], silo.take(shown(bound)[0]))
    bound.keep()
    grow(log, 100)
    assert len(shown(bound)[0][contract.LOG][contract.SIZES]) == 1


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("long") / "log") as log:
        for number in range(1, 2 * MOST_PATHS + 6):
            grow(log, number)
        yield log, list(log.notes)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_paths_are_told_from_the_place_of_a_silo_from_the_latest_and_from_what_it_claims(data, long):
    """The definition, over all checkpoints; what the server does looks at few of them."""
    log, notes = long
    log.notes[:] = notes[: data.draw(st.integers(1, len(notes)))]
    bound, silo = Bound(log, roster()), SILOS[0]
    place = data.draw(st.none() | st.integers(0, len(log.notes) - 1))
    claim = data.draw(st.none() | st.integers(-1, 2 * len(log.notes) + 3))
    bound._at = {} if place is None else {silo: place}
    bound._claims = {} if claim is None else {silo: claim}
    sizes = [note.checkpoint.size for note in log.notes[:-1]]
    since = sizes[place or 0 :]
    wanted = {*since[:1], *since[1:][1 - MOST_PATHS :], *([claim] if claim in sizes else [])}
    assert list(shown(bound)[0][contract.LOG].get(contract.SIZES, [])) == sorted(wanted)


@pytest.mark.parametrize("claim", [3, 999, -1, "2", None])
def test_a_claim_about_no_checkpoint_changes_nothing(claim, log, caplog):
    bound = Bound(log, roster())
    grow(log, 2)
    before = shown(bound)[0]
    record = ConfigRecord({} if claim is None else {contract.SEEN: claim})
    bound.refused(SILOS[0], RecordDict({contract.LOG: record}))
    assert shown(bound)[0] == before
    assert ("put the newest one back" in caplog.text) == isinstance(claim, int)


def test_a_signature_counts_for_the_checkpoint_and_the_silo_that_it_is_of(log):
    bound = Bound(log, roster())
    shown(bound)
    now = log.notes[-1].checkpoint
    wrong = {
        "no_countersignature": [RecordDict(), RecordDict({contract.LOG: ConfigRecord({contract.COUNTERSIGNATURE: 1})})],
        "bad_countersignature": [signed("silo-2", now), signed("mallory", now)],
    }
    grow(log, 2)
    wrong["bad_countersignature"].append(signed("silo-1", now))
    for code, contents in wrong.items():
        for content in contents:
            with pytest.raises(Unusable) as caught:
                bound.accept("silo-1", content)
            assert caught.value.code == code
    bound.keep()
    assert [len(note.marks) for note in log.notes] == [1, 1]


def test_an_attempt_that_is_made_again_signs_once(log):
    bound = Bound(log, roster())
    for name in (("silo-1",), SILOS):
        shown(bound)
        for silo in name:
            bound.accept(silo, signed(silo, log.notes[-1].checkpoint))
        bound.keep()
    assert [mark.name for mark in log.notes[-1].marks[1:]] == [*SILOS]


def test_an_attempt_of_one_group_forgets_no_signature_of_another(log):
    """They go side by side: a group begins anew while another one's answers are still coming in."""
    bound, content = Bound(log, roster()), RecordDict({"x": ConfigRecord()})
    newest, (first, second, *_) = log.notes[-1].checkpoint, NAMES
    bound.beside({first: content}, NAMES)
    bound.accept(NAMES[first], signed(NAMES[first], newest))
    bound.beside({second: content}, NAMES)
    bound.accept(NAMES[second], signed(NAMES[second], newest))
    bound.beside({second: content}, NAMES)  # it comes to nothing, and its member has to sign again
    bound.keep()
    assert [mark.name for mark in log.notes[-1].marks] == [log.origin, NAMES[first]]


def test_countersignatures_that_cannot_be_written_end_the_round_as_a_failed_one(log):
    """Silos have charged for it: as a failed round it comes into journal and card."""
    bound = Bound(log, roster())
    shown(bound)
    bound.accept("silo-1", signed("silo-1", log.notes[-1].checkpoint))

    def full(data):
        raise LogError("The disk is full.")

    log._checkpoints.append = full
    with pytest.raises(RunFailed, match="cannot be written into the log: The disk is full"):
        bound.keep()


def test_without_a_log_nothing_is_shown_and_the_context_has_its_fixed_value():
    bound, content = Bound(None, roster()), RecordDict()
    contents = {0: content}
    assert bound.beside(contents, NAMES) is contents
    assert (bound.name, bound.root, bound.about()) == (None, GENESIS, {})
    bound.accept("silo-1", content)
    bound.refused("silo-1", content)
    bound.keep()


def test_the_context_has_the_hash_of_the_newest_checkpoint(log):
    bound = Bound(log, roster())
    roots = [bound.root]
    grow(log, 2)
    roots.append(bound.root)
    assert [root.hex() for root in roots] == [note.checkpoint.hash for note in log.notes]
    assert bound.about() == {"checkpoint": log.notes[-1].checkpoint.hash}
    assert (bound.name.origin, bound.name.key) == (log.origin, SERVER.public.fingerprint)
