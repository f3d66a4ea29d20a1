"""An offer out of a silo's own file. Of its rows, nothing goes in but their number, in the form that was asked for.

A number with noise is charged to the silo's ledger, and the charge is on the disk, before the noise is drawn. A rounded
one is no differential privacy: where the policy caps epsilon it is refused, and elsewhere it is charged as everything
that leaves without noise.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from quire.catalog.counts import DECLARED, KEPT, NOISY, ROUNDED, Asked, Count, rounded
from quire.catalog.errors import CatalogError
from quire.catalog.form import kind_of, to_json
from quire.catalog.offer import DAYS, FORMAT, MAX_DAYS, Labels, Offer, Terms, read_offer
from quire.clients.data.own import count_rows
from quire.clients.data.silo_file import SiloFile
from quire.clients.identity.files import EVERYBODY, check_absent, create
from quire.clients.policy.model import NONE, Policy, Population
from quire.clients.store import Budget, Charge, Position, Store, Unit
from quire.privacy.csprng import KEY_BYTES, Csprng
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.counting import noisy_count
from quire.privacy.dp.events import Event, Geometric, NonPrivate
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.signed_body import canonical

#: Under which the counters and the ledger have what was told of numbers of rows: a part of no run, and no round.
SESSION = "catalog.count"


@dataclass(frozen=True)
class Allowance:
    """What the records may spend on a number of rows, and what runs.

    Attributes
    ----------
    caps : sequence of (Budget, date or None)
        All of which have to hold: the policy's, and a charter's; each with the first day (UTC) from which on what was
        spent counts.
    code : str
        The hash (hex) of the code that runs, for the ledger.
    """

    caps: Sequence[tuple[Budget, date | None]]
    code: str


@dataclass(frozen=True)
class About:
    """What the operator says of the offer.

    Attributes
    ----------
    title, description, contact : str or None
    days : int
        How long it is good for.
    terms : bool
        Whether it tells which options of ``privacy`` and ``aggregation`` the policy admits.
    """

    title: str | None = None
    description: str | None = None
    contact: str | None = None
    days: int = DAYS
    terms: bool = False


def make_offer(
    silo: SiloFile, asked: Asked, about: About, identity: PrivateIdentity, out: Path, allowance: Allowance
) -> Offer:
    """Make an offer, sign it with the silo's identity and write it to a new file.

    Parameters
    ----------
    silo : SiloFile
    asked : Asked
        In which form its number of rows is told.
    about : About
    identity : PrivateIdentity
        The silo's.
    out : pathlib.Path
    allowance : Allowance

    Raises
    ------
    CatalogError
        If the file does not say what an offer takes, or something cannot be said.
    DataError
        If the rows that are to be counted cannot be had.
    BudgetExceeded
        If the records may not spend what the number costs; then nothing was written.
    StoreError
        If the silo's ledger cannot be used.
    """
    check_absent(out)
    if not out.parent.is_dir():
        raise CatalogError(f"There is no folder {out.parent} to write {out.name} in.")
    if not 1 <= about.days <= MAX_DAYS:
        raise CatalogError(f"--days takes a whole number from 1 to {MAX_DAYS}.")
    if silo.name is None:
        raise CatalogError(f"{silo.path} has no 'name', under which an offer would be signed: give it one.")
    now = int(datetime.now(UTC).timestamp())
    body = {
        "format": FORMAT,
        "silo": silo.name,
        "title": about.title,
        "description": about.description,
        "contact": about.contact,
        "issued": now,
        "expires": now + about.days * 86400,
        "task": kind_of(silo.schema),
        "schema": to_json(silo.schema),
        "schema_sha256": silo.schema.sha256,
        "labels": _labels(silo),
        "terms": _terms(silo) if about.terms else None,
    }
    try:
        # All but the number first: what cannot be said must not cost anything.
        Offer.sign({**body, "rows": Count(DECLARED, 0).to_json()}, identity)
        made = Offer.sign({**body, "rows": _count(silo, asked, identity, allowance).to_json()}, identity)
    except PrivacyError as error:
        raise CatalogError(f"{silo.path} cannot be offered: {str(error).rstrip('.')}.") from None
    create(out, made.encode(), EVERYBODY)
    return made


def _labels(silo: SiloFile) -> dict[str, object] | None:
    dataset = silo.operator.dataset
    if dataset is None:
        return None
    residency = None if dataset.residency is None else tuple(sorted(dataset.residency))
    return Labels(dataset.sensitivity, residency, dataset.purposes).to_json()


def _terms(silo: SiloFile) -> dict[str, object]:
    policy = _policy(silo, "--terms tells")
    return Terms(tuple(sorted(policy.modes)), tuple(sorted(policy.aggregation))).to_json()


def _policy(silo: SiloFile, what: str) -> Policy:
    if silo.operator.policy is None:
        raise CatalogError(f"{what} what the policy of {silo.path} allows, and it has no 'policy'.")
    return silo.operator.policy


def _count(silo: SiloFile, asked: Asked, identity: PrivateIdentity, allowance: Allowance) -> Count:
    if asked.form == DECLARED:
        if silo.operator.population is None:
            raise CatalogError(
                f"{silo.path} has no 'population' with the public number of records: declare one, or take another "
                "--count."
            )
        return Count(DECLARED, silo.operator.population.records)
    if asked.form == KEPT:
        return _kept(silo, Path(asked.text), identity)
    if asked.form == ROUNDED:
        return _rounded(silo, identity, allowance)
    policy, epsilon = _policy(silo, "--count dp spends"), asked.epsilon
    if not policy.capped and not allowance.caps:
        raise CatalogError(
            f"{policy.place('modes')} lets everything out without noise, so that there is no budget to charge: take "
            "--count declared or rounded."
        )
    with _open(silo, identity) as store:
        # Held against the budget before a row is read, and again when it is charged.
        _check(store, policy.population, Geometric(epsilon), allowance)
        rows = count_rows(silo)
        _charge(store, policy.population, Geometric(epsilon), asked.text, allowance)
        found = noisy_count(rows, epsilon, Csprng(os.urandom(KEY_BYTES)))
    return Count(NOISY, found, epsilon=asked.text)


def _rounded(silo: SiloFile, identity: PrivateIdentity, allowance: Allowance) -> Count:
    policy, population = silo.operator.policy, silo.operator.population
    if policy is not None and (policy.capped or allowance.caps):
        whose = policy.place("epsilon") if policy.capped else "the charter that the silo is under"
        raise CatalogError(
            f"A rounded number of rows is no differential privacy, and {whose} caps what may be spent: take --count "
            "declared, or dp:EPSILON."
        )
    rows = count_rows(silo)
    if population is not None:
        with _open(silo, identity) as store:
            known = store.ledger(population.name).unprotected(Unit.RECORD, datetime.now(UTC).date())
            if not known:  # as for a run without privacy: once a day, for nothing could add to that
                _charge(store, population, NonPrivate(), NONE, allowance)
    return rounded(rows)


def _kept(silo: SiloFile, path: Path, identity: PrivateIdentity) -> Count:
    earlier = read_offer(path)
    if earlier.silo != silo.name or earlier.public != identity.public:
        raise CatalogError(f"{path} is an offer of {earlier.silo}, under keys that are not this silo's own.")
    return earlier.count


def _open(silo: SiloFile, identity: PrivateIdentity) -> Store:
    return Store.open(silo.operator.store, identity, witness=silo.operator.witness)


def _check(store: Store, population: Population, event: Event, allowance: Allowance) -> None:
    ledger = store.ledger(population.name)
    for budget, since in allowance.caps:
        ledger.check([Charge(Unit.RECORD, event)], budget, since)


def _charge(store: Store, population: Population, event: Event, asked: str, allowance: Allowance) -> None:
    """Charge for a number of rows, durably: only after that may it be drawn."""
    _check(store, population, event, allowance)
    today = datetime.now(UTC).date()
    last = store.counters.last(SESSION)
    position = Position(SESSION, 1 if last is None else last.round + 1)
    store.advance(position, today)
    told = hashlib.sha256(canonical({"catalog": "rows", "asked": asked})).hexdigest()
    budget, since = allowance.caps[0] if allowance.caps else (None, None)
    store.ledger(population.name).charge(
        [Charge(Unit.RECORD, event)], budget, position, code=allowance.code, settings=told, since=since
    )
