"""Groups under secure aggregation: what protects less than its name says is refused, with the reason."""

import re

import pytest

from quire.conf import asked
from quire.conf.asked import byzantine_in, groups_in, is_chained
from quire.conf.compose import compose
from quire.conf.numbers import parties_of
from quire.errors import SettingsError
from quire.privacy.secagg.groups import LEAST_IN_GROUP, needed

RUN = "task=digits partition=iid aggregation=secure"
NINE = f"{RUN} partition.silos=9"
THREE = f"{NINE} aggregation.groups=3"
GROUPED = f"{THREE} aggregation.colluders=0"
SOME = f"{RUN} aggregation.colluders=0"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"{NINE} aggregation.byzantine=1",
            "aggregation.byzantine is about groups, and aggregation=secure opens",
        ),
        (f"{NINE} aggregation.combine=trimmed_mean", "aggregation.combine is about groups, and aggregation=secure"),
        (f"{NINE} aggregation.groups=3", "set aggregation.colluders, where 0 has every silo trust all others of its"),
        (f"{NINE} aggregation.groups=2 aggregation.colluders=0", "aggregation.groups must be at least 3"),
        (
            f"{GROUPED} aggregation.byzantine=2",
            "is too few for aggregation.byzantine=2: each bad silo may",
        ),
        (f"{GROUPED} aggregation.byzantine=0", "aggregation.byzantine must be at least 1"),
        (f"{GROUPED} aggregation.combine=mean", "aggregation.combine must be one of median, trimmed_mean"),
        (f"{THREE} aggregation.colluders=2", "takes 4 with aggregation.colluders=2 in each"),
        (
            f"{SOME} aggregation.groups=3 partition.silos=8",
            "leaves 2 of 8 silos in the smallest group, and it takes 3 for a sum to hide",
        ),
        (f"{GROUPED} strategy.min_silos=4", "takes 4 with strategy.min_silos=4, which is counted in each"),
        (f"{GROUPED} strategy.fraction=0.9", "strategy.fraction=0.9 asks 8 of 9: set strategy.fraction=1"),
        (f"{GROUPED} strategy=fednova", "strategy=fednova multiplies updates by the number of steps that silos state"),
        (f"{GROUPED} strategy=scaffold", "strategy=scaffold also averages control variates"),
        (f"{GROUPED} privacy=record", "under privacy=record each would have to carry the noise that one sum"),
        (
            f"{GROUPED} privacy=silo_distributed privacy.epsilon=8 privacy.delta=1e-5",
            "under privacy=silo_distributed each would have to carry the noise that one sum",
        ),
        (f"{GROUPED} attack=sign_flip", "attack=sign_flip replaces updates that are sent in clear"),
        ("task=digits aggregation=median aggregation.groups=3", "There is no setting 'aggregation.groups'"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        compose(text)


def test_what_can_be_had_composes_and_says_what_it_is() -> None:
    tree = compose(f"{SOME} partition.silos=21 aggregation.groups=7 strategy=fedadam").as_dict()
    assert (groups_in(tree), byzantine_in(tree), is_chained(tree)) == (7, 3, False)
    compose(f"{THREE} aggregation.colluders=1")  # two honest silos are left of three, and none may drop out
    stated = compose(f"{SOME} partition.silos=21 aggregation.groups=7 aggregation.byzantine=1").as_dict()
    assert byzantine_in(stated) == 1
    alone = compose(NINE).as_dict()
    assert (groups_in(alone), byzantine_in(alone), is_chained(alone)) == (0, 0, True)
    assert groups_in({"aggregation": "damaged"}) == groups_in({"aggregation": {"groups": True}}) == 0


def test_settings_and_protocol_have_one_idea_of_a_group() -> None:
    assert asked.LEAST_IN_GROUP == LEAST_IN_GROUP
    for byzantine in (1, 2, 3):
        compose(f"{SOME} partition.silos=21 aggregation.groups={needed(byzantine)} aggregation.byzantine={byzantine}")


@pytest.mark.parametrize(("members", "most"), [(9, 3), (10, 4), (12, 4), (400, 9)])
def test_a_sum_has_room_for_the_largest_group(members: int, most: int) -> None:
    """A roster can have more members than the run has silos, and all of a run's silos can be in one group of it."""
    settings = compose(GROUPED)
    assert parties_of(settings, settings.aggregation, members) == most  # type: ignore[arg-type]
