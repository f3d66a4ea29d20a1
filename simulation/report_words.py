"""What the report says in words: every sentence is computed from the run, also the unwelcome ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from quire.conf.asked import byzantine_in, groups_in
from quire.conf.schema import GROUPS
from quire.simulation.report_data import METRIC_NAMES, RunData, number
from quire.simulation.report_scores import Scores, everyone, personal
from quire.strategies import secure_words
from quire.strategies.secure_words import Masked

_SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NBSP = "\N{NO-BREAK SPACE}"
DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"


def count(n: int, noun: str) -> str:
    """Return ``five hospitals``, ``one hospital``, ``100 silos``."""
    return f"{_SMALL[n] if n < len(_SMALL) else n} {noun if n == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a regular English noun."""
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(s|x|z|ch|sh)$", noun) else "s")


def article(noun: str) -> str:
    """Return the noun with its indefinite article."""
    return f"{'an' if noun[:1].lower() in tuple('aeio') else 'a'} {noun}"


def percent(value: float | None) -> str:
    """Return a share as per cent with one decimal, a dash where it is unknown."""
    return DASH if value is None else f"{100 * value:.1f}{NBSP}%"


def points(value: float | None) -> str:
    """Return a difference of shares in percentage points, signed."""
    if value is None:
        return DASH
    text = f"{100 * value:+.1f}"
    return "±0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def size(value: float) -> str:
    """Return a number of bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f}{NBSP}{unit}" if unit == "B" else f"{value:.1f}{NBSP}{unit}"
        value /= 1000
    return f"{value:.1f}{NBSP}TB"


def duration(seconds: float | None) -> str:
    """Return a time span for reading."""
    if seconds is None:
        return DASH
    if seconds < 1:
        return f"{1000 * seconds:.0f}{NBSP}ms"
    if seconds < 100:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{NBSP}h {minutes}{NBSP}min" if hours else f"{minutes}{NBSP}min {rest}{NBSP}s"


def spans(rounds: Iterable[int]) -> str:
    """Return round numbers with neighbours joined: ``4, 7-9`` (with an en dash)."""
    groups: list[list[int]] = []
    for place in sorted(set(rounds)):
        if groups and place == groups[-1][-1] + 1:
            groups[-1].append(place)
        else:
            groups.append([place])
    return ", ".join(str(group[0]) if len(group) == 1 else f"{group[0]}{DASH}{group[-1]}" for group in groups)


def name(silo: str, limit: int = 40) -> str:
    """Return a silo's name for showing: one line, of bounded length."""
    text = "".join(char if char.isprintable() else "�" for char in silo)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def own_gains(data: RunData) -> dict[str, float]:
    """Return federated less alone on each silo's own test rows."""
    gains: dict[str, float] = {}
    for silo in data.silos:
        federated, alone = (
            number(data.scored("own", silo, way).get(data.metric or "accuracy")) for way in ("federated", "alone")
        )
        if federated is not None and alone is not None:
            gains[silo] = federated - alone
    return gains


@dataclass(frozen=True)
class Headline:
    """The answer at a glance: a sentence, a verdict with its tone (good, bad, level, open), remarks."""

    sentence: str
    verdict: str
    tone: str
    notes: tuple[str, ...] = ()


