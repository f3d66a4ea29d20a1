"""``dataset:`` of a ``silo.yaml``: how sensitive the rows are, where what is learned may go, and what for.

::

    dataset:
      sensitivity: restricted
      residency: [eu]
      purposes: ["Predict heart disease from routine measurements."]
      confirmed: required

Labels only ever refuse: they are held against every message beside the charter and the policy, so that the strictest
of the three holds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.data.preprocess import preprocessing_of
from quire.conf.schema import (
    DistributedPrivacy,
    NoPrivacy,
    RecordDistributedPrivacy,
    RecordPrivacy,
    SecureAggregation,
    Settings,
)
from quire.conf.strict_yaml import Entry

if TYPE_CHECKING:
    from quire.charter.document import Charter

#: From what anybody may see to what must never be recognised; each asks for all that those before it ask for.
SENSITIVITIES = ("public", "internal", "confidential", "restricted", "secret")
OPTIONAL, REQUIRED = "optional", "required"
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class Dataset:
    """A data set's labels.

    Attributes
    ----------
    sensitivity : str
        One of :data:`SENSITIVITIES`.
    residency : frozenset of str or None
        Where members may be whom a model that learns from these rows goes to; None: anywhere.
    purposes : tuple of str or None
        What runs may be for, in the words of a charter; None: anything.
    unconfirmed : bool
        Whether a person's confirmation of ``columns`` is asked for and is not there.
    file : pathlib.Path
    lines : tuple of (str, int)
        Where each of them stands in the file.
    """

    sensitivity: str
    residency: frozenset[str] | None = None
    purposes: tuple[str, ...] | None = None
    unconfirmed: bool = False
    file: Path = field(default=Path("silo.yaml"), compare=False)
    lines: tuple[tuple[str, int], ...] = field(default=(), compare=False)

    @property
    def needs_noise(self) -> bool:
        """Whether its sensitivity asks for differential privacy."""
        return self.sensitivity in ("restricted", "secret")

    def place(self, key: str) -> str:
        """Say where a label stands, for a refusal: ``dataset.purposes (silo.yaml, line 9)``."""
        return f"dataset.{key} ({self.file.name}, line {dict(self.lines).get(key, 1)})"


def read_dataset(entry: Entry, beside: Mapping[str, Entry]) -> Dataset:
    """Read ``dataset``.

    Parameters
    ----------
    entry : Entry
    beside : mapping of str to Entry
        The entries at the top of the file.

    Raises
    ------
    DataError
        If it says something that it cannot say.
    """
    found = entry.mapping(["sensitivity"], ["residency", "purposes", "confirmed"])
    sensitivity = found["sensitivity"].text()
    if sensitivity not in SENSITIVITIES:
        found["sensitivity"].fail(f"'sensitivity' must be one of {', '.join(SENSITIVITIES)}")
    asked = found["confirmed"].text() if "confirmed" in found else OPTIONAL
    if asked not in (OPTIONAL, REQUIRED):
        found["confirmed"].fail(f"'confirmed' must be {OPTIONAL} or {REQUIRED}; who and when is said in 'columns'")
    columns = beside["columns"].entries() if "columns" in beside else {}
    return Dataset(
        sensitivity=sensitivity,
        residency=_places(found["residency"]) if "residency" in found else None,
        purposes=_purposes(found["purposes"]) if "purposes" in found else None,
        unconfirmed=asked == REQUIRED and "confirmed" not in columns,
        file=entry.file,
        lines=tuple((key, item.node.start_mark.line + 1) for key, item in found.items()),
    )


def objections(dataset: Dataset, charter: Charter | None, settings: Settings) -> tuple[str, ...]:
    """Return all that a data set's labels have against a run, in words; nothing if it may learn from these rows.

    Parameters
    ----------
    dataset : Dataset
    charter : Charter or None
        The one that is in force for the silo.
    settings : Settings
        The run's.
    """
    found = (
        _unconfirmed(dataset),
        _purpose(dataset, charter),
        _residency(dataset, charter),
        _sensitivity(dataset, settings),
    )
    return tuple(words for words in found if words is not None)


def hold_to_labels(dataset: Dataset, charter: Charter | None, settings: Settings) -> None:
    """Hold a run against a data set's labels.

    Raises
    ------
    Refusal
        If it may not learn from these rows; the words are for the silo's own log.
    """
    if against := objections(dataset, charter, settings):
        raise Refusal(Code.LABELS_REFUSED, against[0])


def described(dataset: Dataset) -> list[str]:
    """Say what a data set's labels ask of a run, one sentence for each."""
    asks = "; ".join(asks_of(dataset.sensitivity)) or "nothing beside the policy"
    found = [f"Data set: {dataset.sensitivity}, which asks for {asks}."]
    if dataset.residency is not None:
        found.append(f"Residency: members in {', '.join(sorted(dataset.residency))} only.")
    if dataset.purposes is not None:
        found.append(f"Purposes: {len(dataset.purposes)}, of which a run's charter has to name one.")
    return found


