"""What a silo's rows do to its training shows in no reply: where it fails, the silo masks nothing, at no weight."""

import numpy as np
import pytest
from secure_runs import ONE, PRIVATE, ROWS, SECURE_ONE, apart, bound_of, model_of, rounds_of
from shared_runs import UNITS

import quire
from quire.clients import contract, work
from quire.clients.arrays import decode, encode
from quire.clients.local import Trained
from quire.clients.secure import handlers
from quire.errors import RunFailed
from quire.simulation.grid import InlineGrid
from quire.simulation.verify import verify_run


def infinite(trained):
    return Trained({name: part + np.inf for name, part in trained.update.items()}, trained.rows, trained.loss)


def no_loss(trained):
    return Trained(trained.update, trained.rows, float("nan"))


def raises(trained):
    raise ValueError("row 17 of the patient Ada Lovelace")


def leaves(trained):
    raise SystemExit("row 17")


FAULTS = {"infinite": infinite, "no loss": no_loss, "raises": raises, "leaves": leaves}


@pytest.fixture
def failing(monkeypatch):
    """Let the training of a silo fail."""
    train, privately = work.train_update, work.train_privately

    def arm(fault, *silos):
        def failed(settings, where, silo, *args):
            trained = train(settings, where, silo, *args)
            return fault(trained) if silo in silos else trained

        def failed_privately(settings, where, silo, *args):
            update, shown = privately(settings, where, silo, *args)
            return (fault(Trained(update, 1, 0.0)).update, shown) if silo in silos else (update, shown)

        monkeypatch.setattr(work, "train_update", failed)
        monkeypatch.setattr(work, "train_privately", failed_privately)

    return arm


