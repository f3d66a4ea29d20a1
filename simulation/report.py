"""The page that a run ends with: what federating bought, at a glance, in one file that needs nothing else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from quire.conf.overrides import parse
from quire.errors import SettingsError
from quire.simulation import (
    fairness_section,
    figures,
    participation,
    plain_words,
    poisoning_section,
    privacy_section,
    secure_section,
)
from quire.simulation import report_words as words
from quire.simulation.page import render, write_page
from quire.simulation.report_data import METRIC_NAMES, ReportError, RunData, number, read_run
from quire.simulation.report_scores import everyone, personal
from quire.strategies import enclaves

__all__ = ["ReportError", "write_report"]

_EXTREMES = 8
_MOST_ROWS = 300
_MOST_FAILURES = 60


def write_report(folder: Path) -> Path:
    """Write ``report.html`` into the folder of a run.

    The same folder gives the same page, byte for byte. The page is replaced at once or not at all.

    Parameters
    ----------
    folder : Path
        The folder that a run wrote; the run may have failed, or still be going.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ReportError
        If the folder is not a run, a file in it is damaged, or the page cannot be written.
    """
    folder = Path(folder)
    return write_page(folder / "report.html", render("report.html.j2", _context(read_run(folder))))


def _context(data: RunData) -> dict[str, Any]:
    failed = words.failures(data)
    rows = _silo_rows(data) if data.simulated or not data.closed else []  # else there is no more than card or sum tell
    ranked = sorted((row for row in rows if row["own_gain"] is not None), key=lambda row: -row["own_gain"])
    return {
        "kept": data.kept,
        "compared": data.comparison is not None,
        "title": f"{data.setting('task.name', 'run')}: what did federating buy?",
        "kicker": _kicker(data),
        "headline": words.headline(data),
        "banner": poisoning_section.banner(data, words.banner(data)),
        "enclaves": _enclaves(data),
        "label": data.label,
        "labels": words.plural(data.label),
        "metric": METRIC_NAMES.get(data.metric or "", "score"),
        "tiles": _tiles(data),
        "test_rows": _whole(data.scored("rows").get("test")),
        "scores": everyone(data),
        "personal": personal(data),
        "cost": plain_words.cost(data),
        "models": _models(data),
        "plain_name": plain_words.in_clear(data),
        "comparison": figures.comparison(data),
        "many": len(data.silos) > figures.MANY,
        "rows": rows[:_MOST_ROWS],
        "rows_left_out": max(0, len(rows) - _MOST_ROWS),
        "best": ranked[:_EXTREMES],
        "worst": ranked[-_EXTREMES:],
        "even": fairness_section.section(data),
        "classes": _classes(data),
        "curves": figures.curves(data),
        "grid": participation.grid(data) if data.rounds and data.silos else None,
        "grid_left_out": participation.left_out(data),
        "failures": failed[:_MOST_FAILURES],
        "failures_left_out": max(0, len(failed) - _MOST_FAILURES),
        "costs": figures.costs(data),
        "totals": _totals(data),
        "saw": words.server_saw(data),
        "privacy": privacy_section.section(data),
        "secure": secure_section.section(data),
        "poisoning": poisoning_section.section(data),
        "only": privacy_section.SIMULATOR_ONLY if data.closed else "",
        "settings": _settings(data),
        "facts": _facts(data),
        "overrides": str(data.settings.get("overrides") or ""),
        "commands": _commands(str(data.settings.get("overrides") or ""), data.settings.get("partition")),
    }


def _enclaves(data: RunData) -> dict[str, Any]:
    """Return what there is to say of the enclaves of silos, and apart from it what has to be said loudly."""
    try:
        found = enclaves.read(data.folder)
    except enclaves.EnclavesError as error:
        raise ReportError(str(error)) from error
    loud = enclaves.banner(found)
    return {"banner": loud, "words": [text for text in enclaves.sentences(found) if text != loud]}


def _kicker(data: RunData) -> list[str]:
    strategy = str(data.setting("strategy.name", ""))
    model = data.setting("task.model")
    return [
        text
        for text in (
            str(data.setting("task.name", "")),
            f"{model} model" if model else "",
            {"fedavg": "FedAvg", "fedprox": "FedProx"}.get(strategy, strategy),
            f"{len(data.silos)} {words.plural(data.label)}",
            f"{len(data.rounds)} rounds",
            "no secure aggregation: exact_sum" if data.exact else "",
        )
        if text
    ]


def _tiles(data: RunData) -> list[dict[str, Any]]:
    """The ways to train, as large figures with a bar each; only where there is something to compare."""
    scores = everyone(data)
    if scores.federated is None or scores.mean_alone is None:
        return []
    low, high = min(scores.alone.values()), max(scores.alone.values())
    spread = f"; from {words.percent(low)} to {words.percent(high)}" if len(scores.alone) > 1 else ""
    alone = words.article(data.label).capitalize() + " alone"
    tiles = [
        {"kind": "alone", "name": alone, "value": scores.mean_alone, "note": f"on average{spread}"},
        {"kind": "fed", "name": "Federated", "value": scores.federated, "note": "records stay where they are"},
    ]
    if scores.plain is not None and (way := plain_words.reference(data)):
        tiles[-1] |= {"name": plain_words.this_run(data)}
        tiles.append(
            {
                "kind": "plain",
                "name": plain_words.in_clear(data),
                "value": scores.plain,
                "note": plain_words.how(data, way),
            }
        )
    if scores.pooled is not None:
        tiles.append(
            {
                "kind": "pooled",
                "name": "Pooled",
                "value": scores.pooled,
                "note": "all records in one place: the yardstick",
            }
        )
    return tiles


def _models(data: RunData) -> dict[str, Any] | None:
    """Every model's scores, and how to train the federations in clear; only beside a run that is not one."""
    found = plain_words.table(data)
    if found is None:
        return None
    return found | {"commands": [(about, _run(overrides)) for about, overrides in found["overrides"]]}


