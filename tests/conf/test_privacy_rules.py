"""What would void epsilon is refused when settings are composed, with the reason."""

import pytest

from quire.conf.compose import compose
from quire.errors import SettingsError


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("privacy=record privacy.epsilon=0", "privacy.epsilon must be greater than 0"),
        ("privacy=record privacy.epsilon=-1", "privacy.epsilon must be greater than 0"),
        ("privacy=record privacy.epsilon=nan", "privacy.epsilon must be a finite number"),
        ("privacy=record privacy.delta=0", "privacy.delta must be greater than 0"),
        ("privacy=record privacy.delta=1", "privacy.delta must be greater than 0 and less than 1"),
        ("privacy=record privacy.clip=0", "privacy.clip must be at least 1e-06"),
        ("privacy=record privacy.clip=inf", "privacy.clip must be a finite number"),
        ("privacy=record training.batch_size=200", "larger than the mean silo"),
        ("privacy=record data.preprocessing=per_silo", "fits constants to private rows"),
        ("privacy=silo privacy.delta=1e-5 data.preprocessing=federated", "fits constants to private rows"),
        ("privacy=record strategy=fednova", "number of steps in clear"),
        ("privacy=record strategy=scaffold", "control variate in clear"),
        ("privacy=silo", "privacy=silo needs privacy.delta"),
        ("privacy=silo privacy.delta=1e-5 privacy.clipping=adaptive", "says nothing about 5 silos"),
        ("privacy=silo privacy.delta=1e-5 privacy.weights=rows", "privacy.weights must be one of uniform, capped"),
    ],
)
def test_refused_in_one_sentence(overrides, words):
    with pytest.raises(SettingsError, match=words) as caught:
        compose(overrides)
    assert "\n" not in str(caught.value)


def test_a_sensitivity_cannot_be_typed():
    for word in ("sensitivity", "noise_multiplier", "sigma"):
        with pytest.raises(SettingsError, match="There is no setting"):
            compose(f"privacy=record privacy.{word}=1")


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi"])
@pytest.mark.parametrize("privacy", ["record", "silo privacy.delta=1e-5", "record privacy.epsilon=inf"])
def test_combinations_that_make_sense_compose(strategy, privacy):
    assert compose(f"strategy={strategy} privacy={privacy}").privacy.name == privacy.split()[0]
