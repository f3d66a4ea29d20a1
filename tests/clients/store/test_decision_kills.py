"""Killed at any moment: what was acknowledged of a decision holds, and nothing is half there."""

from __future__ import annotations

import os
import signal

import pytest
from secure_silos import Killed

from quire.clients.store import Store
from quire.clients.store.decision_book import FILE, SESSION, Request, look
from quire.clients.store.decisions import Decisions
from quire.privacy.approval import Binding
from quire.privacy.identity.keys import PrivateIdentity

SILO = PrivateIdentity.from_seed(b"silo".ljust(32))


def request(number: int) -> Request:
    return Request("clinic-1", Binding(str(number), "c" * 64, "5" * 64, None), "", ())


def work(store: Store, acknowledge) -> None:
    """Ask and decide on two runs; one letter for each that is done."""
    book = Decisions(store, SILO)
    for number, decision in ((1, "approved"), (2, "rejected")):
        book.ask(request(number), lambda: [("learns", "something")])
        acknowledge("a")
        book.decide(request(number).what, decision, "anna", "vote", tell=False)
        acknowledge("d")


def killed(folder, moment: int, witness) -> str:
    """Return what a process has acknowledged that dies at its so manyth fsync."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            Killed(moment).arm()
            with Store.open(folder, SILO, witness=witness) as store:
                work(store, lambda letter: os.write(writing, letter.encode()))
        finally:
            os._exit(0)  # only reached where there are fewer of these
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return said


def decided(book) -> str:
    """Return what is in a book, as :func:`work` acknowledges it."""
    return "".join("a" + "d" * len(matter.decisions) for matter in book.matters.values())


@pytest.mark.parametrize("with_witness", [False, True])
def test_killed_at_every_sync_of_the_disk(tmp_path, with_witness):
    seen = set()
    for moment in range(1, 80):
        folder, witness = tmp_path / f"store-{moment}", tmp_path / f"w-{moment}" if with_witness else None
        Store.open(folder, SILO, witness=witness).close()
        said = killed(folder, moment, witness)
        found = decided(look(folder, witness, SILO.public.fingerprint))
        assert found.startswith(said)
        assert len(found) - len(said) <= 1
        seen.add((len(said), len(found)))
        with Store.open(folder, SILO, witness=witness) as store:  # and it goes on from there
            book = Decisions(store, SILO)
            assert decided(book.book) == found
            last = store.counters.last(SESSION)
            assert (0 if last is None else last.round) == len(found)
            for number in (1, 2):
                book.ask(request(number), list)
                book.decide(request(number).what, "rejected", "ben", "", tell=False)
        if said == "adad":
            break
    assert said == "adad"
    assert {length for length, _ in seen} == {0, 1, 2, 3, 4}
    assert any(there > told for told, there in seen), "no kill ever fell between a line and its acknowledgement"


def test_a_line_of_another_silo_is_none(tmp_path):
    other = PrivateIdentity.from_seed(b"other".ljust(32))
    for name, who in (("one", SILO), ("two", other)):
        with Store.open(tmp_path / name, who) as store:
            book = Decisions(store, who)
            book.ask(request(1), list)
            book.decide(request(1).what, "approved", "anna", "", tell=False)
    (tmp_path / "one" / FILE).write_bytes((tmp_path / "two" / FILE).read_bytes())
    with pytest.raises(Exception, match=r"Line 1 of .* does not carry the signature of"):
        look(tmp_path / "one")