def _silo_rows(data: RunData) -> list[dict[str, Any]]:
    """One row of the table for each silo; unknown cells are None."""
    metric = data.metric or "accuracy"
    rows = []
    federated = number(data.scored("everyone", "federated").get(metric))
    for silo in data.silos:
        facts = data.scored("silos", silo)
        seen: dict[str, Any] = {}  # the latest that each round knew of it
        for event in data.rounds:
            seen.update(event.get("silos", {}).get(silo, {}))
        own = {way: number(data.scored("own", silo, way).get(metric)) for way in ("federated", "pooled", "alone")}
        if own["federated"] is None and data.comparison is None:
            own["federated"] = number(seen.get(metric))
        alone = number(data.scored("everyone", "alone", silo).get(metric))
        rows.append(
            {
                "silo": silo,
                "train": _whole(facts.get("train", seen.get("rows", seen.get("records")))),
                "test": _whole(facts.get("test", seen.get("test_rows"))),
                "labels": _label_mix(facts.get("labels"), _classes(data)),
                "all_alone": alone,
                "all_gain": None if alone is None or federated is None or personal(data) else federated - alone,
                "own": own,
                "own_gain": None
                if own["alone"] is None or own["federated"] is None
                else own["federated"] - own["alone"],
            }
        )
    return rows


def _whole(value: Any) -> int | None:
    known = number(value)
    return None if known is None else int(known)


def _classes(data: RunData) -> list[str]:
    found = {str(label) for facts in data.scored("silos").values() for label in (facts or {}).get("labels", {})}
    return sorted(found, key=lambda label: (not label.isdigit(), int(label) if label.isdigit() else 0, label))


def _label_mix(labels: Any, classes: list[str]) -> list[dict[str, Any]]:
    if not isinstance(labels, dict):
        return []
    counted = [(place, label, number(labels.get(label)) or 0.0) for place, label in enumerate(classes)]
    total = sum(rows for _, _, rows in counted) or 1.0
    return [
        {"place": place % 10, "label": label, "rows": int(rows), "share": f"{100 * rows / total:.2f}"}
        for place, label, rows in counted
        if rows > 0
    ]


def _totals(data: RunData) -> dict[str, Any]:
    replies = sum(len(event.get("replied", ())) for event in data.rounds)
    asked = sum(len(event.get("cohort", ())) for event in data.rounds)
    parts = {part: sum(data.series("seconds", part)) for part in ("train", "evaluate", "aggregate")}
    return {
        "down": sum(data.series("bytes_down")),
        "up": sum(data.series("bytes_up")),
        "per_reply": sum(data.series("bytes_up")) / replies if replies else None,
        "whole": 4 * int(number(data.start.get("parameters")) or 0) if data.compressed else None,  # float32
        "replies": replies,
        "asked": asked,
        "seconds": parts,
        "per_round": sum(parts.values()) / len(data.rounds) if data.rounds else None,
        "all": data.seconds,
    }


def _settings(data: RunData) -> list[dict[str, Any]]:
    """The settings by group; what the overrides chose is marked."""
    chosen = {item.split("=", 1)[0] for item in _items(str(data.settings.get("overrides") or ""))}
    groups = []
    for group, content in data.settings.items():
        if group == "overrides":
            continue
        fields = content if isinstance(content, dict) else {group: content}
        marks = {f"{group}.name": group in chosen}
        groups.append(
            {
                "name": group,
                "fields": [
                    {
                        "key": key,
                        "value": "none"
                        if value in ([], None)
                        else str(value).lower()
                        if value is True or value is False
                        else value,
                        "chosen": marks.get(f"{group}.{key}", False)
                        or f"{group}.{key}" in chosen
                        or key == group in chosen,
                    }
                    for key, value in fields.items()
                ],
            }
        )
    return groups


def _facts(data: RunData) -> list[tuple[str, str]]:
    last = data.rounds[-1].get("model") if data.rounds else None
    versions = data.run.get("versions")
    facts = [
        ("Model (SHA-256)", data.run.get("model") or last),
        ("Code (SHA-256)", data.run.get("code")),
        ("Parameters", data.start.get("parameters")),
        ("Runtime", data.run.get("runtime")),
        ("Device", held.get("device") if isinstance(held := data.run.get("held_to"), dict) else None),
        ("Seed", data.settings.get("seed")),
        ("Started", data.run.get("started")),
        ("Finished", data.run.get("finished")),
        (
            "Versions",
            ", ".join(f"{part} {version}" for part, version in versions.items())
            if isinstance(versions, dict)
            else None,
        ),
    ]
    return [(key, str(value)) for key, value in facts if value is not None]


def _items(overrides: str) -> list[str]:
    try:
        return [str(item) for item in parse(overrides)]
    except SettingsError:  # a run of another version of Quire: show what it says
        return overrides.split()


def _commands(overrides: str, partition: Any) -> list[tuple[str, str]]:
    """The two commands that repeat the run, quoted for a POSIX shell; within it Flower reads TOML."""
    toml = overrides.replace("\\", "\\\\").replace('"', '\\"')
    flower = "flwr run ."
    if isinstance(partition, dict) and "silos" in partition:
        flower += f" --federation-config 'num-supernodes={partition['silos']}'"
    if overrides:
        flower += " --run-config " + _single_quoted('overrides="' + toml + '"')
    return [("On this machine", _run(overrides)), ("Through Flower", flower)]


def _run(overrides: str) -> str:
    return " ".join(["quire run", *(shlex.quote(item) for item in _items(overrides))])


def _single_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"
