"""The report says what the run says, to whoever looks, and runs nothing that a silo wrote."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from quire.conf.compose import compose
from quire.errors import QuireError
from quire.simulation.report import ReportError, write_report
from quire.simulation.report_words import NBSP


def scores(value: float) -> dict[str, float]:
    return {"accuracy": value, "balanced_accuracy": value, "loss": 1.0 - value}


def round_event(number: int, roster: list[str], **changes: Any) -> dict[str, Any]:
    event = {
        "event": "round",
        "round": number,
        "cohort": roster,
        "replied": roster,
        "failed": [],
        "train": {"loss": 0.5},
        "evaluate": scores(0.6 + 0.01 * number),
        "silos": {silo: {"rows": 40, "test_rows": 10, **scores(0.55 + 0.01 * number)} for silo in roster},
        "bytes_down": 1000,
        "bytes_up": 2000,
        "seconds": {"train": 0.1, "aggregate": 0.01, "evaluate": 0.05},
        "model": f"{number:064x}",
    }
    return event | changes


def comparison(
    silos: list[str], federated: float, pooled: float, alone: list[float], own: float = 0.02
) -> dict[str, Any]:
    return {
        "rows": {"train": 40 * len(silos), "test": 200 * len(silos)},
        "silos": {silo: {"train": 40, "test": 200, "labels": {"0": 10, "1": 30}} for silo in silos},
        "classes": 2,
        "everyone": {
            "federated": scores(federated),
            "pooled": scores(pooled),
            "majority": {"accuracy": 0.5, "balanced_accuracy": 0.5},
            "alone": {silo: scores(value) for silo, value in zip(silos, alone, strict=True)},
        },
        "own": {
            silo: {"federated": scores(0.9), "pooled": scores(0.9), "majority": scores(0.5), "alone": scores(0.9 - own)}
            for silo in silos
        },
    }


def make_run(
    folder: Path,
    silos: list[str] | None = None,
    rounds: list[dict[str, Any]] | None = None,
    compared: dict[str, Any] | None = None,
    overrides: str = "task=breast_cancer training.lr=0.1",
    **run: Any,
) -> Path:
    silos = silos if silos is not None else [f"hospital-{place}" for place in range(1, 6)]
    tree = {**compose(overrides).as_dict(), "overrides": compose(overrides).overrides}
    (folder / "settings.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    start = {"event": "start", "rounds": 3, "silos": silos, "strategy": "fedavg", "parameters": 31}
    rounds = rounds if rounds is not None else [round_event(number, silos) for number in (1, 2, 3)]
    lines = "".join(json.dumps(event) + "\n" for event in [start, *rounds])
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    ended = {"status": "completed", "error": None, "model": "ab" * 32, "versions": {"flwr": "1.41.0"}, **run}
    (folder / "run.json").write_text(json.dumps(ended), encoding="utf-8")
    if compared is not None:
        (folder / "comparison.json").write_text(json.dumps(compared), encoding="utf-8")
    return folder


class Page(HTMLParser):
    """What is on a page: its text by element, its tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} closes what is not open"

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts.setdefault(tag, []).append(data)

    def text(self, tag: str) -> str:
        return re.sub(r"\s+", " ", "".join(self.texts.get(tag, []))).strip()

    def classes(self, tag: str) -> list[str]:
        return [attrs.get("class") or "" for name, attrs in self.tags if name == tag]


def page_of(folder: Path) -> Page:
    target = write_report(folder)
    assert target == folder / "report.html"
    return Page(target.read_text(encoding="utf-8"))


SILOS = [f"hospital-{place}" for place in range(1, 6)]


def test_headline_has_the_numbers_of_the_run(tmp_path: Path) -> None:
    alone = [0.80, 0.85, 0.90, 0.95, 0.90]
    page = page_of(make_run(tmp_path, compared=comparison(SILOS, 0.961, 0.9712, alone)))
    assert page.text("h1") == (
        "Federating five hospitals reached 96.1 % balanced accuracy; a hospital alone reaches 88.0 % on average; "
        "pooling all records would reach 97.1 %."
    )
    assert "Federating bought +8.1 points over going alone, 89 % of what pooling would have bought" in page.text("p")
    assert "verdict good" in page.classes("p")
    assert "serves 5 of 5 hospitals better than their own model does, 0 worse (+2.0 points" in page.text("li")


@pytest.mark.parametrize(
    ("federated", "alone", "own", "words", "tone"),
    [
        (0.80, 0.90, 0.0, "Federating did not help: going alone is better by 10.0 points on average.", "bad"),
        (0.901, 0.90, 0.0, "Federating made no difference to speak of: +0.1 points", "level"),
        (0.95, 0.90, -0.08, "But on its own test rows a hospital loses 8.0 points on average.", "level"),
    ],
)
def test_says_so_when_federating_did_not_help(
    tmp_path: Path, federated: float, alone: float, own: float, words: str, tone: str
) -> None:
    page = page_of(make_run(tmp_path, compared=comparison(SILOS, federated, 0.96, [alone] * 5, own)))
    assert words in page.text("p")
    assert f"verdict {tone}" in page.classes("p")


