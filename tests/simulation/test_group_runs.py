"""Runs whose silos are summed in groups: the model that their sums come to, who is asked for what, and what is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from secure_runs import model_of, rounds_of

import quire
from quire.clients.contract import SECURE_STAGES
from quire.clients.tasks import task_of
from quire.conf.compose import compose
from quire.errors import RunFailed, SettingsError
from quire.privacy.randomness import stream
from quire.privacy.secagg import groups
from quire.simulation import contribution, secure_section
from quire.simulation.grid import InlineGrid
from quire.simulation.participation import _in_vain, _why_not
from quire.simulation.progress import _words
from quire.simulation.report import write_report
from quire.simulation.report_data import read_run
from quire.simulation.verify_transcripts import audit_run
from quire.strategies import secure
from quire.strategies.secure_circle import Circle
from quire.strategies.turns import Turns
from tests.simulation.test_report import page_of

QUIET = "output.report=false output.baselines=false"
TASK = f"task=breast_cancer partition=iid partition.silos=9 strategy.rounds=2 {QUIET}"
GROUPED = f"{TASK} aggregation=secure aggregation.groups=3 aggregation.colluders=0"
GROUPS = [["1", "4", "7"], ["2", "5", "8"], ["3", "6", "9"]]
FAULT = "runtime.faults=[{}]"


def of(folder: Path) -> list[Any]:
    """What the journal says of the groups of each round."""
    return [line["secure"]["groups"] for line in rounds_of(folder)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    quire.run(f"{GROUPED} output.transcripts=true", folder)
    return folder


def test_each_group_comes_to_a_sum_of_its_own_and_keeps_its_silos(kept: Path) -> None:
    for line in rounds_of(kept):
        told = line["secure"]
        assert [[silo.rpartition("-")[2] for silo in one["silos"]] for one in told["groups"]] == GROUPS
        assert all(0.0 < one["reach"] <= 1.0 for one in told["groups"])
        assert [(one["group"], one["attempt"], len(one["u3"])) for one in told["attempts"]] == [
            (group, 1, 3) for group in (1, 2, 3)
        ]
        assert (told["members"], told["colluders"]) == (9, 0)
        assert "chain" not in told
        assert line["replied"] == line["cohort"] == [f"hospital-{number}" for number in range(1, 10)]


def test_groups_go_through_their_exchanges_side_by_side(kept: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """As at a SuperLink, where an exchange takes as long as nodes take to look; here, until all have begun it."""
    begun, pull, met = secure.SecureRounds.__init__, InlineGrid.pull_messages, set[tuple[str, str]]()

    def deployed(self: Any, *args: Any, **more: Any) -> None:
        begun(self, *args, **more)
        self._turns = Turns()

    def late(grid: Any, ids: Any) -> Any:
        wanted, asked = set(ids), dict[tuple[str, str], set[str]]()
        for one, message in grid._waiting.items():
            asked.setdefault((message.metadata.message_type, message.metadata.group_id), set()).add(one)
        at = next((stage for stage, there in asked.items() if there & wanted), ("", ""))
        met.update({at} if at[0] in {"query", "train.shares", ""} or len(asked[at]) == 9 else ())
        return pull(grid, ids) if at in met else []

    monkeypatch.setattr(secure.SecureRounds, "__init__", deployed)
    monkeypatch.setattr(InlineGrid, "pull_messages", late)
    quire.run(f"{GROUPED} strategy.deadline=60", tmp_path)
    assert {(stage, number) for stage, number in met if number} >= {(stage, "1") for stage in SECURE_STAGES}
    ours, theirs = model_of(tmp_path), model_of(kept)
    assert all(np.array_equal(ours[name], array) for name, array in theirs.items())


def test_the_model_is_the_median_of_the_means_of_groups(tmp_path: Path) -> None:
    """Held against runs of three silos each, in which everything is in clear and nothing is encoded."""
    one = f"{TASK.replace('strategy.rounds=2', 'strategy.rounds=1')}"
    first = task_of(compose(one)).initial_arrays(stream(compose(one).seed, "model"))
    means = []
    for numbers in GROUPS:
        gone = [f"drop:train:1:hospital-{at}" for at in range(1, 10) if str(at) not in numbers]
        folder = tmp_path / numbers[0]
        quire.run(f"{one} {FAULT.format(','.join(gone))}", folder)
        means.append({name: array - first[name] for name, array in model_of(folder).items()})
    quire.run(
        f"{GROUPED.replace('strategy.rounds=2', 'strategy.rounds=1')} aggregation.resolution=1e-6", tmp_path / "grouped"
    )
    for name, array in model_of(tmp_path / "grouped").items():
        expected = np.median([mean[name] for mean in means], axis=0)
        np.testing.assert_allclose(array - first[name], expected, atol=2e-5)


def test_the_short_cut_comes_to_the_same_model_bit_for_bit(kept: Path, tmp_path: Path) -> None:
    quire.run(f"{GROUPED} aggregation.simulate=exact_sum", tmp_path / "run")
    assert [line["model"] for line in rounds_of(tmp_path / "run")] == [line["model"] for line in rounds_of(kept)]
    assert of(tmp_path / "run") == of(kept)


def test_a_trimmed_mean_is_another_model(tmp_path: Path) -> None:
    nine = GROUPED.replace("partition.silos=9", "partition.silos=15").replace("groups=3", "groups=5")
    models = set()
    for how in ("median", "trimmed_mean aggregation.byzantine=1"):
        folder = tmp_path / how[:6]
        quire.run(f"{nine} aggregation.combine={how} aggregation.simulate=exact_sum", folder)
        models.add(rounds_of(folder)[-1]["model"])
    assert len(models) == 2


def test_transcripts_lead_to_every_model_again_and_nothing_of_a_group_can_be_changed(
    kept: Path, tmp_path: Path
) -> None:
    found = audit_run(kept)
    assert found.wrong == []
    assert [(one.round, one.group, one.models) for one in found.attempts] == [
        (number, group, True) for number in (1, 2) for group in (1, 2, 3)
    ]
    assert "6 sums opened again, out of 18 masked vectors, and 2 models recomputed" in found.summary

    def wrong(name: str, change: Any) -> str:
        run = shutil.copytree(kept, tmp_path / name)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        change(next(line for line in lines if line["event"] == "round" and line["round"] == 2))
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return "\n".join(audit_run(run).wrong)

    assert "Round 2, group 2: the journal says something else of its sum than what it comes to." in wrong(
        "a", lambda line: line["secure"]["groups"][1].update(rejected=True)
    )
    assert "Round 2, group 3: the journal names other silos in its sum than the transcripts do." in wrong(
        "b", lambda line: line["secure"]["groups"][2].update(silos=["hospital-1"])
    )
    assert "Round 2, group 1: the journal does not say what its sum came to." in wrong(
        "c", lambda line: line["secure"].pop("groups")
    )
    assert "Round 2: it is called lost, and its transcripts open sums enough for a model." in wrong(
        "d", lambda line: line.update(lost="nobody came.")
    )
    swapped = wrong("e", lambda line: line["secure"]["attempts"][0].update(group=2))
    assert "attempt 1 of group 2: silos of other groups had keys in it." in swapped
    assert "Round 2, group 2: two of its attempts opened a sum." not in swapped
    assert "attempt 1: the journal does not say of which group it is." in wrong(
        "f", lambda line: line["secure"]["attempts"][0].pop("group")
    )
    missing = wrong("g", lambda line: line["secure"]["attempts"].pop(0))
    assert "Round 2: its sums lead to no model, as 2 of 3 groups came to a sum that can be used" in missing


def test_a_run_without_groups_has_none(tmp_path: Path) -> None:
    quire.run(f"{TASK} aggregation=secure output.transcripts=true strategy.min_silos=2", tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().replace('"attempt": 1,', '"attempt": 1, "group": 1,')
    (tmp_path / "run" / "metrics.jsonl").write_text(lines)
    assert "of a group, and the settings ask for none" in "\n".join(audit_run(tmp_path / "run").wrong)


def test_a_round_that_lacks_a_group_is_lost_and_the_run_goes_on(tmp_path: Path) -> None:
    quire.run(f"{GROUPED} {FAULT.format('drop:mask:1:hospital-5')}", tmp_path / "run")
    first, second = rounds_of(tmp_path / "run")
    assert first["lost"].startswith("2 of 3 groups came to a sum that can be used, and it takes 3 against one bad silo")
    assert "(group 2: secure aggregation came to nothing in 3 attempts" in first["lost"]
    assert [len(one["silos"]) for one in first["secure"]["groups"]] == [3, 0, 3]
    assert first["replied"] == [f"hospital-{number}" for number in (1, 3, 4, 6, 7, 9)]
    assert "lost" not in second
    assert first["model"] != second["model"]


def test_with_a_group_to_spare_a_round_goes_on_without_one(tmp_path: Path) -> None:
    spare = GROUPED.replace("groups=3", "groups=4 aggregation.byzantine=1").replace("silos=9", "silos=12")
    quire.run(f"{spare} aggregation.attempts=1 {FAULT.format('drop:mask:2:hospital-6')}", tmp_path / "run")
    first, second = rounds_of(tmp_path / "run")
    assert all("reach" in one for one in first["secure"]["groups"])
    assert "lost" not in second
    assert [one["group"] for one in second["secure"]["groups"] if "reach" not in one] == [2]
    assert [len(line["replied"]) for line in (first, second)] == [12, 9]
    write_report(tmp_path / "run")
    text = page_of(tmp_path / "run").text("section")
    assert "Round 2, group 2: secure aggregation came to nothing in 1 attempt" in text
    found = secure_section.section(read_run(tmp_path / "run"))
    assert found is not None
    assert [(row["group"], row["used"], row["lost"]) for row in found["groups"]] == [
        (1, 2, 0),
        (2, 1, 1),
        (3, 2, 0),
        (4, 2, 0),
    ]
    assert found["verdict"].startswith("Each of 4 groups of hospitals was summed apart, over 3 of 12, and the median")
    assert ("Groups", "4") in found["numbers"]


def test_what_a_lost_round_came_to_is_said_on_the_page_and_of_each_silo(tmp_path: Path) -> None:
    quire.run(f"{GROUPED} {FAULT.format('drop:mask:1:hospital-5')}", tmp_path / "run")
    line = rounds_of(tmp_path / "run")[0]
    assert _words(line)[-1] == "lost"
    write_report(tmp_path / "run")
    text = " ".join(page_of(tmp_path / "run").text("section").split())
    assert f"Round 1 was lost: {line['lost']}" in text
    in_vain = _in_vain(line, set(line["replied"]))
    assert in_vain == dict.fromkeys(line["replied"], "trained, for a round that was lost for want of other groups")
    assert _why_not(line, "hospital-2") == "its group came to no sum"


def test_a_run_that_ends_while_groups_begin_tells_of_no_round_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its journal would name transcripts of the round before, and nobody could verify it."""
    begin = Circle.begin

    def failing(self: Circle, one: Any, *rest: Any) -> None:
        if one.line.round == 2 and self.terms.group == 1:
            raise RunFailed("The transcript cannot be written.")
        begin(self, one, *rest)

    monkeypatch.setattr(Circle, "begin", failing)
    with pytest.raises(RunFailed, match="cannot be written"):
        quire.run(f"{GROUPED} output.transcripts=true", tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (failed,) = (line for line in lines if line["event"] == "failed")
    assert [one["group"] for one in failed["secure"]["attempts"]] == [1]
    assert audit_run(tmp_path / "run").wrong == []


@pytest.mark.parametrize("groups", [None, "x", [1], [{"group": [1]}], [{"group": 1, "silos": None}]])
def test_a_journal_that_says_nonsense_of_groups_is_read_without_a_traceback(
    kept: Path, tmp_path: Path, groups: Any
) -> None:
    run = shutil.copytree(kept, tmp_path / "run")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["event"] == "round":
            line["secure"]["groups"] = groups
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert audit_run(run).wrong != []
    write_report(run)


def test_a_group_that_never_has_keys_is_done_without_or_ends_the_run(tmp_path: Path) -> None:
    gone = FAULT.format(",".join(f"drop:open:{number}:hospital-2" for number in (1, 2)))
    with pytest.raises(RunFailed, match=r"Round 2 failed: 2 of 3 groups came to a sum.*no round of this run has moved"):
        quire.run(f"{GROUPED} aggregation.attempts=3 {gone}", tmp_path / "run")
    spare = GROUPED.replace("groups=3", "groups=4 aggregation.byzantine=1").replace("silos=9", "silos=12")
    quire.run(f"{spare} {gone}", tmp_path / "spare")
    assert [["reach" in one for one in told] for told in of(tmp_path / "spare")] == [[True, False, True, True]] * 2


def test_if_no_group_has_keys_the_run_fails_at_once(tmp_path: Path) -> None:
    gone = FAULT.format(",".join(f"drop:open:1:hospital-{number}" for number in (1, 2, 3)))
    with pytest.raises(RunFailed, match=r"Round 1 failed: secure aggregation of group 3 came .* of the 3 in the group"):
        quire.run(f"{GROUPED} {gone}", tmp_path / "run")


def test_silos_refuse_a_server_that_deals_them_out_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could choose with whom each is summed, and make a silo alone among those that side with it."""

    def dealt(members: Any, count: int) -> tuple[groups.Group, ...]:
        order = sorted(members)
        return tuple(groups.Group(number, tuple(order[number * 3 : number * 3 + 3])) for number in range(count))

    monkeypatch.setattr(secure, "dealt", dealt)
    with pytest.raises(RunFailed, match="it refused to go on: its own policy does not allow this session"):
        quire.run(GROUPED, tmp_path / "run")


def test_what_needs_one_sum_of_all_says_so() -> None:
    with pytest.raises(SettingsError, match=r"aggregation\.groups=3 sums silos in groups that a coalition has too few"):
        contribution._check(compose(GROUPED), exact=False)
