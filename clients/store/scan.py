"""Read a ledger from its file and check it, from the first byte or from a signed checkpoint on.

A checkpoint holds the SHA-256 of all bytes up to a line that were verified, and their sums, signed by the silo. If the
bytes still have that hash they are the bytes that were verified, and only the lines after them are read and verified
one by one. A checkpoint that is missing or does not fit is no damage: everything is verified then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from quire.clients.store import files
from quire.clients.store.entries import TAG, Entry, read_entry
from quire.clients.store.errors import RolledBack, StoreDamaged, StoreError
from quire.clients.store.files import explained
from quire.clients.store.heads import REMEDY, Head
from quire.clients.store.lines import START, BadLine, Signed, line_hash, read_lines
from quire.clients.store.sums import Sums
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity

if TYPE_CHECKING:
    from hashlib import _Hash

CHECKPOINT_TAG = "quire/ledger/checkpoint/1"
MAX_CHECKPOINT = 1 << 30
_BLOCK = 1 << 20
#: Before every entry.
BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass
class Scan:
    """What a ledger's file holds.

    Attributes
    ----------
    count : int
        The number of the last entry; 0 if there is none.
    head : str
        The hash of its line.
    size : int
        Bytes of whole lines; a torn line may follow them in the file.
    segment : int
    time : datetime.datetime
        Of the last entry.
    sums : Sums
    digest : hash
        SHA-256 of those bytes, to be continued.
    checked : int
        The number of the last entry that a checkpoint covers.
    torn : int
        Bytes of the torn line.
    hashes : dict of int to str
        Of the lines whose numbers were asked for, as far as they were passed.
    """

    count: int = 0
    head: str = START
    size: int = 0
    segment: int = 0
    time: datetime = BEGINNING
    sums: Sums = field(default_factory=Sums)
    digest: _Hash = field(default_factory=sha256)
    checked: int = 0
    torn: int = 0
    hashes: dict[int, str] = field(default_factory=dict)

    def take(self, line: bytes, entry: Entry) -> None:
        """Go on by one verified line."""
        self.count, self.head, self.time = entry.seq, line_hash(line), entry.time
        self.size += len(line) + 1
        self.digest.update(line + b"\n")
        self.sums.add(entry)


@dataclass(frozen=True)
class Place:
    """Which ledger, where, and whose."""

    folder: Path
    store: str
    population: str
    public: PublicIdentity
    private: PrivateIdentity | None = None

    @property
    def path(self) -> Path:
        """The current segment."""
        return self.folder / f"{self.population}.jsonl"

    @property
    def checkpoint(self) -> Path:
        """The file of the checkpoint; ``:`` cannot occur in a population's name."""
        return self.folder / f"{self.population}:checkpoint.json"

    def kept(self, segment: int) -> Path:
        """The file of a segment that an override has closed."""
        return self.folder / f"{self.population}:{segment:03d}.jsonl"

    @property
    def seal(self) -> Signed:
        """What entries are signed with."""
        return Signed(TAG, self.public, self.private)

    @property
    def checkpoint_seal(self) -> Signed:
        """What checkpoints are signed with."""
        return Signed(CHECKPOINT_TAG, self.public, self.private)


