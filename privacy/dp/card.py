"""The arithmetic of the privacy card: from per-silo statements to epsilons, and back again to check them.

A *statement* is what a silo makes public about its part of a run: no private number is in it. A card is the
statements together with every figure that follows from them. :func:`discrepancies` derives the figures anew and says
where a card differs; who signed it is not decided here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from quire.privacy.dp import accounting
from quire.privacy.dp.contract import Contract, PrivacyError, Relation, Unit, Weights
from quire.privacy.dp.events import (
    KINDS,
    DiscreteGaussian,
    Event,
    Gaussian,
    Geometric,
    NonPrivate,
    SampledDiscreteGaussian,
    SampledGaussian,
    from_json,
)
from quire.privacy.dp.spending import Spending

FORMAT = "quire-privacy-card-1"

STATEMENT = (
    "silo",  # its name in the roster
    "unit",  # "record" or "silo"
    "relation",  # "add_remove" or "zero_out"
    "weights",  # "uniform" or "capped"
    "clip",
    "mechanism",  # the kind of the events
    "noise_multiplier",  # 0.0 without noise
    "sampling_rate",
    "steps",  # noisy releases, all events together
    "records",  # the declared public number; null for the silo unit
    "delta",
    "epsilon",  # the target that the run was set up for, or "inf"
    "events",
)
"""The fields of a statement: all of them, and no other."""

DELTAS = (1e-4, 1e-5, 1e-6, 1e-7)
"""Beside a statement's own delta, epsilon is told at these (record unit: at those below 1/records)."""

_TOLERANCE = {"rdp": 1e-9, "pld": 1e-4}  # relative; PLD composes by Fourier transforms, which differ by machine


class CardError(PrivacyError):
    """A statement that cannot be read."""


def figures(statement: Mapping[str, Any]) -> dict[str, Any]:
    """Derive what follows from one statement.

    Parameters
    ----------
    statement : mapping
        With the fields of :data:`STATEMENT`.

    Returns
    -------
    dict
        ``sensitivity`` (of the sum), ``noise`` (standard deviation on the sum), ``rdp`` and ``pld`` (epsilon at the
        statement's delta; "inf" for infinity), and ``at``: a list of ``{"delta", "rdp", "pld"}``.

    Raises
    ------
    CardError, EventError, PrivacyError
        If the statement, or an event in it, is malformed.
    """
    _check_fields(statement)
    contract = _contract(statement)
    events = _events(statement)
    delta = _number(statement, "delta")
    records = statement["records"]
    accounting.check_delta(delta, records if contract.unit is Unit.RECORD else None)
    deltas = sorted({delta, *(d for d in DELTAS if contract.unit is Unit.SILO or d * records < 1)}, reverse=True)
    spent = Spending.of(*events)
    at = [
        {"delta": d, "rdp": _shown(spent.epsilon(d)), "pld": _shown(accounting.tight_epsilon(events, d))}
        for d in deltas
    ]
    own = next(row for row in at if row["delta"] == delta)
    return {
        "sensitivity": contract.sensitivity,
        "noise": contract.noise(_number(statement, "noise_multiplier")),
        "rdp": own["rdp"],
        "pld": own["pld"],
        "at": at,
    }


