"""The operator's part of silo.yaml: what it says, what it takes by default, and every mistake in one sentence."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quire.clients.data.silo_file import ShippedFile, read_operator_of, read_silo, read_silo_file
from quire.clients.policy.model import Policy, Population
from quire.errors import DataError

SHIPPED = "data: {connector: shipped, partition: 0, partitions: 3}\n"
OWN = "data: {connector: csv, path: rows.csv}\n"
POPULATION = "population: {name: heart-2020, records: 303}\n"
POLICY = "modes: [record], aggregation: [plain], code: [], epsilon: 4"
HASH = "ab" * 32


def operator_of(
    folder: Path, policy: str | None = POLICY, more: str = "", population: str = POPULATION, data: str = SHIPPED
):
    text = data + population + (f"policy: {{{policy}}}\n" if policy is not None else "") + more
    (folder / "silo.yaml").write_text(text)
    return read_operator_of(folder / "silo.yaml")


def test_what_is_left_out_is_strict(tmp_path):
    operator = operator_of(tmp_path)
    assert operator.policy == Policy(
        frozenset({"record"}),
        frozenset({"plain"}),
        frozenset(),
        Population("heart-2020", 303),
        epsilon=4.0,
        delta=1e-5,
        shipped=True,
    )
    assert (operator.store, operator.identity) == (tmp_path / "store", tmp_path / "silo.key")
    assert operator.roster is None
    assert operator.policy.place("epsilon") == "policy.epsilon (silo.yaml, line 3)"
    assert operator.policy.place("max_clip") == "policy.max_clip (silo.yaml, its default)"


def test_everything_can_be_said(tmp_path):
    every = (
        f"modes: [record, silo], aggregation: [plain], code: [{HASH}], epsilon: 8, delta: 1.0e-6, period_days: 365, "
        "min_cohort: 10, colluders: 3, min_noise: 0, max_clip: 10, max_rounds: 7, max_rounds_per_day: 8, "
        "test_seed: true, noise: [gaussian, discrete], trusts_server: true, rehearsal: true, approval: true, "
        "log: required, groups: 5"
    )
    more = f"store: books\nidentity: keys/silo.key\nroster: {{file: roster.json, hash: {HASH}}}\n"
    operator = operator_of(tmp_path, every, more)
    policy = operator.policy
    assert policy.modes == {"record", "silo"}
    assert (policy.code, policy.epsilon, policy.delta, policy.period_days) == (frozenset({HASH}), 8.0, 1e-6, 365)
    assert (policy.min_cohort, policy.colluders, policy.min_noise, policy.max_clip) == (10, 3, 0.0, 10.0)
    assert (policy.max_rounds, policy.max_rounds_per_day, policy.test_seed) == (7, 8, True)
    assert (policy.noise, policy.trusts_server, policy.rehearsal) == ({"gaussian", "discrete"}, True, True)
    assert (policy.log, policy.approval, policy.groups) == ("required", True, 5)
    assert set(policy.__dataclass_fields__) - {"population", "shipped", "file", "lines", "charter"} == set(
        dict(policy.lines)
    )
    assert (operator.store, operator.identity) == (tmp_path / "books", tmp_path / "keys" / "silo.key")
    assert (operator.roster.file, operator.roster.sha256) == (tmp_path / "roster.json", HASH)


def test_without_privacy_nothing_is_capped_and_large_populations_have_a_smaller_delta(tmp_path):
    policy = operator_of(tmp_path, "modes: [none], aggregation: [plain], code: []").policy
    assert (policy.epsilon, policy.delta, policy.capped) == (math.inf, 1.0, False)
    (tmp_path / "rows.csv").touch()
    tested = operator_of(tmp_path, POLICY.replace("epsilon: 4", "test_seed: true"), data=OWN).policy
    assert (tested.epsilon, tested.delta, tested.capped, tested.seeded) == (math.inf, 1e-5, False, True)
    large = operator_of(tmp_path, population="population: {name: p, records: 1000000}\n").policy
    assert large.delta == 1e-7


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("", "'policy' lacks the key 'modes'"),
        ("modes: [record], aggregation: [plain]", "'policy' lacks the key 'code'"),
        ("modes: [record], code: []", "'policy' lacks the key 'aggregation'"),
        ("modes: [record], aggregation: [plain], code: []", "lacks the key 'epsilon'"),
        (POLICY + ", epsilom: 3", "'policy' has no key 'epsilom'; there are modes, aggregation, code, epsilon"),
        (POLICY.replace("[record]", "[]"), "must list at least one of none, record, silo"),
        (POLICY.replace("[record]", "[recrod]"), "'recrod' is none of the options of privacy: none, record, silo"),
        (POLICY.replace("[record]", "record"), "'modes' must be a list"),
        (POLICY.replace("[record]", "[none, record]"), "'none' stands alone"),
        (POLICY.replace("[record]", "[none]"), "'epsilon' caps nothing with modes: .none."),
        (POLICY.replace("[plain]", "[masked]"), "'masked' is none of what the server may see: plain, secure"),
        (POLICY.replace("code: []", "code: [abc]"), "must be a SHA-256"),
        (POLICY.replace("code: []", "code: [123]"), "must be a SHA-256"),
        (POLICY.replace("epsilon: 4", "test_seed: true"), "'policy' lacks the key 'epsilon'"),  # over shipped data
        (POLICY.replace("epsilon: 4", "epsilon: 0"), "'epsilon' must be greater than 0"),
        (POLICY.replace("epsilon: 4", "epsilon: .inf"), "'epsilon' must be a number"),
        (POLICY + ", delta: 1e-5x", "'delta' must be a number; write it in plain decimal, as 1000, 0.5 or 1e-5"),
        (POLICY + ", delta: 0.0034", "'delta' must be less than 1/records"),
        (POLICY + ", delta: 0", "'delta' must be greater than 0"),
        (POLICY + ", period_days: 0", "'period_days' must be a whole number from 1 to 36500"),
        (POLICY + ", min_cohort: 1", "'min_cohort' must be a whole number from 2"),
        (POLICY + ", min_cohort: 4, colluders: 3", "leaves fewer than two honest silos"),
        (POLICY + ", colluders: 3", "min_cohort=4 less colluders=3 leaves fewer"),
        (POLICY + ", min_noise: -1", "'min_noise' must be at least 0"),
        (POLICY + ", max_clip: 0", "'max_clip' must be greater than 0"),
        (POLICY + ", max_rounds: 0", "'max_rounds' must be a whole number from 1"),
        (POLICY + ", log: yes", "'log' must be optional, required, or in quotes the fingerprint of the log's key"),
        (POLICY + ", log: " + "F" * 64, "'log' must be optional, required, or"),
        (POLICY + ", max_rounds_per_day: 2.5", "'max_rounds_per_day' must be a whole number"),
        (POLICY.replace("epsilon: 4", "epsilon: 44.1"), "'epsilon' must be at most 44"),
        (POLICY + ", noise: []", "'noise' must list at least one of discrete, gaussian"),
        (POLICY + ", noise: [float]", "'float' is none of the ways to draw noise: discrete, gaussian"),
        (POLICY + ", noise: discrete", "'noise' must be a list"),
        (POLICY + ", trusts_server: 1", "'trusts_server' must be true or false"),
        (POLICY + ", rehearsal: sometimes", "'rehearsal' must be true or false"),
        (POLICY + ", shipped: true", "'policy' has no key 'shipped'"),
        (POLICY + ", test_seed: maybe", "'test_seed' must be true or false"),
    ],
)
def test_a_policy_that_says_what_none_can(tmp_path, policy, words):
    with pytest.raises(DataError, match=words) as caught:
        operator_of(tmp_path, policy)
    message = str(caught.value)
    assert re.search(r"silo\.yaml, line \d+, column \d+: ", message)
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("roster: {file: r.json}\n", "'roster' lacks the key 'hash'"),
        (f"roster: {{file: r.json, hash: {HASH[:-1]}}}\n", "'hash' must be a SHA-256"),
        ("store: 5\n", "'store' must be a text"),
        ("identity: [a]\n", "'identity' must be a single value"),
        ("schema: schema.yaml\n", "a shipped data set has no 'schema' of its own"),
        ("polcy: {}\n", "the file has no key 'polcy'"),
    ],
)
def test_a_file_that_says_what_none_can(tmp_path, more, words):
    (tmp_path / "silo.yaml").write_text(SHIPPED + POPULATION + more)
    with pytest.raises(DataError, match=words):
        read_silo_file(tmp_path / "silo.yaml")


@pytest.mark.parametrize(
    ("population", "words"),
    [
        ("", "a 'policy' needs 'population: {name: NAME, records: NUMBER}'"),
        ("population: {name: Heart!, records: 3}\n", "a population's 'name' must be at most 64"),
        ("population: {name: h, records: 0}\n", "'records' must be a whole number from 1"),
        ("population: {name: h}\n", "'population' lacks the key 'records'"),
    ],
)
def test_a_population_that_cannot_be_one(tmp_path, population, words):
    with pytest.raises(DataError, match=words):
        operator_of(tmp_path, population=population)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{connector: shipped}", "'data' lacks the key 'partition'"),
        ("{connector: shipped, partition: 3, partitions: 3}", "'partition' counts from 0: the last of 3 is 2"),
        ("{connector: shipped, partition: -1, partitions: 3}", "'partition' must be a whole number from 0"),
        ("{connector: shipped, partition: 0, partitions: 3, path: x}", "'data' has no key 'path'"),
    ],
)
def test_a_shipped_part_that_cannot_be(tmp_path, data, words):
    (tmp_path / "silo.yaml").write_text(f"data: {data}\n")
    with pytest.raises(DataError, match=words):
        read_silo_file(tmp_path / "silo.yaml")


def test_a_silo_file_is_one_of_two_kinds(tmp_path):
    operator_of(tmp_path)
    found = read_silo_file(tmp_path / "silo.yaml")
    assert isinstance(found, ShippedFile)
    assert (found.name, found.partition, found.partitions) == (None, 0, 3)
    with pytest.raises(DataError, match="here a silo must read its own rows"):
        read_silo(tmp_path / "silo.yaml")


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.text(max_size=5), max_size=3)
)
KEYS = st.sampled_from([*Policy.__dataclass_fields__, "other"])


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_whatever_a_policy_holds_it_is_read_or_refused_in_a_sentence(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    given_policy = {"modes": ["record"], "aggregation": ["plain"], "code": [], "epsilon": 1.0, **content}
    (folder / "silo.yaml").write_text(SHIPPED + POPULATION + yaml.safe_dump({"policy": given_policy}))
    try:
        policy = read_operator_of(folder / "silo.yaml").policy
    except DataError:
        return
    assert policy.epsilon > 0
    assert 0 < policy.delta <= 1
    assert policy.min_cohort - policy.colluders >= 2