def test_names_who_would_do_better_alone_and_a_model_that_learned_nothing(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path, compared=comparison(SILOS, 0.5, 0.9, [0.4, 0.4, 0.7, 0.6, 0.4])))
    assert "hospital-3 and one other would have done better alone: 70.0 %" in page.text("li")
    assert "Always guessing the most frequent class reaches 50.0 %" in page.text("li")


def test_table_has_each_silo_with_its_gains(tmp_path: Path) -> None:
    compared = comparison(SILOS, 0.9, 0.9, [0.8] * 5)
    compared["own"]["hospital-2"]["alone"] = scores(0.95)
    html = write_report(make_run(tmp_path, compared=compared)).read_text(encoding="utf-8")
    row = re.search(r'<th scope="row">hospital-2</th>.*?</tr>', html, re.DOTALL)
    assert row
    cells = [re.sub(r"<[^>]*>|\s+", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row[0], re.DOTALL)]
    assert cells == ["40", "200", "", "80.0%", "+10.0", "95.0%", "90.0%", "90.0%", "−5.0"]  # noqa: RUF001
    assert 'aria-label="class 0: 10, class 1: 30"' in row[0]
    assert 'style="flex:25.00"' in row[0]


def test_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path, compared=comparison(SILOS, 0.9, 0.9, [0.8] * 5))).read_text(encoding="utf-8")
    page = Page(html)
    assert not re.search(r"https?://|//[a-z]|@import|url\((?!#)", html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    links = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("href", "src", "xlink:href")]
    assert all(value and value.startswith("#") for value in links)


def test_figures_are_labelled_and_take_their_colours_from_the_page(tmp_path: Path) -> None:
    html = write_report(make_run(tmp_path, compared=comparison(SILOS, 0.9, 0.91, [0.8] * 5))).read_text(
        encoding="utf-8"
    )
    page = Page(html)
    pictures = [attrs for tag, attrs in page.tags if tag == "svg" and attrs.get("role") == "img"]
    assert len(pictures) == 8  # two comparisons, three curves, the grid, time, bytes
    assert all(attrs["aria-label"] for attrs in pictures)
    assert "federated 90.0\N{NO-BREAK SPACE}%, pooled 91.0" in str(pictures[0]["aria-label"])
    assert "#0102" not in html  # no stand-in colour is left
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))


def test_same_run_gives_the_same_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path, compared=comparison(SILOS, 0.9, 0.9, [0.8] * 5))
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert not list(folder.glob(".report-*"))


def test_silo_names_cannot_write_markup(tmp_path: Path) -> None:
    hostile = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{", "line\nbreak\x1b[31m", "_x"]
    failed = [{"silo": hostile[0], "stage": "train", "code": "x", "words": "<b onclick=x>&"}]
    rounds = [round_event(1, hostile, failed=failed, replied=hostile[1:])]
    compared = comparison(hostile, 0.9, 0.9, [0.8] * 5)
    compared["silos"]["_x"]["labels"] = {"</style><script>": 3}
    page = page_of(make_run(tmp_path, hostile, rounds, compared, error="<script>boom</script>", status="failed"))
    assert not {"script", "img", "b onclick"} & {tag for tag, _ in page.tags}
    assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on")]
    assert "<script>alert(1)</script>" in page.text("th")
    assert "<script>boom</script>" in page.text("p")
    assert "\x1b" not in page.text("body")


def test_without_comparison_it_claims_nothing(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path, overrides="task=breast_cancer output.baselines=false"))
    assert page.text("h1") == "Federating five hospitals reached 63.0 % balanced accuracy after three rounds."
    assert "cannot be told from this run" in page.text("p")
    assert "(output.baselines=false)" in page.text("p")
    assert "Alone" not in page.text("th")


def test_torn_last_line_and_repeated_round(tmp_path: Path) -> None:
    rounds = [round_event(1, SILOS), round_event(2, SILOS), round_event(2, SILOS, evaluate=scores(0.777))]
    folder = make_run(tmp_path, rounds=rounds, status="running")
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"event":"round","round":3,"coh')
    page = page_of(folder)
    assert "77.7 %" in page.text("h1")
    assert "has not recorded its end: 2 of 3 rounds so far" in page.text("strong")


def test_failed_run_says_why(tmp_path: Path) -> None:
    why = "Round 3 had one good reply, and two are needed."
    page = page_of(make_run(tmp_path, rounds=[round_event(1, SILOS)], status="failed", error=why))
    assert "This run failed after 1 of 3 rounds." in page.text("strong")
    assert why in page.text("p")
    assert "banner bad" in page.classes("div")


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_run_without_a_round(tmp_path: Path, status: str) -> None:
    folder = make_run(tmp_path, rounds=[], status=status, model=None)
    (folder / "metrics.jsonl").unlink()
    page = page_of(folder)
    assert page.text("h1") == "No round was finished, so there is no model to judge."
    assert "after 0 of 30 rounds" in page.text("strong")


def test_run_that_was_never_evaluated(tmp_path: Path) -> None:
    rounds = [round_event(1, SILOS, evaluate=None, silos={})]
    assert page_of(make_run(tmp_path, rounds=rounds)).text("h1") == (
        "Federating five hospitals for one round: no round was evaluated."
    )


def test_who_took_part_and_who_failed(tmp_path: Path) -> None:
    late = {"silo": "hospital-5", "stage": "train", "code": "late", "words": "it did not reply in time"}
    nan = {"silo": "hospital-2", "stage": "evaluate", "code": "bad", "words": "its reply was not finite"}
    rounds = [round_event(number, SILOS, failed=[late], replied=SILOS[:4]) for number in (1, 2)]
    rounds.append(round_event(3, SILOS[:4], failed=[nan]))
    page = page_of(make_run(tmp_path, rounds=rounds))
    assert "hospital-5 failed in training, rounds 1–2: it did not reply in time." in page.text("li")  # noqa: RUF001
    assert "hospital-2 failed in evaluation, round 3: its reply was not finite." in page.text("li")
    cells = page.classes("g")
    assert [cells.count(kind) for kind in ("trained", "failed", "unscored", "idle")] == [11, 2, 1, 1]
    titles = page.texts["title"]
    assert "hospital-5, round 1: failed in train: it did not reply in time" in titles
    assert "hospital-5, round 3: not asked" in titles
    assert "12 good replies to 14 requests" in page.text("p")


def test_costs(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path))
    assert page.texts["dd"][:4] == [f"3.0{NBSP}kB", f"6.0{NBSP}kB", f"400{NBSP}B", f"160{NBSP}ms"]


