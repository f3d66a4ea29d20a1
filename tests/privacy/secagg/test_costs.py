"""The bytes that the page on secure aggregation promises are those that travel; its thresholds are the code's."""

import re
from pathlib import Path

import pytest
from secagg_network import Network, config

from quire.privacy.secagg.params import default_colluders, thresholds

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "secure-aggregation.md").read_text(encoding="utf-8")
STAGES = {
    "session": ("open", "agree", "ready"),
    "X1": ("start",),
    "X2": ("mask",),
    "X3": ("confirm",),
    "X4": ("unmask",),
}


def formula(text, n, t):
    """Work out a cell such as ``207 + 34 n + 148 (n - 1) (and the vector)``."""
    text = re.sub(r"\(and .*\)", "", text)
    text = text.replace("(n - 1)", f"* {n - 1}").replace(" n", f" * {n}").replace(" t", f" * {t}")
    return sum(eval_product(term) for term in text.split("+"))


def eval_product(term):
    product = 1
    for factor in term.split("*"):
        product *= int(factor)
    return product


@pytest.mark.parametrize("n", [4, 9])
def test_bytes_on_the_wire_are_those_of_the_page(n):
    network = Network(n, config(1000, 1, bits=24))
    seen = {}

    def watch(stage, way, index, data):
        if index == 2:
            seen[stage, way] = len(data)
        return data

    network.meddle = watch
    network.agree()
    network.aggregate(network.round())
    t = thresholds(n, 1).threshold
    rows = dict(re.findall(r"^\| (session|X\d) \| (.*) \|$", PAGE, flags=re.MULTILINE))
    assert set(rows) == set(STAGES)
    for name, cells in rows.items():
        sent, received = cells.split(" | ")
        assert sum(seen[stage, "up"] for stage in STAGES[name]) == formula(sent, n, t) + 3000 * (name == "X2")
        assert sum(seen[stage, "down"] for stage in STAGES[name]) == formula(received, n, t)


def test_thresholds_are_those_of_the_page():
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, flags=re.MULTILINE)
    assert len(rows) == 7
    for row in rows:
        n, c, t, least, dropouts = map(int, row)
        limits = thresholds(n, default_colluders(n))
        assert (c, t, least, dropouts) == (
            limits.colluders,
            limits.threshold,
            limits.min_survivors,
            limits.dropouts,
        )