def _unconfirmed(dataset: Dataset) -> str | None:
    if not dataset.unconfirmed:
        return None
    return (
        f"{dataset.place('confirmed')} is required, and nobody has confirmed the columns: look at them, and say "
        "'confirmed: \"NAME, YYYY-MM-DD\"' in 'columns'"
    )


def _purpose(dataset: Dataset, charter: Charter | None) -> str | None:
    if dataset.purposes is None:
        return None
    place = dataset.place("purposes")
    if charter is None:
        return f"{place} permits named purposes, and without a charter nobody says what a run is for: pin a 'charter'"
    if spelled(charter.purpose) in dataset.purposes:
        return None
    return f"{place} does not list the purpose of {charter.label}, word for word: add it if these rows may serve it"


def _residency(dataset: Dataset, charter: Charter | None) -> str | None:
    if dataset.residency is None:
        return None
    place = f"{dataset.place('residency')} lists {', '.join(sorted(dataset.residency))}"
    if charter is None:
        return f"{place}, and without a charter nobody says where the members are: pin a 'charter'"
    outside = [f"{one.name} ({one.residency or 'not said'})" for one in charter.members if not _fits(dataset, one)]
    if not outside:
        return None
    more = f" and {len(outside) - 3} more" if len(outside) > 3 else ""
    return (
        f"{place}, and {charter.label}, has members elsewhere, whom the model goes to: {', '.join(outside[:3])}{more}"
    )


def _fits(dataset: Dataset, member: object) -> bool:
    return dataset.residency is not None and getattr(member, "residency", None) in dataset.residency


def _sensitivity(dataset: Dataset, settings: Settings) -> str | None:
    asked = unmet(dataset.sensitivity, settings)
    return None if asked is None else f"{dataset.place('sensitivity')} is {dataset.sensitivity}, which asks for {asked}"


def unmet(sensitivity: str, settings: Settings) -> str | None:
    """Return the first thing that a level of sensitivity asks for and a run's settings do not keep; None if none."""
    level, privacy = SENSITIVITIES.index(sensitivity), settings.privacy
    secure = isinstance(settings.aggregation, SecureAggregation)
    covered = secure or isinstance(privacy, RecordPrivacy | DistributedPrivacy)
    kept = (
        preprocessing_of(settings) != "federated",
        covered,
        covered and not isinstance(privacy, NoPrivacy),
        secure and isinstance(privacy, RecordPrivacy | RecordDistributedPrivacy),
    )
    return next((asked for asked, held in list(zip(_ASKS, kept, strict=True))[:level] if not held), None)


def asks_of(sensitivity: str) -> tuple[str, ...]:
    """Return all that a level of sensitivity asks of a run beside what the policy does, in words."""
    return _ASKS[: SENSITIVITIES.index(sensitivity)]


#: What each level asks for beside what the one before it does; `public` asks for nothing.
_ASKS = (
    "no moments of columns in clear: data.preprocessing=public or per_silo",
    "updates that nobody sees alone and without noise: aggregation=secure, or privacy=record",
    "differential privacy: privacy=record, or privacy=record_distributed or silo_distributed with aggregation=secure",
    "noise for each record, under masks: privacy=record or record_distributed, with aggregation=secure",
)


def _places(entry: Entry) -> frozenset[str]:
    places = entry.texts()
    for place in places:
        if not _WORD.fullmatch(place):
            entry.fail("'residency' must list words of lower-case letters, digits, dashes and underscores, as in [eu]")
    if not places:
        entry.fail("'residency' must list at least one place; leave it out if models may go anywhere")
    return frozenset(places)


def _purposes(entry: Entry) -> tuple[str, ...]:
    purposes = tuple(spelled(text) for text in entry.texts())
    if not purposes or not all(purposes):
        entry.fail("'purposes' must list at least one; leave it out if the rows may serve any")
    return purposes


def spelled(text: str) -> str:
    """Return a purpose as it is compared: broken into lines or not, it is the same."""
    return " ".join(unicodedata.normalize("NFC", text).split())
