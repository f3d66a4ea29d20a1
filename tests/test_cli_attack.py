"""``quire attack`` as it is called: pages that stand alone, results that hold the same numbers, one sentence for "
"errors."""

import json
import re

import pytest
from command_line import command_line

SMALL = [  # the same silos for all three, whose noise is then calibrated once
    *("partition=iid", "partition.silos=3", "strategy.rounds=1", "training.steps=1", "training.batch_size=4"),
    *("task.model=logistic", "data.test_fraction=0.5"),
]


@pytest.fixture
def quire(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    return command_line(monkeypatch, capsys)


def stands_alone(page):
    assert "<script" not in page
    for target in re.findall(r'(?:src|href)="([^"]*)"', page):
        assert target.startswith(("data:image/png;base64,", "#")), target
    return page


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("membership", ["--runs", "4", "privacy=none"]),
        ("inversion", ["--steps", "2", "--tries", "1", "privacy=record"]),
        ("property", ["--shadows", "20", "privacy=record"]),
    ],
)
def test_an_attack_leaves_a_page_and_its_numbers(quire, tmp_path, kind, more):
    status, out, err = quire("attack", kind, *SMALL, *more, "--out", "here")
    assert (status, err) == (0, "")
    assert "Page: here/attack.html" in out
    page = stands_alone((tmp_path / "here" / "attack.html").read_text())
    result = json.loads((tmp_path / "here" / "result.json").read_text())
    assert (result["format"], result["attack"]) == ("quire-attack-1", kind)
    assert [one["variant"] for one in result["variants"]][:2] == ["plain", "secure"]
    assert [one["epsilon"] for one in result["variants"]][:2] == [None, None]
    for words in ("plain updates", "the secure sum", "What it does not show", "What the attack was given"):
        assert words in page
    if kind != "membership":
        assert result["variants"][2]["epsilon"] == pytest.approx(1, abs=0.02)
        assert "noisy updates" in page
        assert "epsilon 1, delta" in page
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"attack.html", "result.json"}
    if kind == "inversion":
        assert page.count("<img") >= 2 * 4 * 4
    if kind == "membership":
        finding = result["variants"][0]["findings"][0]
        assert f"{finding['auc']['value']:.2f} [{finding['auc']['low']:.2f}" in page
        assert quire("attack", kind, *SMALL, *more, "--out", "here") == (
            2,
            "",
            "quire: The folder 'here' already holds the result of an attack: name another with --out.\n",
        )


def test_a_run_with_clipping_and_no_noise_is_told_as_its_card_tells_it(quire, tmp_path):
    more = ["--shadows", "20", "privacy=record", "privacy.epsilon=inf"]
    status, _, err = quire("attack", "property", *SMALL, *more, "--out", "here")
    assert (status, err) == (0, "")
    result = json.loads((tmp_path / "here" / "result.json").read_text())
    assert [one["epsilon"] for one in result["variants"]] == [None, None, "inf"]
    assert "epsilon inf" in (tmp_path / "here" / "attack.html").read_text()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["membership", "--runs", "3"], "Membership takes 4 to 128 runs of each kind, not 3"),
        (["inversion", "--steps", "0"], "A search takes 1 to 100,000 steps"),
        (["inversion", "--runs", "0"], "Inversion takes 1 to 64 runs"),
        (["inversion", "task=breast_cancer"], "task=breast_cancer has no pictures"),
        (["inversion", "training.steps=0", "training.epochs=40"], "at most 512 are searched for"),
        (["property", "--shadows", "2"], "Property inference takes 20 to 100,000 made-up silos"),
        (["property", "strategy.fraction=0.8", "privacy=none"], "does not ask every silo"),
        (["membership", "privacy=banana"], "privacy=banana does not exist"),
        (["membership", "task=tabular"], "task=tabular"),
        (["membership", "nonsense"], "'nonsense' is not an override"),
        (["membership", "seed=1", "seed=2"], "'seed' is set twice"),
        (["membership", "--out", "file/below"], "cannot be written"),
        (["membership", "privacy=silo"], "privacy.delta"),
        (["membership", "training.local_layers=[head]"], "about what stays in a silo"),
        (["membership", "training.tuning_epochs=1"], "about what stays in a silo"),
        (["property", "attack=sign_flip"], "silos that send bad updates"),
        (["membership", "aggregation=krum"], "aggregation=krum is for the run with noise"),
        (["membership", "aggregation=secure", "privacy=none"], "aggregation=secure is for the run with noise"),
        (["membership", "privacy.epsilon=2", "privacy=none"], "'privacy.epsilon' is for a run with noise"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(quire, tmp_path, args, words):
    (tmp_path / "file").write_text("")
    status, out, err = quire("attack", *args)
    assert (status, out) == (2, "")
    assert err.startswith("quire: ")
    assert err.count("\n") == 1
    assert words in err
    assert not list(tmp_path.rglob("result.json"))


def test_help_names_the_attacks(quire):
    status, out, _ = quire("attack", "--help")
    assert status == 0
    for word in ("membership", "inversion", "property"):
        assert word in out
        assert quire("attack", word, "--help")[0] == 0