def forms(replies):
    """What can be seen of the replies to the message that trains: kinds, names, lengths."""
    found = []
    for reply in replies[contract.SHARES]:
        assert not reply.has_error()
        (message,) = decode(reply.content[contract.PROTOCOL]).values()
        found.append((sorted(reply.content[contract.IDENTITY]), message.size))
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_training_that_fails_looks_like_any_other_and_counts_for_nothing(fault, failing, replies, tmp_path, caplog):
    quire.run(f"{ONE} runtime.faults=[drop:train:1:hospital-2]", tmp_path / "plain")
    failing(FAULTS[fault], "hospital-2")
    quire.run(SECURE_ONE, tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert line["failed"] == []
    assert len(line["replied"]) == 5
    assert len(forms(replies)) == 5
    assert len({str(form) for form in forms(replies)}) == 1
    distance = apart(model_of(tmp_path / "plain"), model_of(tmp_path / "run"))
    assert distance <= bound_of(SECURE_ONE) * ROWS / 364 + 1e-6
    assert line["train"]["loss"] == pytest.approx(rounds_of(tmp_path / "plain")[0]["train"]["loss"], abs=1e-6)
    assert "this silo sends a vector that counts for nothing in the sum" in caplog.text
    everything = "".join(
        path.read_text(errors="ignore") for path in (tmp_path / "run").rglob("*.json*") if path.is_file()
    )
    assert "not_finite" not in everything
    assert "training_failed" not in everything
    assert "Lovelace" not in everything


def test_a_model_that_makes_one_silos_loss_overflow_tells_nothing_of_its_rows(replies, monkeypatch, tmp_path):
    """A threshold on somebody's largest value: the reply's code said on which side of it a silo is."""
    messages = InlineGrid.push_messages

    def crafted(self, found):
        found = list(found)
        for message in found:
            if message.metadata.message_type == contract.SHARES:
                model = decode(message.content[contract.ARRAYS])
                weight = next(name for name in model if model[name].ndim == 2)
                model[weight] = np.full_like(model[weight], 3e38)
                message.content[contract.ARRAYS] = encode(model)
        return messages(self, found)

    monkeypatch.setattr(InlineGrid, "push_messages", crafted)
    with pytest.raises(RunFailed):  # every member saw another model than the server says
        quire.run(f"{SECURE_ONE} aggregation.attempts=1", tmp_path / "run")
    assert len({str(form) for form in forms(replies)}) == 1


def test_under_privacy_it_is_charged_and_receipted_like_any_other(failing, replies, tmp_path):
    failing(infinite, "hospital-2")
    quire.run(f"{SECURE_ONE} {PRIVATE}", tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert line["failed"] == []
    assert len(line["replied"]) == len(line["receipts"]) == 5
    assert len({str(form) for form in forms(replies)}) == 1


@pytest.mark.parametrize("unit", UNITS)
def test_under_distributed_noise_a_silo_that_fails_adds_its_share_of_the_noise_all_the_same(
    unit, monkeypatch, replies, tmp_path
):
    """Without it the sum would have less noise than is accounted for, and the probes would tell who failed."""
    summed, released = work.sum_privately, []

    def failed(settings, where, silo, *args):
        if silo == "hospital-2":
            raise FloatingPointError("row 17")
        return summed(settings, where, silo, *args)

    monkeypatch.setattr(work, "sum_privately", failed)
    shared, plain = handlers.add_share, []

    def watched(encoding, words, source):
        share = shared(encoding, words, source)
        plain.append(int(words.sum()))
        released.append(int((share != words).sum()))
        return share

    monkeypatch.setattr(handlers, "add_share", watched)
    quire.run(f"{UNITS[unit]} strategy.rounds=1", tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert line["failed"] == []
    assert len(line["replied"]) == len(line["receipts"]) == len(plain) == 5
    assert len({str(form) for form in forms(replies)}) == 1
    assert plain.count(0) == 1
    assert min(released) > 0.9 * max(released)
    assert verify_run(tmp_path / "run").wrong == []


def test_rows_that_cannot_be_loaded_are_still_a_code(monkeypatch, tmp_path):
    from quire.clients import client_app

    load = client_app.load

    def missing(settings, where, name):
        if name == "hospital-2":
            raise OSError("no such file")
        return load(settings, where, name)

    monkeypatch.setattr(client_app, "load", missing)
    quire.run(SECURE_ONE, tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert ("hospital-2", "shares", "data_unavailable") in {
        (one["silo"], one["stage"], one["code"]) for one in line["failed"]
    }


def test_a_model_of_another_form_is_still_a_code(monkeypatch, tmp_path):
    """It says nothing of the rows, and to all of them alike."""
    from quire.clients.training import WrongModel

    def wrong(*args):
        raise WrongModel("the arrays have other names than the model's parameters")

    monkeypatch.setattr(work, "train_update", wrong)
    with pytest.raises(RunFailed, match="its training raised an error"):
        quire.run(f"{SECURE_ONE} aggregation.attempts=1", tmp_path / "run")


def test_a_run_in_which_nobody_can_train_ends(failing, tmp_path):
    failing(raises, *(f"hospital-{place}" for place in range(1, 6)))
    with pytest.raises(RunFailed, match="Round 1 failed"):
        quire.run(SECURE_ONE, tmp_path / "run")


@pytest.mark.parametrize("stage", [contract.CONFIRM, contract.UNMASK])
def test_replies_that_are_lost_are_sent_once_more(stage, monkeypatch, tmp_path):
    """Two of five: without them the sum does not open. A server that asks again gets the same bytes."""
    model = quire.run(SECURE_ONE, tmp_path / "whole").model
    from quire.simulation import grid

    deliver, given = InlineGrid._deliver, {}

    def deaf(self, message):
        reply, about = deliver(self, message), message.metadata
        if about.message_type != stage or about.dst_node_id not in (1001, 1003):
            return reply
        (data,) = decode(reply.content[contract.PROTOCOL]).values()
        given.setdefault(about.dst_node_id, []).append(data.tobytes())
        return reply if len(given[about.dst_node_id]) > 1 else grid._runtime_error(message, grid._NODE_GONE)

    monkeypatch.setattr(InlineGrid, "_deliver", deaf)
    assert quire.run(SECURE_ONE, tmp_path / "run").model == model
    (line,) = rounds_of(tmp_path / "run")
    assert len(line["replied"]) == 5
    assert [len(found) for found in given.values()] == [2, 2]
    if stage == contract.UNMASK:
        assert [attempt["error"] for attempt in line["secure"]["attempts"]] == [None]
        assert all(first == second for first, second in given.values())


def test_rows_and_a_loss_that_are_cut_are_logged_at_the_silo(failing, tmp_path, caplog):
    failing(lambda trained: Trained(trained.update, trained.rows, 25_000.0), "hospital-2")
    quire.run(f"{SECURE_ONE} aggregation.max_rows=20", tmp_path / "run")
    assert "91 rows count as 20 in round 1, by aggregation.max_rows" in caplog.text
    assert "The training loss of round 1 is 25000, and is averaged as 1000" in caplog.text
