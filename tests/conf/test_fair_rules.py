"""What q-FedAvg, layers that stay local and tuning cannot serve is refused when settings are composed."""

import pytest

from quire.conf.compose import compose
from quire.errors import SettingsError

MLP = "task=digits task.model=mlp training.local_layers=[head]"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("strategy=qfedavg aggregation=secure", "divisors without a public bound"),
        ("strategy=qfedavg aggregation=median", "all count alike"),
        ("strategy=qfedavg privacy=record", "a power of the silo's own loss"),
        ("strategy=qfedavg privacy=silo privacy.delta=1e-5", "a power of the silo's own loss"),
        ("strategy=qfedavg compression=eight_bit", "sends more than an update"),
        ("strategy=qfedavg strategy.q=-1", "strategy.q must be at least 0"),
        ("strategy=qfedavg strategy.q=11", "strategy.q must be"),
        ("strategy=qfedavg strategy.q=nan", "strategy.q must be a finite number"),
        ("strategy=qfedavg strategy.lipschitz=0", "strategy.lipschitz must be greater than 0"),
        ("strategy.q=1", "strategy.q"),
        ("training.local_layers=[head]", "which is one layer"),
        ("task=digits task.model=mlp training.local_layers=[norm]", "no normalisation layer"),
        ("task=digits task.model=mlp training.local_layers=[head,head]", "names a layer twice"),
        (f"{MLP} privacy=record", "every record's later gradients pass through them"),
        (f"{MLP} privacy=silo privacy.delta=1e-5", "no noise is added to"),
        (f"{MLP} strategy=scaffold", "both have silos remember"),
        (f"{MLP} runtime=flower", "runtime=flower cannot be asked for it"),
        ("training.tuning_epochs=2 strategy.fraction_evaluate=0", "has nobody score"),
        ("training.tuning_lr=0.1", "is for tuning"),
        ("training.tuning_epochs=1 training.tuning_lr=0", "training.tuning_lr must be greater than 0"),
        ("training.tuning_epochs=-1", "training.tuning_epochs must be at least 0"),
    ],
)
def test_refused_in_one_sentence(overrides, words):
    with pytest.raises(SettingsError) as caught:
        compose(overrides)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        "strategy=qfedavg strategy.q=0.5 strategy.lipschitz=3 training.tuning_epochs=1",
        f"{MLP} aggregation=secure",
        f"{MLP} strategy=qfedavg runtime=batched",
        "privacy=record training.tuning_epochs=1",
    ],
)
def test_what_makes_sense_composes(overrides):
    assert compose(overrides).overrides
