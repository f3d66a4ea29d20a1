"""Read the operator's part of ``silo.yaml``: strictly, every mistake one sentence with file, line and column.

::

    population: {name: heart-2020, records: 303}
    store: store
    witness: /another/disk/witness.json
    identity: silo.key
    roster: {file: roster.json, hash: 5f0c...}
    charter: {file: charter, hash: 91ab..., residency: eu}
    dataset: {sensitivity: restricted, residency: [eu]}  # see quire.clients.data.rules.labels
    policy:
      modes: [record]
      aggregation: [plain]
      code: []
      epsilon: 4.0
      delta: 1.0e-5
      period_days: 365
      min_cohort: 4
      colluders: 1
      noise: [discrete]
      min_noise: 0.5
      max_clip: 1.0
      max_rounds: 100
      max_rounds_per_day: 200
      trusts_server: false
      test_seed: false
      rehearsal: false
      approval: false
      log: optional
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from quire.clients.data.rules.labels import Dataset, read_dataset
from quire.clients.policy.model import (
    NONE,
    OPTIONAL,
    REQUIRED,
    SHIPPED,
    CharterPin,
    Operator,
    Policy,
    Population,
    RosterPin,
)
from quire.conf.asked import MOST_GROUPS
from quire.conf.schema import GROUPS, SEEN
from quire.conf.strict_yaml import Entry
from quire.privacy.dp.lattice import MAX_EPSILON, NoiseKind

#: Keys of ``silo.yaml`` that are the operator's, beside those that say where the rows are.
OPERATOR_KEYS = ("population", "store", "witness", "identity", "roster", "charter", "policy", "dataset")

MAX_RECORDS = 1_000_000_000_000
MAX_ROUNDS = 1_000_000
MAX_SILOS = 100_000
MAX_DAYS = 36_500

_REQUIRED = ("modes", "aggregation", "code")
_OPTIONAL = (
    *("epsilon", "delta", "period_days", "min_cohort", "colluders", "noise", "min_noise", "max_clip"),
    *("max_rounds", "max_rounds_per_day", "trusts_server", "test_seed", "rehearsal", "approval", "log"),
    "groups",
)
# Meaningless without privacy: a cap that nothing could hold would only look like one.
_BUDGET = ("epsilon", "delta", "period_days")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEFAULTS: dict[str, Any] = {item.name: item.default for item in fields(Policy)}


def read_operator(found: Mapping[str, Entry], file: Path) -> Operator:
    """Read the operator's keys.

    Parameters
    ----------
    found : mapping of str to Entry
        The entries at the top of the file.
    file : pathlib.Path
        The file; paths in it are relative to where it lies.

    Raises
    ------
    DataError
        If one of them says something that it cannot say.
    """
    population = _population(found["population"]) if "population" in found else None
    if "policy" in found and population is None:
        found["policy"].fail("a 'policy' needs 'population: {name: NAME, records: NUMBER}' beside it, to keep books by")
    if "charter" in found and "policy" not in found:
        found["charter"].fail("a 'charter' needs a 'policy' beside it: the stricter of the two holds")
    if "dataset" in found and "policy" not in found:
        found["dataset"].fail("a 'dataset' needs a 'policy' beside it: without one nothing is held against its labels")
    policy = _policy(found, population, file) if "policy" in found and population is not None else None
    store = file.parent / (found["store"].text() if "store" in found else "store")
    return Operator(
        population=population,
        store=store,
        witness=_witness(found["witness"], store, file) if "witness" in found else None,
        identity=file.parent / (found["identity"].text() if "identity" in found else "silo.key"),
        roster=_roster(found["roster"], file) if "roster" in found else None,
        policy=policy,
        charter=_charter(found["charter"], file) if "charter" in found else None,
        dataset=_dataset(found, policy) if "dataset" in found else None,
    )


def _dataset(found: Mapping[str, Entry], policy: Policy | None) -> Dataset:
    dataset = read_dataset(found["dataset"], found)
    if policy is not None and policy.seeded and dataset.needs_noise:
        found["dataset"].fail(
            f"a {dataset.sensitivity} data set needs noise that nobody can foretell, and 'test_seed' lets a server "
            "foretell it: leave that out"
        )
    return dataset


def _population(entry: Entry) -> Population:
    found = entry.mapping(["name", "records"])
    name = found["name"].text()
    if not _NAME.fullmatch(name):
        found["name"].fail(
            "a population's 'name' must be at most 64 lower-case letters, digits, dots, dashes and underscores"
        )
    return Population(name, found["records"].whole(1, MAX_RECORDS))


def _witness(entry: Entry, store: Path, file: Path) -> Path:
    witness = file.parent / entry.text()
    # By the text of the paths: the store need not exist yet, and reading a file of settings touches nothing else.
    if Path(os.path.normpath(witness)).is_relative_to(os.path.normpath(store)):
        entry.fail("'witness' must lie outside the store, best on another machine's disk: put back with it, it tells")
    return witness


def _roster(entry: Entry, file: Path) -> RosterPin:
    found = entry.mapping(["file", "hash"])
    return RosterPin(file.parent / found["file"].text(), _sha256(found["hash"]))


def _charter(entry: Entry, file: Path) -> CharterPin:
    found = entry.mapping(["file", "hash"], ["residency"])
    residency = found["residency"].text() if "residency" in found else None
    return CharterPin(file.parent / found["file"].text(), _sha256(found["hash"]), residency)


def _sha256(entry: Entry) -> str:
    value = entry.scalar()
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        entry.fail(f"{_name(entry)} must be a SHA-256: 64 digits 0-9 and letters a-f, in quotes")
    return value


def _policy(top: Mapping[str, Entry], population: Population, file: Path) -> Policy:
    entry = top["policy"]
    found = entry.mapping(_REQUIRED, _OPTIONAL)
    modes = _options(found["modes"], "privacy")
    if NONE in modes and len(modes) > 1:
        found["modes"].fail("'none' stands alone: a run without privacy spends without limit, and no cap could hold")
    min_cohort = _whole(found, "min_cohort", 2, MAX_SILOS)
    colluders = _whole(found, "colluders", 0, MAX_SILOS)
    if min_cohort - colluders < 2:
        (found.get("min_cohort") or found.get("colluders") or entry).fail(
            f"min_cohort={min_cohort} less colluders={colluders} leaves fewer than two honest silos: raise min_cohort "
            "or lower colluders"
        )
    test_seed, shipped = _truth(found, "test_seed"), _ships(top["data"]) if "data" in top else False
    epsilon, delta = _budget(entry, found, modes, population, foretold=test_seed and not shipped)
    return Policy(
        modes=modes,
        aggregation=_listed(found["aggregation"], "what the server may see", SEEN),
        code=frozenset(_sha256(item) for item in found["code"].items()),
        population=population,
        epsilon=epsilon,
        delta=delta,
        period_days=found["period_days"].whole(1, MAX_DAYS) if "period_days" in found else None,
        min_cohort=min_cohort,
        colluders=colluders,
        noise=_noise(found["noise"]) if "noise" in found else frozenset(_DEFAULTS["noise"]),
        min_noise=_at_least_zero(found, "min_noise"),
        max_clip=_above_zero(found["max_clip"]) if "max_clip" in found else float(_DEFAULTS["max_clip"]),
        max_rounds=_whole(found, "max_rounds", 1, MAX_ROUNDS),
        max_rounds_per_day=_whole(found, "max_rounds_per_day", 1, MAX_ROUNDS),
        trusts_server=_truth(found, "trusts_server"),
        test_seed=test_seed,
        rehearsal=_truth(found, "rehearsal"),
        approval=_truth(found, "approval"),
        log=_log(found["log"]) if "log" in found else OPTIONAL,
        groups=found["groups"].whole(3, MOST_GROUPS) if "groups" in found else None,
        shipped=shipped,
        file=file,
        lines=tuple((key, item.node.start_mark.line + 1) for key, item in found.items()),
    )


def _options(entry: Entry, group: str) -> frozenset[str]:
    return _listed(entry, f"the options of {group}", tuple(GROUPS[group]))


def _log(entry: Entry) -> str:
    value = entry.scalar()
    if not isinstance(value, str) or not (value in (OPTIONAL, REQUIRED) or _SHA256.fullmatch(value)):
        entry.fail(
            f"'log' must be {OPTIONAL}, {REQUIRED}, or in quotes the fingerprint of the log's key, 64 digits 0-9 and "
            "letters a-f (`quire identity show FILE.pub`)"
        )
    return value


def _noise(entry: Entry) -> frozenset[str]:
    return _listed(entry, "the ways to draw noise", tuple(NoiseKind))


def _listed(entry: Entry, what: str, known: tuple[str, ...]) -> frozenset[str]:
    names = entry.texts()
    for name in names:
        if name not in known:
            entry.fail(f"'{name[:60]}' is none of {what}: {', '.join(known)}")
    if not names:
        entry.fail(f"'{entry.key}' must list at least one of {', '.join(known)}")
    return frozenset(names)


def _budget(
    entry: Entry, found: Mapping[str, Entry], modes: frozenset[str], population: Population, foretold: bool
) -> tuple[float, float]:
    """Return the caps on epsilon and delta; infinite and 1 where there is no privacy to cap.

    Noise that can be foretold costs everything, so that a test over rows of one's own has no cap, or never runs.
    """
    if NONE in modes:
        for key in _BUDGET:
            if key in found:
                found[key].fail(f"'{key}' caps nothing with modes: [none], which spends without limit: leave it out")
        return math.inf, 1.0
    if "epsilon" not in found and not foretold:
        entry.fail("'policy' lacks the key 'epsilon', the most that the population may spend")
    usual = min(1e-5, 1.0 / (10.0 * population.records))
    delta = _above_zero(found["delta"]) if "delta" in found else usual
    if delta >= 1.0 / population.records:
        found["delta"].fail(
            f"'delta' must be less than 1/records, which is {1.0 / population.records:.3g}: at that size a mechanism "
            "that publishes some record outright would pass"
        )
    if "epsilon" not in found:
        return math.inf, delta
    epsilon = _above_zero(found["epsilon"])
    if epsilon > MAX_EPSILON:
        found["epsilon"].fail(
            f"'epsilon' must be at most {MAX_EPSILON:g}: what is accounted for holds up to there, and no more protects"
        )
    return epsilon, delta


def _whole(found: Mapping[str, Entry], key: str, low: int, high: int) -> int:
    return found[key].whole(low, high) if key in found else int(_DEFAULTS[key])


def _ships(data: Entry) -> bool:
    found = data.entries()
    return "connector" in found and found["connector"].scalar() == SHIPPED


def _truth(found: Mapping[str, Entry], key: str) -> bool:
    return found[key].truth() if key in found else False


def _above_zero(entry: Entry) -> float:
    value = entry.number()
    if value <= 0.0:
        entry.fail(f"{_name(entry)} must be greater than 0")
    return value


def _at_least_zero(found: Mapping[str, Entry], key: str) -> float:
    if key not in found:
        return float(_DEFAULTS[key])
    value = found[key].number()
    if value < 0.0:
        found[key].fail(f"'{key}' must be at least 0")
    return value


def _name(entry: Entry) -> str:
    return f"'{entry.key}'" if " " not in entry.key else entry.key
