"""Which settings secure aggregation refuses, with the reason, and what it works out from the others."""

import re

import pytest
from secure_runs import SECURE

from quire.clients.secure.terms import terms_of
from quire.conf.asked import is_chained
from quire.conf.compose import compose
from quire.conf.numbers import colluders_of
from quire.conf.schema import SecureAggregation
from quire.errors import SettingsError
from quire.privacy.secagg.params import default_colluders


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("privacy=silo privacy.delta=1e-5", "privacy=silo has a server that is trusted"),
        ("strategy=scaffold", "strategy=scaffold also averages control variates"),
        ("data.preprocessing=federated", "sends the moments of each silo's features in clear"),
        ("aggregation.colluders=4", "leaves fewer than two honest silos of 5"),
        ("partition.silos=3 aggregation.colluders=2", "leaves fewer than two honest silos of 3"),
        ("partition.silos=8 strategy.fraction=0.5", "opens no sum of fewer than 6 of 8 silos with"),
        ("aggregation.resolution=1e-9", "aggregation.resolution=1e-09 cannot be kept for 5 silos"),
        ("aggregation.bits=8", "aggregation.bits must be one of 16, 24, 32"),
        (
            "aggregation.norm_bound=1 privacy=silo_distributed privacy.epsilon=8 privacy.delta=1e-5",
            "privacy=silo_distributed clips what silos add to privacy.clip",
        ),
        ("aggregation.norm_bound=1 strategy=fednova", "strategy=fednova multiplies the mean of the updates"),
        ("aggregation.norm_bound=0", "aggregation.norm_bound must be greater than 0"),
        ("partition.silos=1 strategy.min_silos=1", "leaves fewer than two honest silos of 1"),
    ],
)
def test_what_cannot_be_summed_is_refused_with_the_reason(more, words):
    with pytest.raises(SettingsError, match=re.escape(words)):
        compose(f"{SECURE} {more}")


def test_silos_with_rows_of_their_own_need_a_limit_for_them():
    with pytest.raises(SettingsError, match=r"needs aggregation\.max_rows with data=files"):
        compose("task=tabular aggregation=secure")
    compose("task=tabular aggregation=secure aggregation.max_rows=1000")


@pytest.mark.parametrize("silos", [*range(2, 14), 100])
def test_colluders_are_by_default_those_of_the_protocol(silos):
    settings = compose(f"task=breast_cancer partition=iid partition.silos={silos} aggregation=secure")
    assert isinstance(settings.aggregation, SecureAggregation)
    assert colluders_of(settings.aggregation, silos) == default_colluders(silos)


def test_the_width_follows_from_the_resolution():
    widths = []
    for resolution in ("1e-2", "1e-4", "1e-7"):
        settings = compose(f"{SECURE} aggregation.resolution={resolution}")
        widths.append(terms_of(settings, settings.aggregation, 5).bits)
    assert widths == [16, 24, 32]


@pytest.mark.parametrize(
    ("more", "chained"),
    [
        ("strategy.fraction=1", True),
        ("strategy.fraction=0.9999999999", True),
        ("strategy.fraction=0.99999999999 strategy.min_silos=5", True),
        ("partition.silos=10 strategy.fraction=0.95", False),
        ("partition.silos=10 strategy.fraction=0.8", False),
    ],
)
def test_there_is_a_chain_where_all_silos_are_asked_whatever_the_fraction_says(more, chained):
    """A server that wants its silos to train from what it sends has to leave some of them out, for all to see."""
    settings = compose(f"{SECURE} {more}")
    assert chained == (settings.silos_asked == settings.partition.silos)
    assert terms_of(settings, settings.aggregation, settings.partition.silos).chain == chained
    assert is_chained(settings.as_dict()) == chained


@pytest.mark.parametrize("group", ["strategy", "partition", "aggregation"])
@pytest.mark.parametrize("found", [None, [], {}, {"fraction": float("nan"), "silos": -1, "min_silos": "2"}])
def test_settings_that_are_damaged_make_no_chain(group, found):
    assert not is_chained({**compose(SECURE).as_dict(), group: found})