def card(statements: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the card of a run: statements with their figures, and the worst silo's epsilon.

    Silos hold disjoint records, so the run promises every record what its own silo promises: the largest epsilon, not
    the sum (parallel composition).

    Raises
    ------
    CardError, EventError, PrivacyError
        If a statement is malformed or two silos share a name.
    """
    silos = []
    for statement in statements:
        found = conflicts(statement)
        if found:
            raise CardError(found[0])
        silos.append({"statement": dict(statement), "figures": figures(statement)})
    names = [silo["statement"]["silo"] for silo in silos]
    if not silos or len(set(names)) != len(names):
        raise CardError("A privacy card needs at least one silo, and every silo once.")
    return {"format": FORMAT, "silos": silos, "worst": _worst(silos)}


def conflicts(statement: Mapping[str, Any]) -> list[str]:
    """Say where a statement contradicts itself: its summary against its events, its epsilon against its target.

    Returns
    -------
    list of str
        One sentence each; empty if there is none.
    """
    try:
        _check_fields(statement)
        _contract(statement)
        events = _events(statement)
        spent = Spending.of(*events).epsilon(_number(statement, "delta"))
        target = _target(statement)
    except (PrivacyError, OverflowError) as error:
        return [f"{_name(statement)}: {error}"]
    problems = []
    for event in events:
        kind, noise, rate = _summary(event)
        for field, value in (("mechanism", kind), ("noise_multiplier", noise), ("sampling_rate", rate)):
            if statement[field] != value:
                problems.append(f"the statement says {field} {statement[field]!r}, an event says {value!r}")
        if statement["unit"] == Unit.SILO and isinstance(event, SampledGaussian | SampledDiscreteGaussian):
            problems.append("the silo unit is accounted with amplification by sampling, and there is none")
    steps = sum(_count(event) for event in events)
    if statement["steps"] != steps:
        problems.append(f"the statement says {statement['steps']!r} steps, the events say {steps}")
    if spent > target:
        problems.append(f"epsilon is {spent:.6g} by the events and {target:g} was promised")
    return [f"{_name(statement)}: {problem}." for problem in problems]


def discrepancies(claimed: Mapping[str, Any]) -> list[str]:
    """Derive a card anew from its statements, and compare.

    Parameters
    ----------
    claimed : mapping
        A card as :func:`card` returns it, or anything that was read from a file in its place.

    Returns
    -------
    list of str
        Every difference in one sentence; empty if the card is what its events say.
    """
    if not isinstance(claimed, Mapping) or claimed.get("format") != FORMAT:
        return [f"The card is not of the format {FORMAT}."]
    problems = []
    if set(claimed) != {"format", "silos", "worst"}:
        problems.append("The card has missing or unknown fields.")
    silos = claimed.get("silos")
    if not isinstance(silos, list) or not silos:
        return [*problems, "The card lists no silos."]
    anew = []
    for silo in silos:
        if not isinstance(silo, Mapping) or set(silo) != {"statement", "figures"}:
            problems.append("An entry of the card is not a statement with its figures.")
            continue
        statement = silo["statement"]
        found = conflicts(statement)
        problems += found
        try:
            derived = figures(statement)
        except (PrivacyError, OverflowError) as error:
            problems += [] if found else [f"{_name(statement)}: {error}"]
            continue
        anew.append({"statement": statement, "figures": derived})
        problems += [f"{_name(statement)}: {text}." for text in differences(silo["figures"], derived, "figures")]
    names = [silo["statement"]["silo"] for silo in anew]
    if len(set(names)) != len(names):
        problems.append("The card lists a silo twice.")
    if len(anew) == len(silos):
        problems += [f"The card: {text}." for text in differences(claimed.get("worst"), _worst(anew), "worst")]
    return problems


def _worst(silos: list[dict[str, Any]]) -> dict[str, Any]:
    worst = max(silos, key=lambda silo: float(silo["figures"]["rdp"]))
    return {
        "silo": worst["statement"]["silo"],
        "delta": worst["statement"]["delta"],
        **{key: worst["figures"][key] for key in ("rdp", "pld")},
    }


def differences(claimed: object, derived: object, where: str) -> list[str]:
    """Compare two JSON values; numbers below ``rdp`` and ``pld`` within what floating point allows.

    Parameters
    ----------
    claimed, derived : object
        What was read, and what comes out.
    where : str
        The place of both, which the sentences begin with.

    Returns
    -------
    list of str
        One clause for every difference.
    """
    if isinstance(derived, dict):
        if not isinstance(claimed, Mapping) or set(claimed) != set(derived):
            return [f"{where} has missing or unknown fields"]
        return [text for key in derived for text in differences(claimed[key], derived[key], f"{where}.{key}")]
    if isinstance(derived, list):
        if not isinstance(claimed, list) or len(claimed) != len(derived):
            return [f"{where} does not have {len(derived)} entries"]
        pairs = enumerate(zip(claimed, derived, strict=True))
        return [text for index, (one, other) in pairs for text in differences(one, other, f"{where}[{index}]")]
    tolerance = _TOLERANCE.get(where.rpartition(".")[2], 1e-12)
    if isinstance(derived, float) and isinstance(claimed, int | float) and not isinstance(claimed, bool):
        same = math.isclose(claimed, derived, rel_tol=tolerance, abs_tol=tolerance)
    else:
        same = type(claimed) is type(derived) and claimed == derived
    return [] if same else [f"{where} is given as {claimed!r} and comes out as {derived!r}"]


def _check_fields(statement: Mapping[str, Any]) -> None:
    if not isinstance(statement, Mapping):
        raise CardError(f"A statement is an object, not {type(statement).__name__}.")
    wrong = sorted(map(str, set(statement) ^ set(STATEMENT)))
    if wrong:
        raise CardError(f"The statement has missing or unknown fields: {', '.join(wrong)}.")
    if not isinstance(statement["silo"], str) or not statement["silo"]:
        raise CardError("A statement names its silo.")
    if statement["mechanism"] not in KINDS:
        raise CardError(f"The mechanism {statement['mechanism']!r} is not known.")


def _contract(statement: Mapping[str, Any]) -> Contract:
    try:
        unit, relation, weights = (
            Unit(statement["unit"]),
            Relation(statement["relation"]),
            Weights(statement["weights"]),
        )
    except ValueError as error:
        raise CardError(f"The statement is not understood: {error}.") from error
    records = statement["records"]
    whole = isinstance(records, int) and not isinstance(records, bool) and records >= 1
    if not (whole if unit is Unit.RECORD else whole or records is None):
        raise CardError(f"The declared number of records is {records!r}, and the unit is the {unit}.")
    return Contract(unit, relation, _number(statement, "clip"), weights)


def _events(statement: Mapping[str, Any]) -> list[Event]:
    if not isinstance(statement["events"], list) or not statement["events"]:
        raise CardError("A statement lists at least one event: what left nothing behind needs no card.")
    events = [from_json(event) for event in statement["events"]]
    if any(isinstance(event, Geometric) for event in events):
        raise CardError("A statement is about training: a noisy count stands in the silo's ledger, and on no card.")
    return events


def _number(statement: Mapping[str, Any], field: str) -> float:
    value = statement[field]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CardError(f"The statement's {field} is no finite number: {value!r}.")
    return float(value)


def _target(statement: Mapping[str, Any]) -> float:
    return math.inf if statement["epsilon"] == "inf" else _number(statement, "epsilon")


def _name(statement: object) -> str:
    silo = statement.get("silo") if isinstance(statement, Mapping) else None
    return silo if isinstance(silo, str) and silo else "A silo without a name"


def _summary(event: Event) -> tuple[str, float, float]:
    """Return the kind, the noise multiplier and the sampling rate of an event."""
    kind = next(name for name, known in KINDS.items() if type(event) is known)
    noise = 0.0 if isinstance(event, NonPrivate) else event.noise_multiplier
    return kind, noise, event.sampling_rate if isinstance(event, SampledGaussian | SampledDiscreteGaussian) else 1.0


def _count(event: Event) -> int:
    if isinstance(event, NonPrivate):
        return 0
    return event.count if isinstance(event, Gaussian | DiscreteGaussian | Geometric) else event.steps


def _shown(value: float) -> float | str:
    return "inf" if value == math.inf else value
