"""What an attack, and suspicion, cannot go with: each is refused in a sentence, by whoever is asked."""

from __future__ import annotations

import pytest

from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.member import member_of
from quire.conf.attack_schema import ATTACKS
from quire.conf.compose import compose
from quire.errors import RunFailed, SettingsError
from quire.strategies.attacked import about_run, check_attack, note_attack

DIGITS = "task=digits partition.silos=10"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("attack=alie runtime=flower", "by the in-process simulation alone, not by runtime=flower"),
        ("attack=alie aggregation=secure", "take privacy=none, and aggregation=plain or a robust rule"),
        ("attack=giant privacy=record", "replaces updates that are sent in clear"),
        ("attack=giant strategy=scaffold", "strategy=scaffold has silos send more than them"),
        ("attack=giant strategy=fednova", "strategy=fednova has silos send more than them"),
        ("attack=giant strategy=qfedavg", "strategy=qfedavg has silos send more than them"),
        ("attack=giant task.model=mlp training.local_layers=[head]", "local_layers=head leaves no one model to ask"),
        ("attack=giant compression=top_k", "replaces whole updates"),
        ("attack=giant attack.fraction=0.05", "is not one silo"),
        ("attack=giant attack.fraction=1", "attack.fraction must be"),
        ("attack=giant attack.fraction=0", "attack.fraction must be"),
        ("attack=giant attack.start=41", "after the last of strategy.rounds=40"),
        ("attack=giant attack.value=1e39", "attack.value must be"),
        ("attack=alie attack.knows=everything", "must be one of all, own"),
        ("attack=min_max attack.direction=up", "must be one of std, unit, sign"),
        ("attack=backdoor attack.target=10", "counted from 0 to 9"),
        ("attack=backdoor attack.features=64", "which has 64 features"),
        ("attack=backdoor data.preprocessing=federated", "take public or per_silo"),
        ("attack=fire", "does not exist"),
        ("attack=none attack.fraction=0.3", "attack"),
        ("suspicion=watch aggregation=secure", "lets nobody see one"),
        ("suspicion=quarantine privacy=record", "hides in noise what it looks for"),
        ("suspicion=watch strategy=scaffold", "has silos send more than them"),
        ("suspicion=quarantine strategy=qfedavg", "has silos send more than them"),
        ("suspicion=watch compression=top_k", "with compression=top_k each silo sends others"),
        ("suspicion=watch strategy.fraction=0.4", "needs 5 silos a round"),
        ("suspicion=watch suspicion.vote=true", "no setting"),
        ("suspicion=quarantine suspicion.vote=true", "set data.validation_fraction"),
        ("suspicion=quarantine suspicion.rounds=0", "suspicion.rounds must be"),
        ("suspicion=quarantine suspicion.false_alarms=0", "suspicion.false_alarms must be"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(text, words):
    with pytest.raises(SettingsError, match=words) as refused:
        compose(f"{DIGITS} {text}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["label_flip", "backdoor"])
def test_rows_of_other_kinds_are_not_poisoned(name):
    for task in ("task=diabetes partition=iid", "task=tabular data=files partition=natural"):
        with pytest.raises(SettingsError, match="relabels the rows of simulated silos that tell classes apart"):
            compose(f"{task} partition.silos=5 attack={name}")


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"none"}))
def test_a_real_silo_answers_no_request_of_an_attacked_run(name, tmp_path):
    """Before anything of its own is read: the file is not even there."""
    with pytest.raises(Refusal) as refused:
        member_of(compose(f"{DIGITS} attack={name}"), {"silo": str(tmp_path / "none.yaml")}, simulated=False)
    assert refused.value.code == Code.SETTINGS_REFUSED
    assert f"attack={name}: only simulations attack" in str(refused.value)


class _Folder:
    def __init__(self):
        self.held = {}

    def hold_to(self, what, value):
        self.held[what] = value


class _Attacks:
    def __init__(self, name):
        self.name = name

    def about(self):
        return {"name": self.name, "colluders": ["site-1"]}


def test_a_server_that_nobody_carries_the_attack_out_for_does_not_begin():
    settings, folder = compose(f"{DIGITS} attack=giant"), _Folder()
    for grid in (object(), _Attacks("alie")):
        with pytest.raises(RunFailed, match="real silos refuse it: leave it out here"):
            check_attack(settings, grid, simulated=True)
    note_attack(object(), folder)
    assert not folder.held
    check_attack(settings, _Attacks("giant"), simulated=True)
    note_attack(_Attacks("giant"), folder)
    assert folder.held == {"attack": {"name": "giant", "colluders": ["site-1"]}}


def test_only_an_attacked_run_says_that_it_was():
    assert "attacked" not in about_run(compose(DIGITS))
    assert "attacked on purpose" in about_run(compose(f"{DIGITS} attack=alie"))["attacked"]["words"]


def test_real_silos_are_not_asked_to_vote():
    settings = compose(f"{DIGITS} suspicion=quarantine suspicion.vote=true data.validation_fraction=0.2")
    check_attack(settings, object(), simulated=True)
    with pytest.raises(RunFailed, match="for simulations"):
        check_attack(settings, object(), simulated=False)


def test_a_consortium_is_not_asked_to_attack_itself(tmp_path):
    from quire.consortium.submit import submit

    with pytest.raises(SettingsError, match="every silo of a consortium refuses it"):
        submit(tmp_path, compose(f"{DIGITS} attack=giant"))


def test_a_server_without_colluders_refuses_the_attack_and_leaves_no_folder(tmp_path):
    from flwr.app import Context, RecordDict

    from quire.strategies.server_app import RUN_DIR_KEY, app

    context = Context(1, 1, {RUN_DIR_KEY: str(tmp_path / "run")}, RecordDict(), {"overrides": f"{DIGITS} attack=giant"})
    with pytest.raises(RunFailed, match="which alone carries attacks out"):
        app(type("InlineGrid", (), {})(), context)
    assert not (tmp_path / "run").exists()