def headline(data: RunData) -> Headline:
    """Say what federating bought, as far as this run can tell."""
    who = count(len(data.silos), data.label)
    if not data.rounds:
        return Headline("No round was finished, so there is no model to judge.", "", "open")
    scores = everyone(data)
    if data.metric is None and data.closed and not data.simulated:
        return Headline(
            f"Federating {who} for {count(len(data.rounds), 'round')}: what it bought, only they can tell.",
            f"Under {'differential privacy' if data.private else 'secure aggregation'} a silo keeps its scores.",
            "open",
        )
    if data.metric is None:
        return Headline(f"Federating {who} for {count(len(data.rounds), 'round')}: no round was evaluated.", "", "open")
    metric = METRIC_NAMES[data.metric]
    if scores.federated is None or scores.gain is None or scores.mean_alone is None:
        rounds, values = data.curve(data.metric)
        last = values[-1] if scores.federated is None else scores.federated
        last_round = rounds[-1] if scores.federated is None else len(data.rounds)
        why = " (output.baselines=false)" if data.setting("output.baselines") is False else ""
        where = f"mean over those that scored, weighted by {data.kept} rows"
        if scores.federated is not None:
            where = f"one on all {plural(data.label)}{APOSTROPHE} test rows together"
            if personal(data):
                where = f"mean over {plural(data.label)}, each on its own rows, weighted by these"
        return Headline(
            f"Federating {who} reached {percent(last)} {metric} after {count(last_round, 'round')}.",
            f"What federating bought cannot be told from this run: the models to compare with, pooled and each "
            f"{data.label} alone, were not trained{why}.",
            "open",
            (f"The score is the {where}.",),
        )
    sentence = (
        f"Federating {who} reached {percent(scores.federated)} {metric}; {article(data.label)} alone reaches "
        f"{percent(scores.mean_alone)} on average"
    )
    if scores.pooled is not None:
        sentence += f"; pooling all records would reach {percent(scores.pooled)}"
    verdict, tone = _verdict(data, scores, scores.gain)
    return Headline(sentence + ".", verdict, tone, tuple(_notes(data, scores)))


def margin(data: RunData) -> float:
    """Smallest difference worth speaking of: half a point, or one test row if that is more."""
    return max(0.005, 1 / max(1.0, number(data.scored("rows").get("test")) or 1.0))


def _verdict(data: RunData, scores: Scores, gain: float) -> tuple[str, str]:
    least = margin(data)
    if gain <= -least:
        return f"Federating did not help: going alone is better by {points(-gain)[1:]} points on average.", "bad"
    if gain < least:
        return f"Federating made no difference to speak of: {points(gain)} points over going alone.", "level"
    text = f"Federating bought {points(gain)} points over going alone"
    if scores.pooled is not None and scores.mean_alone is not None and scores.pooled - scores.mean_alone >= least:
        share = gain / (scores.pooled - scores.mean_alone)
        text += f", {100 * share:.0f}{NBSP}%" if share < 0.995 else ", all"
        text += " of what pooling would have bought"
    own = fmean(own_gains(data).values() or [0.0])
    if own <= -least:
        # A model for everyone may serve each one's own, lopsided rows worse than a model made for these.
        loss = points(-own)[1:]
        return f"{text}. But on its own test rows {article(data.label)} loses {loss} points on average.", "level"
    return f"{text}, and no record left its {data.label}.", "good"


def _notes(data: RunData, scores: Scores) -> Iterable[str]:
    gains = own_gains(data)
    if gains:
        # Half a tenth of a point is what the page shows as no difference.
        up = sum(gain > 0.0005 for gain in gains.values())
        down = sum(gain < -0.0005 for gain in gains.values())
        yield (
            f"On its own test rows the federated model serves {up} of {len(gains)} {plural(data.label)} better than "
            f"their own model does, {down} worse ({points(fmean(gains.values()))} points on average)."
        )
    federated = scores.federated or 0.0
    better = {silo: value for silo, value in scores.alone.items() if value > federated and not personal(data)}
    if better:
        best = max(better, key=lambda silo: better[silo])
        others = f" and {count(len(better) - 1, 'other')}" if len(better) > 1 else ""
        where = f"on everyone{APOSTROPHE}s test rows"
        yield f"{name(best)}{others} would have done better alone: {percent(better[best])} {where}."
    if scores.majority is not None and federated - scores.majority < margin(data):
        guess = "mean" if data.metric == "r2" else "most frequent class"
        yield f"Always guessing the {guess} reaches {percent(scores.majority)}: the model learned little."
    rows = number(data.scored("rows").get("test"))
    if rows and rows < 1000:
        yield (
            f"Measured on {rows:.0f} test rows: one row is about {100 / rows:.1f} points, so small differences are "
            "chance."
        )