def write_checkpoint(place: Place, scan: Scan) -> None:
    """Write down that all lines so far were verified, and their sums.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    body: dict[str, Any] = {"store": place.store, "population": place.population, "count": scan.count}
    body |= {"head": scan.head, "size": scan.size, "segment": scan.segment, "time": scan.time.isoformat()}
    body |= {"digest": scan.digest.hexdigest(), "sums": scan.sums.as_dict()}
    files.replace(place.checkpoint, place.checkpoint_seal.close(body))
    scan.checked = scan.count


def read_ledger(
    place: Place,
    head: Head,
    marks: Iterable[tuple[int, str, str]] = (),
    whole: bool = False,
    each: Callable[[Entry], None] | None = None,
) -> Scan:
    """Read and check a ledger.

    Parameters
    ----------
    place : Place
    head : Head
        What the store knows of it: nothing up to there may be missing or changed.
    marks : iterable of (count, line hash, who says so)
        What others know of it: see :class:`RolledBack`.
    whole : bool
        Whether to verify every line, whatever a checkpoint says.
    each : callable, optional
        Called with every entry that is verified.

    Raises
    ------
    StoreDamaged
        If an entry that was acknowledged is missing or changed, or one after it is not what the silo wrote. A last
        line without a newline was never acknowledged and is no damage.
    RolledBack
        If somebody else has seen more entries than there are, or other ones.
    """
    marks = [mark for mark in marks if mark[0] > 0]
    wanted = {head.count, *(count for count, _, _ in marks)} - {0}
    scan = Scan()
    with explained(place.path, "read"):
        try:
            stream = place.path.open("rb")
        except FileNotFoundError:
            if head.count or marks:
                raise StoreDamaged(f"{place.path} is missing, {_known(head, marks)}; {REMEDY}.") from None
            return scan
        with stream:
            if not whole:
                scan = _from_checkpoint(place, stream, wanted) or scan
            if scan.count:
                scan.hashes[scan.count] = scan.head
            stream.seek(scan.size)
            _read_on(place, stream, scan, wanted, head, each)
    _hold_against(place, scan, head, marks)
    return scan


def _known(head: Head, marks: list[tuple[int, str, str]]) -> str:
    entries = max([head.count, *(count for count, _, _ in marks)])
    return f"but {entries} {'entry' if entries == 1 else 'entries'} were written to it"


def _read_on(
    place: Place,
    stream: IO[bytes],
    scan: Scan,
    wanted: set[int],
    head: Head,
    each: Callable[[Entry], None] | None,
) -> None:
    seal = place.seal
    for line, whole in read_lines(stream):
        if not whole:
            if scan.count < head.count:
                raise StoreDamaged(f"{place.path} is cut off {_after(scan)}, {_known(head, [])}; {REMEDY}.")
            scan.torn = len(line)
            return
        try:
            body = seal.open(line)
            entry = read_entry(body, place.store, place.population)
            first = scan.size == 0
            if (entry.position is None) is not first:
                raise BadLine("is an opening and not the first" if not first else "is the first and no opening")
            if not first and (entry.seq != scan.count + 1 or body["prev"] != scan.head or entry.time < scan.time):
                raise BadLine("does not follow from the one before it")
            if first:
                scan.segment = body["segment"]
        except BadLine as error:
            raise StoreDamaged(f"The line {_after(scan)} of {place.path} {error}; {REMEDY}.") from None
        scan.take(line, entry)
        if scan.count in wanted:
            scan.hashes[scan.count] = scan.head
        if each is not None:
            each(entry)


def _after(scan: Scan) -> str:
    return f"after entry {scan.count}" if scan.count else "of the opening"


def _hold_against(place: Place, scan: Scan, head: Head, marks: list[tuple[int, str, str]]) -> None:
    if scan.count < head.count:
        raise StoreDamaged(f"{place.path} ends after entry {scan.count}, {_known(head, [])}; {REMEDY}.")
    if head.count and scan.hashes.get(head.count) != head.line:
        raise StoreDamaged(f"Entry {head.count} of {place.path} is not the one that was written last; {REMEDY}.")
    for count, line, who in marks:
        # An override's opening takes a number above all that were known, so older ones are in a closed segment.
        if count > scan.count or (count in scan.hashes and scan.hashes[count] != line):
            seen = f"holds {scan.count} entries" if count > scan.count else f"holds another entry {count}"
            raise RolledBack(
                f"{place.path} {seen} than {who} has seen ({count}): an old copy was put back; {REMEDY}."
                if count <= scan.count
                else f"{place.path} {seen}, but {who} has seen {count}: an old copy was put back; {REMEDY}."
            )


def _from_checkpoint(place: Place, stream: IO[bytes], wanted: set[int]) -> Scan | None:
    """Return the scan up to the checkpoint, or None if there is none that fits these bytes and these wishes."""
    try:
        data = files.read(place.checkpoint, MAX_CHECKPOINT)
        if data is None:
            return None
        found = place.checkpoint_seal.open(data)
        if found["store"] != place.store or found["population"] != place.population:
            return None
        if any(count < found["count"] for count in wanted):
            return None
        digest, left = sha256(), found["size"]
        while left > 0:
            block = stream.read(min(_BLOCK, left))
            if not block:
                return None
            digest.update(block)
            left -= len(block)
        if digest.hexdigest() != found["digest"]:
            return None
        time = datetime.fromisoformat(found["time"]).astimezone(UTC)
        sums = Sums.of(found["sums"])
        count = found["count"]
        return Scan(count, found["head"], found["size"], found["segment"], time, sums, digest, checked=count)
    except (BadLine, StoreError, AttributeError, KeyError, TypeError, ValueError, PrivacyError):
        return None
