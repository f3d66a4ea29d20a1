"""Whom the server goes on without: liars that convict themselves, and quarrels that nobody can decide."""

from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.secagg.blame import Blame
from quire.strategies.secure_conduct import Conduct


def always(without):
    return True


def complaint(member, peer, code="PairKeyFailure"):
    return Blame(member, "ready refused", code, peer)


def test_who_contradicts_itself_is_out_and_a_pair_of_whom_one_lies_is_not():
    conduct = Conduct(range(10), 3)
    assert conduct.note([Blame(4, "unmasked", "UnrecoverableShare", None, True)])
    assert conduct.out == {4}
    assert conduct.note([Blame(5, "shares", "EdgeMismatch", 6, True), Blame(6, "shares", "EdgeMismatch", 5, True)])
    assert conduct.out == {4}
    assert not conduct.note([Blame(4, "unmasked", "UnrecoverableShare", None, True)])  # nothing new


def test_of_a_pair_each_sits_out_in_its_turn_beginning_with_the_accused():
    conduct = Conduct(range(10), 3)
    conduct.note([complaint(0, 9)])  # member 0 was not in the session in which it complained
    assert [conduct.aside(always) for _ in range(4)] == [{9}, {0}, {9}, {0}]


def test_nobody_sits_out_where_the_others_do_not_suffice():
    conduct = Conduct(range(5), 1)
    conduct.note([complaint(0, 4)])
    assert conduct.aside(lambda out: not out) == set()


def test_who_is_accused_by_more_than_may_collude_is_out():
    conduct = Conduct(range(10), 3)
    conduct.note(complaint(accuser, 9) for accuser in range(3))
    assert conduct.out == set()
    conduct.note([complaint(3, 9)])
    assert conduct.out == {9}
    assert conduct.aside(always) == set()  # and with it the quarrels


def test_who_accuses_more_than_may_collude_is_out():
    conduct = Conduct(range(10), 3)
    conduct.note(complaint(9, peer) for peer in range(4))
    assert conduct.out == {9}


def test_what_is_no_quarrel_of_two_members_counts_for_nothing():
    conduct = Conduct(range(5), 1)
    odd = [complaint(0, 77), complaint(0, 0), complaint(0, 1, "BadSignature"), Blame(2, "ready refused", "Replay")]
    assert not conduct.note(odd)
    assert conduct.aside(always) == set()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(4, 16))
def test_whatever_liars_do_no_honest_member_is_out_for_good(data, n):
    """Honest members complain about liars only; liars about anybody. There are as many liars as may collude."""
    c = max(1, (n - 1) // 3)
    liars, honest = list(range(c)), set(range(c, n))
    conduct, sessions = Conduct(range(n), c), []
    for _ in range(data.draw(st.integers(1, 6))):
        of_liars = st.builds(complaint, st.sampled_from(liars), st.integers(0, n - 1))
        of_honest = st.builds(complaint, st.sampled_from(sorted(honest)), st.sampled_from(liars))
        conduct.note(data.draw(st.lists(of_liars | of_honest, max_size=6)))
        assert conduct.out <= set(liars)
        conduct.aside(always)
    sessions = [conduct.aside(always) for _ in range(8 * n)]  # and now that all is said
    for member in honest:
        assert any(member not in out for out in sessions)
    for out in sessions:
        assert all(one in out or other in out or {one, other} & conduct.out for one, other in conduct._quarrels)