def failures(data: RunData) -> list[dict[str, str]]:
    """Say who failed, where and why: one entry for each silo, stage and reason."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for event in data.rounds:
        for failure in event.get("failed", ()):
            words = str(failure.get("words") or failure.get("code") or "no reason was recorded")
            key = (str(failure.get("silo")), str(failure.get("stage", "train")), words)
            found.setdefault(key, []).append(event["round"])
    roster = {silo: place for place, silo in enumerate(data.silos)}
    rows = sorted(found.items(), key=lambda item: (-len(item[1]), roster[item[0][0]]))
    stages = {"train": "training", "evaluate": "evaluation"}
    return [
        {
            "silo": name(silo),
            "stage": stages.get(stage, stage),
            "words": words,
            "rounds": spans(at),
            "times": str(len(at)),
        }
        for (silo, stage, words), at in rows
    ]


def server_saw(data: RunData) -> Sequence[str]:
    """Say plainly what the server could see."""
    privacy, aggregation = (str(data.setting(f"{group}.name", "?")) for group in ("privacy", "aggregation"))
    silos = plural(data.label)
    seen = getattr(GROUPS["aggregation"].get(aggregation), "seen", None)
    if privacy == "none" and seen == "plain":
        return (
            f"The server saw every {data.label}{APOSTROPHE}s update of every round in the clear, on its own, and with "
            "it the number of rows, the loss and the scores.",
            "No record travelled. But an update is not anonymous: whoever holds it can test whether a record was "
            "among the training rows, and can at times rebuild records from it. This run put no limit on that: "
            "no noise, no secure aggregation, no ε.",
            f"Take this run as what it is: a measure of what the {silos} could learn together, among parties who "
            "trust the server.",
        )
    if privacy == "none" and seen == "secure":
        return _saw_sums(data)
    if data.card is not None:
        found: list[str] = [*data.card["words"]["sees"], *data.card["words"]["trusted"]]
        if data.simulated:
            found.append("Losses, scores and norms are on this page because the silos were simulated.")
        return found
    return (
        f"privacy={privacy} and aggregation={aggregation}: this page has no words of its own for that choice, and "
        "claims nothing about it. What was set is under Settings.",
    )


def _saw_sums(data: RunData) -> list[str]:
    """Say what there is to see under masks, without differential privacy."""
    known = [event["secure"] for event in data.rounds if event.get("secure")]
    if not known:
        return ["No round was finished, so that no sum was opened."]
    members, colluders, least = (
        int(number(value) or 0)
        for value in (known[-1].get("members"), known[-1].get("colluders"), data.setting("strategy.min_silos"))
    )
    masked = Masked(
        members or len(data.silos),
        colluders,
        least,
        chained=known[-1].get("chain") is True,
        clear=data.exact,
        groups=groups_in(data.settings),
        byzantine=byzantine_in(data.settings),
        normalized=data.setting("strategy.name") == "fednova",
    )
    code = (
        "Silos run code that the server sends. Where no gate at a silo held it against what its operator approved, "
        "which this page cannot tell, only a server that is honest but curious is covered."
    )
    saw = " ".join(secure_words.sees(masked))
    text = [saw, f"Trusted. {' '.join(secure_words.trusted(masked))} {code}"]
    text.append("Not protected. " + " ".join(secure_words.not_protected(masked)))
    if data.simulated:
        text.append("Scores are on this page because the silos were simulated: real ones keep them.")
    return text


def banner(data: RunData) -> dict[str, Any] | None:
    """Say how a run ended that did not complete."""
    done = f"{len(data.rounds)} of {data.planned} rounds"
    texts = {
        "failed": ("bad", f"This run failed after {done}."),
        "interrupted": ("level", f"This run was stopped after {done}."),
        "running": ("level", f"This run has not recorded its end: {done} so far. It is still going, or it was killed."),
    }
    if data.status == "completed":
        return None
    tone, text = texts.get(data.status, ("level", f"This run ended as “{name(data.status)}” after {done}."))
    return {"tone": tone, "text": text, "error": data.run.get("error")}
