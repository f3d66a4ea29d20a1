"""Which silos of a catalogue fit a task, and why the others do not, in words. Only what the offers say is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quire.catalog.errors import CatalogError
from quire.catalog.offer import Labels, Offer, day
from quire.clients.data.rules.labels import asks_of, spelled, unmet
from quire.clients.tasks import shipped_form
from quire.clients.tasks.schema import Categorical, Label, Numeric, Schema, Target
from quire.conf.schema import FilesData, SecureAggregation, Settings, SyntheticData
from quire.text import visible

_SHOWN = 3


@dataclass(frozen=True)
class Wanted:
    """What is looked for.

    Attributes
    ----------
    settings : Settings or None
        Of the run that is thought of; None where only a schema is known.
    schema : Schema or None
        The agreed form of the rows, if there is one already.
    held : bool
        Whether privacy and aggregation of the settings are meant, and not just what they are by default: then labels
        and terms are held against them.
    purpose : str or None
    residency : tuple of str
        Where the members are whom the model goes to.
    rows : int
        Fewest rows of a silo.
    """

    settings: Settings | None = None
    schema: Schema | None = None
    held: bool = False
    purpose: str | None = None
    residency: tuple[str, ...] = ()
    rows: int = 0

    def __post_init__(self) -> None:
        if self.settings is None and self.schema is None:
            raise CatalogError("Name what is looked for: a task, a schema.yaml, or settings as key=value.")
        aggregation = None if self.settings is None else self.settings.aggregation
        if isinstance(aggregation, SecureAggregation) and aggregation.exact:
            raise CatalogError(
                "aggregation.simulate=exact_sum is a short cut for simulations, which no real silo takes part in: "
                "leave it out."
            )
        if self.settings is not None and isinstance(self.settings.data, SyntheticData):
            raise CatalogError("task=synthetic makes its rows up: name a task over somebody's rows, or a schema.yaml.")


@dataclass(frozen=True)
class Fit:
    """One silo beside a task.

    Attributes
    ----------
    offer : Offer
    reasons : tuple of str
        Why it does not fit; empty where it does.
    notes : tuple of str
        What has to be seen to where it does.
    exact : bool
        Whether its schema is the very one that is looked for.
    """

    offer: Offer
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    exact: bool

    @property
    def fits(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def match(offers: Sequence[Offer], wanted: Wanted, now: int) -> list[Fit]:
    """Hold offers against a task.

    Parameters
    ----------
    offers : sequence of Offer
    wanted : Wanted
    now : int
        Seconds since 1970 UTC.

    Returns
    -------
    list of Fit
        Those that fit first: with the very schema, then by rows, most first; then the others, by reasons, fewest first.
    """
    found = [_fit(offer, wanted, now) for offer in offers]
    return sorted(found, key=lambda one: (len(one.reasons), not one.exact, -one.offer.count.rows, one.offer.silo))


def _fit(offer: Offer, wanted: Wanted, now: int) -> Fit:
    reasons, notes = [], []
    if now > offer.expires:
        reasons.append(f"its offer expired on {day(offer.expires)}")
    exact = wanted.schema is not None and offer.schema.sha256 == wanted.schema.sha256
    if not exact:
        reasons += _form(offer.schema, wanted)
    if wanted.schema is not None and not exact and not reasons:
        notes.append("the schema is another one: its operator has to take over the one that is asked for")
    reasons += _model(offer.schema, wanted)
    if offer.labels is not None:
        against, open_ = _labels(offer.labels, wanted)
        reasons += against
        notes += open_
    reasons += _terms(offer, wanted)
    if offer.count.rows < wanted.rows:
        reasons.append(f"it has {offer.count.words}, and at least {wanted.rows:,} are asked for")
    return Fit(offer, tuple(reasons), tuple(notes), exact)


def _form(offered: Schema, wanted: Wanted) -> list[str]:
    if wanted.schema is not None:
        return list(_schema(offered, wanted.schema))
    if wanted.settings is None:
        return []
    if isinstance(wanted.settings.data, FilesData):
        name = wanted.settings.task.name
        if name == "images" and offered.image is None:
            return ["its rows have columns, and task=images asks for images"]
        if name == "tabular" and offered.image is not None:
            return ["its rows are images, and task=tabular asks for columns"]
        return []
    return list(_shipped(offered, wanted.settings))


def _shipped(offered: Schema, settings: Settings) -> Iterator[str]:
    """Hold a form against a data set that ships with Quire, of which only features and classes are known by name."""
    features, classes = shipped_form(getattr(settings.data, "dataset", ""))
    task = settings.task.name
    if offered.features != features:
        yield f"its rows have {offered.features} features, and task={task} asks for {features}"
    elif not offered.numeric.all():
        yield f"it has columns of categories, and task={task} asks for numbers alone"
    if bool(classes) != (offered.target.kind == "classification"):
        yield f"its target is a {'class' if not classes else 'number'}, and that of task={task} is not"
    elif len(offered.target.classes) != classes:
        yield f"it tells {len(offered.target.classes)} classes apart, and task={task} asks for {classes}"


def _schema(offered: Schema, asked: Schema) -> Iterator[str]:
    if (offered.image is None) != (asked.image is None):
        yield "its rows are images, not columns" if asked.image is None else "its rows have columns, not images"
        return
    if asked.image is not None and offered.image != asked.image:
        yield "its images have another height, width or number of channels"
    known = {column.name: column for column in offered.columns}
    lacking = [column.name for column in asked.columns if column.name not in known]
    if lacking:
        yield f"it has no column {_listed(lacking)}"
    for column in asked.columns:
        if column.name in known:
            yield from _column(known[column.name], column)
    yield from _target(offered.target, asked.target)


def _column(offered: Numeric | Categorical, asked: Numeric | Categorical) -> Iterator[str]:
    name = f"the column '{visible(asked.name)}'"
    if isinstance(offered, Numeric) != isinstance(asked, Numeric):
        kinds = ("categories", "numbers") if isinstance(asked, Numeric) else ("numbers", "categories")
        yield f"{name} holds {kinds[0]}, and {kinds[1]} are asked for"
        return
    if isinstance(offered, Numeric) and isinstance(asked, Numeric):
        if (offered.low, offered.high) != (asked.low, asked.high):
            yield (
                f"{name} has the bounds {offered.low:g} to {offered.high:g}, and {asked.low:g} to {asked.high:g} are "
                "asked for"
            )
    elif isinstance(offered, Categorical) and isinstance(asked, Categorical):
        if others := _difference(offered.categories, asked.categories):
            yield f"{name} has other categories: {others}"
        if offered.unknown == "ignore" and asked.unknown == "error":
            yield f"{name} may have unknown categories, and none are asked for"
    if offered.missing and not asked.missing:
        yield f"{name} may lack values, and none may be missing"


def _target(offered: Target, asked: Target) -> Iterator[str]:
    name = f"the target '{visible(asked.name)}'"
    if offered.name != asked.name:
        yield f"its target is '{visible(offered.name)}', and '{visible(asked.name)}' is asked for"
        return
    if offered.kind != asked.kind:
        words = {"classification": "a class", "regression": "a number"}
        yield f"{name} is {words[offered.kind]}, and {words[asked.kind]} is asked for"
    elif asked.kind == "regression":
        if (offered.low, offered.high) != (asked.low, asked.high):
            yield f"{name} has the bounds {offered.low:g} to {offered.high:g}, not {asked.low:g} to {asked.high:g}"
    elif offered.at_least != asked.at_least:
        yield f"{name} parts two classes at another value"
    elif asked.at_least is None and (others := _difference(offered.classes, asked.classes)):
        yield f"{name} has other classes: {others}"


def _difference(offered: Sequence[Label], asked: Sequence[Label]) -> str:
    """Say what two sets of labels do not have in common; empty if nothing."""
    more = [_label(one) for one in offered if one not in asked]
    less = [_label(one) for one in asked if one not in offered]
    parts = ([f"{_listed(more)} beside those asked for"] if more else []) + ([f"no {_listed(less)}"] if less else [])
    return ", ".join(parts)


def _label(label: Label) -> str:
    return label if isinstance(label, str) else f"{label:g}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{visible(name)}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _model(offered: Schema, wanted: Wanted) -> list[str]:
    settings = wanted.settings
    if settings is None or not isinstance(settings.data, FilesData):
        return []
    if settings.task.model == "logistic" and offered.target.kind == "regression":
        return ["its target is a number, and task.model=logistic tells classes apart: linear or mlp would fit"]
    return []


def _labels(labels: Labels, wanted: Wanted) -> tuple[list[str], list[str]]:
    """Return what labels have against a run, and what they leave open."""
    against, left = [], []
    if wanted.settings is not None and wanted.held:
        if (asked := unmet(labels.sensitivity, wanted.settings)) is not None:
            against.append(f"its rows are {labels.sensitivity}, which asks for {asked}")
    elif asks := asks_of(labels.sensitivity):
        left.append(f"its rows are {labels.sensitivity}, which asks for {asks[-1]}")
    if labels.purposes is not None:
        if wanted.purpose is None:
            left.append("its rows may serve named purposes only: say yours with --purpose")
        elif spelled(wanted.purpose) not in labels.purposes:
            against.append("its rows may not serve this purpose, word for word")
    if labels.residency is not None:
        places = ", ".join(labels.residency)
        if not wanted.residency:
            left.append(f"members have to be in {places}: say where yours are with --residency")
        elif outside := [place for place in wanted.residency if place not in labels.residency]:
            against.append(f"members have to be in {places}, and not in {visible(', '.join(outside))}")
    return against, left


def _terms(offer: Offer, wanted: Wanted) -> Iterator[str]:
    if offer.terms is None or wanted.settings is None or not wanted.held:
        return
    privacy, aggregation = wanted.settings.privacy.name, wanted.settings.aggregation
    if privacy not in offer.terms.privacy:
        yield f"its policy admits privacy {', '.join(offer.terms.privacy)}, not {privacy}"
    if aggregation.seen not in offer.terms.aggregation:
        yield f"its policy admits aggregation {', '.join(offer.terms.aggregation)}, not {aggregation.name}"
