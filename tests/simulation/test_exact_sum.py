"""The short cut of a simulation: the model of the whole protocol, bit for bit, and none of its cryptography."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secure_runs import BASE, ONE, PRIVATE, STAGES

import quire
from quire.clients import contract
from quire.clients.arrays import decode
from quire.conf.compose import compose
from quire.errors import RunFailed, SettingsError
from quire.privacy.secagg import client, client_round, exact_sum, masks, pairs, shamir
from quire.privacy.secagg.messages import Masked, Shares
from quire.simulation.grid import _LATE, InlineGrid, _runtime_error
from quire.strategies import server_app
from quire.strategies.server_app import LOG_KEY_VARIABLE

EXACT = "aggregation.simulate=exact_sum"
THREE = f"{BASE} aggregation=secure strategy.rounds=3"
SHARED = "privacy=record_distributed privacy.epsilon=8 privacy.sampling_rate=0.2"
BY_SILO = "privacy=silo_distributed privacy.epsilon=40 privacy.delta=1e-3"
MODES = {
    "plain": "",
    "rotated": "aggregation.bits=16 aggregation.rotation=true",
    "fednova": "strategy=fednova",
    "fedadam": "strategy=fedadam aggregation.rekey_every=2",
    "record": PRIVATE,
    "record_distributed": f"{SHARED} aggregation.rotation=true",
    "silo_distributed": BY_SILO,
}
#: Six silos, of which four have to be there: dropouts at each stage, a round that is tried again, one that is lost.
FAULTS = [
    *("drop:open:1:hospital-1", "error:mask:1:hospital-2", "drop:shares:2:hospital-3", "drop:confirm:2:hospital-4"),
    *("drop:unmask:3:hospital-2", "drop:unmask:3:hospital-5"),
]
DROPOUTS = f"partition.silos=6 aggregation.colluders=0 runtime.faults=[{','.join(FAULTS)}]"


def outcome(overrides, folder):
    """All that a run came to, less what is of the cryptography: keys, sizes, times."""
    error = None
    try:
        quire.run(overrides, folder)
    except RunFailed as failed:
        error = str(failed).partition(":")[0]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rounds = [
        {key: line.get(key) for key in ("round", "cohort", "replied", "train", "evaluate", "model", "released")}
        | {"failed": [(one["silo"], one["stage"], one["code"]) for one in line["failed"]], "lost": "lost" in line}
        | {"attempts": [{key: one[key] for key in ("cohort", "u2", "u3", "error")} for one in tries(line)]}
        for line in lines
        if line["event"] in ("round", "failed")
    ]
    return error, json.loads((folder / "run.json").read_text())["model"], rounds


def tries(line):
    return line["secure"]["attempts"]


def both(overrides, folder):
    return [outcome(f"{overrides} {how}", folder / str(at)) for at, how in enumerate(("", EXACT))]


@pytest.mark.parametrize("mode", ["rotated", "record_distributed"])
def test_it_comes_to_the_model_of_the_protocol_bit_for_bit(mode, tmp_path):
    protocol, short = both(f"{THREE} {MODES[mode]}", tmp_path)
    assert short == protocol
    assert len({line["model"] for line in short[2]}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_and_so_it_does_with_dropouts(mode, tmp_path):
    protocol, short = both(f"{THREE} {MODES[mode]} {DROPOUTS}", tmp_path)
    assert short == protocol
    error, _, rounds = short
    assert (error, [line["lost"] for line in rounds]) == (None, [False, False, True])
    assert [[one["error"] for one in line["attempts"]] for line in rounds] == [
        [None],
        ["NoQuorum", None],
        ["UnrecoverableShare"],
    ]


@pytest.mark.parametrize("stage", STAGES)
def test_a_round_that_is_tried_again_comes_to_the_same(stage, monkeypatch, tmp_path):
    deliver, found = InlineGrid._deliver, []
    for at, how in enumerate(("", EXACT)):
        missing = {(stage, 1001), (stage, 1003)}

        def once(self, message, missing=missing):
            place = (message.metadata.message_type.split(".")[-1], message.metadata.dst_node_id)
            if place in missing:
                missing.discard(place)
                return _runtime_error(message, _LATE)
            return deliver(self, message)

        monkeypatch.setattr(InlineGrid, "_deliver", once)
        found.append(outcome(f"{ONE} aggregation=secure {BY_SILO} {how}", tmp_path / str(at)))
        assert not missing
    assert found[0] == found[1]
    assert len(found[0][2][0]["attempts"]) == (1 if stage == "unmask" else 2)


KINDS, SILOS = st.sampled_from(["drop", "error"]), st.integers(1, 5)
FAULT = st.tuples(KINDS, st.sampled_from([*STAGES, "query", "evaluate"]), st.integers(1, 2), SILOS)


@settings(max_examples=6, deadline=None)
@given(st.lists(FAULT, max_size=5, unique_by=lambda one: one[1:]), st.sampled_from(["", SHARED]), st.integers(0, 99))
def test_whatever_fails_the_same_silos_are_in_the_same_sums(tmp_path_factory, faults, mode, seed):
    listed = ",".join(f"{kind}:{stage}:{number}:hospital-{silo}" for kind, stage, number, silo in faults)
    settings_ = f"{BASE} aggregation=secure strategy.rounds=2 aggregation.attempts=2 {mode} seed={seed}"
    protocol, short = both(f"{settings_} runtime.faults=[{listed}]", tmp_path_factory.mktemp("runs"))
    assert short == protocol


def test_there_is_no_key_no_mask_no_share_and_no_signature(monkeypatch, replies, tmp_path):
    def never(*args, **more):
        raise AssertionError("cryptography of the protocol")

    for module, name in (
        *(
            (pairs, name)
            for name in ("public_key", "seal", "unseal", "root", "ratchet", "attempt_seeds", "seal_shares")
        ),
        *((shamir, name) for name in ("share", "combine", "lagrange")),
        *((masks, "add_masks"), (client.Party, "sign"), (client_round, "verify_ed25519")),
    ):
        monkeypatch.setattr(module, name, never)
    quire.run(f"{ONE} aggregation=secure {EXACT}", tmp_path / "run")
    vectors = [exact_sum.Clear.decode(data_of(reply)).vector for reply in replies[contract.MASK]]
    assert len(vectors) == len(set(vectors)) == 5
    for stage, kind in ((contract.MASK, Masked), (contract.SHARES, Shares)):
        for reply in replies[stage]:
            with pytest.raises(ValueError, match="no message"):
                kind.decode(data_of(reply))


def data_of(reply):
    (message,) = decode(reply.content[contract.PROTOCOL]).values()
    return message.astype(np.uint8).tobytes()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("output.transcripts=true", "no messages of the protocol to keep: leave out output.transcripts"),
        (f"charter={'a' * 64}", "no run that members of a charter have agreed to"),
        (
            "privacy=record_distributed privacy.selftest=3 strategy.fraction_evaluate=0",
            "to show that the noise is right under the masks",
        ),
    ],
)
def test_what_would_speak_for_the_protocol_is_refused_beside_it(more, words):
    with pytest.raises(SettingsError, match=f"exact_sum sums in clear.*{words}") as caught:
        compose(f"{BASE} aggregation=secure {EXACT} {more}")
    assert "\n" not in str(caught.value)


def test_it_is_a_setting_of_secure_aggregation_alone_and_off_unless_asked_for():
    assert compose(f"{BASE} aggregation=secure").aggregation.simulate == "protocol"
    with pytest.raises(SettingsError, match=r"no setting 'aggregation.simulate' with aggregation=plain"):
        compose(f"{BASE} {EXACT}")
    with pytest.raises(SettingsError, match=r"simulate.*protocol.*exact_sum"):
        compose(f"{BASE} aggregation=secure aggregation.simulate=clear")


def test_a_server_whose_silos_are_real_does_not_begin(monkeypatch, tmp_path):
    monkeypatch.setattr(server_app, "_runtime", lambda grid: "deployment")
    with pytest.raises(RunFailed, match="these silos are real ones, which refuse it: leave it out"):
        quire.run(f"{ONE} aggregation=secure {EXACT}", tmp_path / "run")
    lines = [json.loads(line)["event"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines == ["end"]  # nobody was asked anything


def test_a_transparency_log_is_not_kept_of_it(monkeypatch, tmp_path):
    from quire.clients.identity import new_identity

    new_identity(tmp_path / "log.key")
    monkeypatch.setenv(LOG_KEY_VARIABLE, str(tmp_path / "log.key"))
    with pytest.raises(RunFailed, match=r"binds what silos sign, and with .*exact_sum.*, they sign nothing"):
        quire.run(f"{ONE} aggregation=secure {EXACT}", tmp_path / "run")
