"""`quire verify` and the card over garbage: whatever lies in a run folder, both end in sentences."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quire.errors import SettingsError
from quire.simulation.report_data import ReportError, read_run
from quire.simulation.verify import verify_run
from quire.strategies.card import write_card
from tests.support.private_runs import Consortium, bodies, forge, journal, leaves, put, rewrite, write_run


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", Consortium())


@pytest.fixture
def run(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


FILES = ("metrics.jsonl", "privacy_card.json", "run.json", "roster.json", "settings.yaml", "model.safetensors")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.sampled_from(FILES), st.binary(max_size=60), st.floats(0, 1), st.booleans())
def test_garbage_never_makes_it_fall_over(run, name, garbage, where, whole):
    genuine = (run / name).read_bytes()
    place = int(where * len(genuine))
    (run / name).write_bytes(garbage if whole else genuine[:place] + garbage + genuine[place + len(garbage) :])
    try:
        verify_run(run)
    except SettingsError:
        pass
    finally:
        (run / name).write_bytes(genuine)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data(), JSON)
def test_any_value_in_any_place_of_the_journal_or_a_receipt_is_survived(run, data, value):
    genuine = (run / "metrics.jsonl").read_text()
    try:
        if data.draw(st.booleans()):
            lines = journal(run)
            path, _ = data.draw(st.sampled_from(list(leaves(lines))))
            put(lines, path[: data.draw(st.integers(1, len(path)))], value)
            rewrite(run, lines)
        else:
            number, silo, document = data.draw(st.sampled_from(list(bodies(run))))
            path, _ = data.draw(st.sampled_from(list(leaves(document))))
            put(document, path[: data.draw(st.integers(1, len(path)))], value)
            forge(run, number, silo, document)
        verify_run(run)
        write_card(run)
    finally:
        (run / "metrics.jsonl").write_text(genuine)
        write_card(run)


@pytest.mark.parametrize("key", ["secure", "train", "released"])
@pytest.mark.parametrize("value", [True, 3, "x", [1]])
def test_what_should_be_an_object_and_is_none_is_told(run, key, value):
    genuine = (run / "metrics.jsonl").read_text()
    try:
        lines = journal(run)
        place = next(at for at, line in enumerate(lines) if line["event"] == "round")
        lines[place][key] = value
        rewrite(run, lines)
        assert any(f"'{key}' that is not of the right form" in text for text in verify_run(run).wrong)
        with pytest.raises(ReportError, match=f"is damaged: a line of it has a '{key}' of another form"):
            read_run(run)
    finally:
        (run / "metrics.jsonl").write_text(genuine)