def test_says_what_the_server_saw(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path))
    assert (
        "The server saw every hospital\N{RIGHT SINGLE QUOTATION MARK}s update of every round in the clear, on its own"
        in page.text("p")
    )
    settings = yaml.safe_load((tmp_path / "settings.yaml").read_text(encoding="utf-8"))
    settings["privacy"]["name"] = "record"
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    page = page_of(tmp_path)
    assert "in the clear" not in page.text("p")
    assert "claims nothing about it" in page.text("p")


def test_commands_survive_a_shell(tmp_path: Path) -> None:
    overrides = compose("task=breast_cancer task.model=mlp task.hidden=[16,8] training.lr=0.1").overrides
    run, flower, shown = page_of(make_run(tmp_path, overrides=overrides)).texts["pre"]
    assert shlex.split(run) == ["quire", "run", *overrides.split()]
    assert "'task.hidden=[16,8]'" in run  # a shell would take the brackets for a pattern
    assert shlex.split(flower)[:3] == ["flwr", "run", "."]
    assert shlex.split(flower)[3:5] == ["--federation-config", "num-supernodes=5"]  # Flower's own default is two
    assert shlex.split(flower)[5] == "--run-config"
    assert tomllib.loads(shlex.split(flower)[6]) == {"overrides": overrides}
    assert shown == overrides


def test_commands_survive_quotes(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    settings = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))
    settings["overrides"] = overrides = "output.name='a b'"
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    run, flower, _ = page_of(folder).texts["pre"]
    assert shlex.split(run) == ["quire", "run", overrides]
    assert tomllib.loads(shlex.split(flower)[6]) == {"overrides": overrides}


def test_hundred_silos_stay_small(tmp_path: Path) -> None:
    silos = [f"silo-{place}" for place in range(100)]
    rounds = [round_event(number, silos[number % 10 :: 10]) for number in range(1, 201)]
    compared = comparison(silos, 0.9, 0.92, [0.5 + 0.003 * place for place in range(100)])
    folder = make_run(tmp_path, silos, rounds, compared, overrides="task=synthetic")
    page = page_of(folder)
    assert (folder / "report.html").stat().st_size < 1_000_000
    assert "Who gained most, on its own rows" in page.text("h3")
    assert page.text("h1").startswith("Federating 100 silos reached 90.0 %")
    assert [tag for tag, _ in page.tags].count("tr") == 2 * (8 + 2) + 100 + 2 + 4  # the last: how evenly


def test_folder_that_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(QuireError, match=r"^There is no folder .*nowhere: name the folder of a run\.$"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(ReportError, match="is not the folder of a run"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["settings.yaml", "run.json", "comparison.json"])
def test_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    make_run(tmp_path)
    (tmp_path / name).write_text("{[", encoding="utf-8")
    with pytest.raises(ReportError, match=rf"{name} is damaged"):
        write_report(tmp_path)
