"""From the sums of groups to one mean: what bad groups cannot do, whatever stands in their sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients.secure.agreement import Agreement, agreement_of
from quire.clients.secure.terms import terms_of
from quire.conf.compose import compose
from quire.conf.schema import SecureAggregation
from quire.privacy.csprng import Csprng
from quire.privacy.secagg.groups import needed
from quire.strategies.secure_groups import Outcome, Rule, combined, lacking, outcome_of

NUMBERS = st.floats(-1e6, 1e6, width=32)


def good(group: int, values: list[float], loss: float = 0.0) -> Outcome:
    return Outcome(group, ("a", "b", "c"), {"w": np.array(values)}, {"loss": loss}, 0.5)


def alarm(group: int) -> Outcome:
    return Outcome(group, ("a", "b", "c"), alarmed=True, why="its sum was opened and rejected, because of this")


def lost(group: int) -> Outcome:
    return Outcome(group, why="nobody came")


@given(st.data())
@settings(max_examples=200)
def test_no_coordinate_leaves_what_good_groups_come_to(data: st.DataObject) -> None:
    """However many alarms went off and groups were lost, as long as f silos at most are bad and enough came."""
    byzantine = data.draw(st.integers(1, 4))
    rule = Rule(
        data.draw(st.integers(2 * byzantine + 1, 12)), byzantine, data.draw(st.sampled_from(["median", "trimmed_mean"]))
    )
    bad = data.draw(st.sets(st.integers(0, rule.groups - 1), max_size=byzantine))
    found = data.draw(st.sets(st.sampled_from(sorted(bad)), max_size=len(bad))) if bad else set()
    gone = data.draw(st.sets(st.integers(0, rule.groups - 1), max_size=2)) - found
    honest, outcomes = [], []
    for group in range(rule.groups):
        values = data.draw(st.lists(NUMBERS, min_size=2, max_size=2))
        told = data.draw(NUMBERS)
        if group in found:
            outcomes.append(alarm(group))
        elif group in gone:
            outcomes.append(lost(group))
        else:
            outcomes.append(good(group, values, told))
            honest += [] if group in bad else [(*values, told)]
    there = sum(one.mean is not None for one in outcomes)
    assert bool(lacking(rule, outcomes)) == (there < needed(byzantine, len(found)))
    if lacking(rule, outcomes):
        return
    mean, metrics = combined(rule, outcomes)
    for at, value in enumerate((*mean["w"], metrics["loss"])):
        column = [row[at] for row in honest]
        assert min(column) <= value <= max(column)


def test_median_and_trimmed_mean_are_what_they_are_called() -> None:
    outcomes = [good(group, [float(group), -float(group)]) for group in (0, 1, 2, 3, 10)]
    outcomes[4] = good(4, [1e6, -1e6])
    assert combined(Rule(5, 1, "median"), outcomes)[0]["w"].tolist() == [2.0, -2.0]
    assert combined(Rule(5, 1, "trimmed_mean"), outcomes)[0]["w"].tolist() == [2.0, -2.0]
    four = [*outcomes[:3], good(3, [9.0, 9.0])]
    assert combined(Rule(4, 1, "median"), four)[0]["w"].tolist() == [1.5, -0.5]
    assert combined(Rule(4, 1, "trimmed_mean"), four)[0]["w"].tolist() == [1.5, -0.5]
    # An alarm has found the one bad group out: of the others none has to be cut off.
    assert combined(Rule(4, 1, "trimmed_mean"), [*outcomes[:3], alarm(3)])[0]["w"].tolist() == [1.0, -1.0]


def test_what_is_lacking_is_said_with_the_groups_that_it_is_lacking_of() -> None:
    rule = Rule(3, 1, "median")
    assert lacking(rule, [good(0, [0.0]), good(1, [0.0]), good(2, [0.0])]) == ""
    assert lacking(rule, [good(0, [0.0]), good(1, [0.0]), alarm(2)]) == ""
    said = lacking(rule, [good(0, [0.0]), lost(1), good(2, [0.0])])
    assert said == (
        "2 of 3 groups came to a sum that can be used, and it takes 3 against one bad silo among them (group 2: nobody "
        "came)"
    )
    said = lacking(rule, [alarm(0), alarm(1), good(2, [0.0])])
    assert said.startswith(
        "the sums of 2 groups are none of honest silos, so that more than the 1 of aggregation.byzan"
    )
    said = lacking(Rule(9, 2, "median"), [lost(group) for group in range(9)])
    assert said.endswith("(group 1: nobody came; group 2: nobody came; group 3: nobody came; and 6 more)")


@pytest.fixture(scope="module")
def agreement() -> Agreement:
    chosen = compose(
        "task=digits partition=iid partition.silos=10 aggregation=secure aggregation.groups=3 aggregation.colluders=0 "
        "aggregation.norm_bound=1"
    )
    assert isinstance(chosen.aggregation, SecureAggregation)
    terms = terms_of(chosen, chosen.aggregation, 10, None, 1)
    assert (terms.members, terms.parties, terms.min_survivors, terms.group, terms.chain) == (3, 4, 3, 1, False)
    return agreement_of(terms, {"w": np.zeros(8, np.float32)})


def test_the_sum_of_a_group_is_decoded_or_it_is_said_why_not(agreement: Agreement) -> None:
    update = {"w": np.full(8, 0.25, np.float32)}
    told = {name: 0.0 for name, _ in agreement.point.metrics}
    words = [agreement.encode(update, 100, told, Csprng(bytes([one]) * 32)).words for one in range(3)]
    total = (words[0] + words[1] + words[2]) % np.uint32(2**agreement.point.bits % 2**32 or 0xFFFFFFFF)
    fine = outcome_of(agreement, 1, ["a", "b", "c"], total)
    assert fine.mean is not None
    np.testing.assert_allclose(fine.mean["w"], 0.25, atol=1e-3)
    assert 0.0 < fine.reach <= 1.0
    assert fine.as_dict() == {"group": 2, "silos": ["a", "b", "c"], "reach": fine.reach}

    giant = total.copy()
    giant[:4] = 2 ** (agreement.point.bits - 3)
    bad = outcome_of(agreement, 1, ["a", "b", "c"], giant)
    assert bad.alarmed
    assert bad.mean is None
    assert bad.as_dict()["rejected"] is True
    assert bad.why.startswith("its sum was opened and rejected, because the sum is")

    nothing = outcome_of(agreement, 1, ["a", "b", "c"], np.zeros(agreement.point.length, np.uint32))
    assert (nothing.mean, nothing.alarmed) == (None, False)
    assert nothing.why
