"""The operator's override: a new segment of a ledger that cannot be trusted any more, with the history kept.

It takes over the highest spending that any source still shows (the entries that are legible, the heads, the witness),
so that damage is never a way to a fresh budget; only ``forget=True`` begins at nothing, and says so in the ledger for
ever. Whoever overrides vouches for what no file can show any more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np

from quire.clients.store import files, shown
from quire.clients.store.counters import Counters
from quire.clients.store.entries import Entry, common, opening_body
from quire.clients.store.errors import StoreDamaged, StoreError
from quire.clients.store.heads import NO_HEAD, TAG, Head, Heads, read_heads
from quire.clients.store.ledger import populations
from quire.clients.store.lines import START, Signed, line_hash
from quire.clients.store.scan import Place, Scan, read_ledger
from quire.clients.store.store import WAIT, About, ledger_place, read_about
from quire.clients.store.sums import Sums
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.spending import Spending
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity

REASON = 500  # characters of the operator's reason

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Override:
    """What an override found and did.

    Attributes
    ----------
    population : str
    found : str
        What was wrong, in sentences; empty if nothing was.
    carried : dict of Unit to Spending
        What the new segment begins with.
    kept : pathlib.Path or None
        The file that holds the segment before.
    """

    population: str
    found: str
    carried: dict[Unit, Spending]
    kept: Path | None


@dataclass
class _Remains:
    """What can still be read of a ledger whose reading may fail half-way."""

    sums: Sums
    count: int = 0

    def take(self, entry: Entry) -> None:
        self.sums.add(entry)
        self.count = entry.seq


def reset(
    folder: Path,
    population: str,
    because: str,
    identity: PrivateIdentity,
    *,
    witness: Path | None = None,
    forget: bool = False,
    wait: float = WAIT,
    now: datetime | None = None,
) -> Override:
    """Begin a new segment of a population's ledger, and make the store usable again.

    Parameters
    ----------
    folder : pathlib.Path
        The store.
    population : str
    because : str
        The operator's reason; it stands in the ledger for ever.
    identity : PrivateIdentity
        The silo's; a new one is taken over by the store.
    witness : pathlib.Path, optional
        Written anew.
    forget : bool
        Begin with nothing spent instead of with the most that any source shows.
    wait : float
        Seconds to wait for the lock.
    now : datetime.datetime, optional
        The time, with a zone.

    Raises
    ------
    StoreError
        If there is no store, no reason, or the store cannot be written.
    """
    if not because.strip() or len(because) > REASON:
        raise StoreError(f"An override needs a reason of 1 to {REASON} characters, which stays in the ledger.")
    if not folder.is_dir():
        raise StoreError(f"There is no store {folder}; nothing has to be overridden, a run makes a new one.")
    files.private_folder(folder)
    lock = files.Lock(folder / "lock", wait)
    try:
        return _reset(folder, population, because, identity, witness, forget, now or datetime.now(UTC))
    finally:
        lock.release()


def _reset(
    folder: Path,
    population: str,
    because: str,
    identity: PrivateIdentity,
    witness: Path | None,
    forget: bool,
    now: datetime,
) -> Override:
    found: list[str] = []
    old = _about(folder, found)
    signer = identity.public if old is None else old.public
    heads = _heads(folder / "heads.json", signer, found)
    seen = None if witness is None else _heads(witness, signer, found)
    known = [item for item in (heads, seen) if item is not None]
    before = old or About(known[0].store if known else os.urandom(16).hex(), signer)
    about = About(before.store, identity.public)
    for name in ("ledger", "state", "secrets"):
        files.private_folder(folder / name)

    place = ledger_place(folder, before, population)
    witnessed = [item.ledgers.get(population, NO_HEAD) for item in known]
    remains = _remains(place, witnessed, found)
    counters = _counters(folder / "counters.jsonl", known, remains.sums, found)

    carried = {} if forget else highest([remains.sums.all_spent(), *(head.spent for head in witnessed)])
    count = max([remains.count, _shown(place, found), *(head.count for head in witnessed)]) + 1
    after = ledger_place(folder, about, population, identity)
    kept, prev = _set_aside(after)
    body = common("opening", count, prev, about.store, population, now)
    body |= opening_body(_segments(place), carried, because, " ".join(found), None if kept is None else kept.name)
    line = after.seal.close(body)
    files.replace(after.path, line + b"\n")

    ledgers = _others(folder, before, population, heads)
    ledgers[population] = Head(count, line_hash(line), len(line) + 1, carried)
    generation = max([0, *(item.generation for item in known)]) + 1
    new = Heads(about.store, generation, counters, witness is not None, ledgers)
    data = new.close(Signed(TAG, identity.public, identity))
    files.replace(folder / "heads.json", data)
    files.replace(folder / "store.json", about.encode())
    if witness is not None:
        files.replace(witness, data)
    shown.forget(place)
    _log.warning("the ledger of %s was overridden (%s): %s", population, because, " ".join(found) or "it was sound")
    return Override(population, " ".join(found), carried, kept)


def highest(balances: Iterable[Mapping[Unit, Spending]]) -> dict[Unit, Spending]:
    """Return, for every unit and order, the most that any balance shows."""
    result: dict[Unit, Spending] = {}
    for balance in balances:
        for unit, spending in balance.items():
            other = result.get(unit, Spending.zero())
            result[unit] = Spending(np.maximum(other.rdp, spending.rdp), max(other.delta, spending.delta))
    return result


def _about(folder: Path, found: list[str]) -> About | None:
    try:
        about = read_about(folder)
    except StoreDamaged as error:
        found.append(_short(error))
        return None
    if about is None:
        found.append("store.json is missing.")
    return about


def _heads(path: Path, signer: PublicIdentity, found: list[str]) -> Heads | None:
    try:
        heads = read_heads(path, Signed(TAG, signer))
    except StoreError as error:
        found.append(_short(error))
        return None
    if heads is None:
        found.append(f"{path.name} is missing.")
    return heads


def _shown(place: Place, found: list[str]) -> int:
    """Return the number of the last entry that somebody else has seen, as the silo was shown."""
    try:
        count = shown.noted(place)
    except StoreError as error:
        found.append(_short(error))
        return 0
    if count:
        found.append(f"A receipt of this silo's own has seen {count} entries.")
    return count


def _remains(place: Place, heads: list[Head], found: list[str]) -> _Remains:
    remains = _Remains(Sums())
    head = max(heads, key=lambda item: item.count, default=NO_HEAD)
    try:
        read_ledger(place, head, whole=True, each=remains.take)
    except StoreError as error:
        found.append(_short(error))
    return remains


def _counters(path: Path, known: list[Heads], sums: Sums, found: list[str]) -> int:
    """Make the counters usable, and at least as far on as the ledger; return their count."""
    count = max([0, *(item.counters for item in known)])
    positions: dict[str, tuple[int, int, int]] = {}
    try:
        counters = Counters(path)
    except StoreError as error:
        found.append(_short(error))
        behind = dict(sums.positions)
    else:
        positions = counters.positions()
        behind = {key: order for key, order in sums.positions.items() if positions.get(key, (-1, 0, 0)) < order}
        if counters.count >= count and not behind:
            return counters.count
        found.append("The counters were behind what the rest of the store, or the witness, has seen.")
        count = max(count, counters.count)
    Counters.create(path, count + 1, positions | behind)
    return count + 1


def _set_aside(place: Place) -> tuple[Path | None, str]:
    """Give the current segment a second name, under which it stays; return that and the SHA-256 of its bytes."""
    with files.explained(place.path, "set aside"):
        if not place.path.exists():
            return None, START
        number = _segments(place)
        os.link(place.path, place.kept(number))
        files.sync_folder(place.folder)
        with place.path.open("rb") as stream:
            digest = sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
        return place.kept(number), digest.hexdigest()


def _segments(place: Place) -> int:
    """Return how many segments were closed."""
    number = 0
    while place.kept(number).exists():
        number += 1
    return number


def _others(folder: Path, about: About, population: str, heads: Heads | None) -> dict[str, Head]:
    """Return the heads of the other populations: as they were, or as their own ledgers show if the heads are lost."""
    if heads is not None:
        return dict(heads.ledgers)
    ledgers: dict[str, Head] = {}
    for name in populations(os.listdir(folder / "ledger")):
        if name != population:
            try:
                scan: Scan = read_ledger(ledger_place(folder, about, name), NO_HEAD, whole=True)
            except StoreError:
                continue  # it is refused when it is asked for, and takes an override of its own
            ledgers[name] = Head(scan.count, scan.head, scan.size, scan.sums.all_spent())
    return ledgers


def _short(error: StoreError) -> str:
    """Return what was found, without the advice that has just been followed."""
    return str(error).partition(";")[0].rstrip(".") + "."
