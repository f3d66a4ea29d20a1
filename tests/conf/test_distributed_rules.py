"""Which settings distributed noise refuses, with the reason, and what it works out from the others."""

import re

import pytest
from shared_runs import RECORD, SILO

from quire.clients.secure.noise import noise_of
from quire.conf.compose import compose
from quire.conf.numbers import records_of
from quire.errors import SettingsError
from quire.privacy.dp.contract import PrivacyError

FILES = "task=tabular aggregation=secure privacy=record_distributed partition.silos=5"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (RECORD.replace("aggregation=secure", ""), "too small to protect an update that is seen on its own"),
        (SILO.replace("aggregation=secure", ""), "take aggregation=secure, which opens sums only, or privacy=silo"),
        (f"{RECORD} strategy=fedprox", "strategy=fedprox, which keeps a silo's own steps near the global model"),
        (f"{RECORD} strategy=fednova", "number of steps in clear"),
        (f"{SILO} strategy=scaffold", "control variate in clear"),
        (f"{RECORD} training.steps=2", "training.steps=2: leave it out, and take more rounds"),
        (f"{RECORD} training.momentum=0.9", "take strategy=fedavgm"),
        (f"{RECORD} training.weight_decay=0.1", "training.weight_decay would do nothing"),
        (f"{RECORD} partition.silos=8 strategy.fraction=0.8", "asking fewer spares no epsilon"),
        (f"{RECORD} privacy.gradients=ghost", "privacy.gradients=ghost passes rows together"),
        (f"{RECORD} privacy.gradients=hooks", "privacy.gradients=hooks passes rows together"),
        (f"{RECORD} strategy.fraction=0.9999999999", "strategy.fraction=0.9999999999 is not 1"),
        (f"{SILO} strategy.fraction=0.99999999999", "strategy.fraction=0.99999999999 is not 1"),
        (f"{RECORD} data.preprocessing=per_silo", "fits constants to private rows"),
        (SILO.replace("privacy.delta=1e-5", ""), "privacy=silo_distributed needs privacy.delta"),
        (RECORD.replace("epsilon=8", "epsilon=45"), "privacy.epsilon=45 is more than 44"),
        (f"{RECORD} privacy.largest=20", "privacy.largest=20 of one of them contradict each other"),
        (f"{RECORD} privacy.records=4", "privacy.records=4 of 5 silos"),
        (FILES, "needs privacy.records and privacy.largest with data=files"),
        (RECORD.replace("sampling_rate=0.2", "sampling_rate=0"), "privacy.sampling_rate must be greater than 0"),
    ],
)
def test_refused_in_one_sentence(overrides, words):
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        compose(overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"])
@pytest.mark.parametrize("overrides", [RECORD, SILO])
def test_combinations_that_make_sense_compose(overrides, strategy):
    assert compose(f"{overrides} strategy={strategy}").strategy.name == strategy


def test_silos_with_rows_of_their_own_are_told_the_counts():
    settings = compose(f"{FILES} privacy.records=1000 privacy.largest=400")
    noise = noise_of(settings)
    assert noise.denominator == pytest.approx(0.05 * 1000)
    assert noise.batch == 20


def test_counts_follow_from_a_shipped_data_set():
    settings = compose(RECORD)
    assert records_of(settings, settings.privacy) == (455, 92)
    lopsided = compose(RECORD.replace("partition=iid", "partition=dirichlet"))
    assert records_of(lopsided, lopsided.privacy) == (455, 455)


@pytest.mark.parametrize("overrides", [RECORD, SILO])
def test_a_longer_roster_than_the_run_has_silos_changes_the_thresholds_and_not_the_denominator(overrides):
    settings = compose(f"{overrides} partition.silos=10")
    run, roster = noise_of(settings), noise_of(settings, 12)
    assert (run.members, run.parties, roster.members, roster.parties) == (10, 10, 12, 10)
    assert roster.denominator == pytest.approx(run.denominator, rel=0.01)
    assert roster.min_survivors > run.min_survivors - 1


def test_a_roster_that_leaves_no_share_unknown_is_refused():
    settings = compose(RECORD)
    with pytest.raises(PrivacyError, match="A roster has 2 to"):
        noise_of(settings, 1)


def test_the_thresholds_of_the_specification():
    """Ten silos: c and U_min by default, and as the figures without colluders have them."""
    ten = compose(f"{RECORD} partition.silos=10")
    noise = noise_of(ten)
    assert (noise.colluders, noise.min_survivors, noise.shares) == (3, 7, 3)
    none = noise_of(compose(f"{RECORD} partition.silos=10 aggregation.colluders=0 strategy.min_silos=9"))
    assert (none.colluders, none.min_survivors, none.shares) == (0, 9, 8)
    assert none.noise_multiplier == noise.noise_multiplier
