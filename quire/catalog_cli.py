"""``quire catalog``: what silos offer, so that partners find each other without showing data."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quire.identity_cli import PassphraseFile, PassphraseVariable, open_identity

if TYPE_CHECKING:
    from quire.catalog.making import Allowance
    from quire.catalog.matching import Fit, Wanted
    from quire.catalog.offer import Offer
    from quire.clients.data.silo_file import SiloFile
    from quire.clients.identity import Roster
    from quire.clients.tasks.schema import Schema

app = typer.Typer(
    name="catalog",
    help="What each silo offers: schema, number of rows, labels; never rows. And which silos fit a task.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The catalogue: a folder of offers.")]
RosterFile = Annotated[Path | None, typer.Option(help="The consortium's roster, whose member has to have signed.")]
AsJson = Annotated[bool, typer.Option("--json", help="As one JSON object.")]


@app.command()
def offer(
    silo: Annotated[Path, typer.Argument(metavar="SILO", help="The silo's own file, silo.yaml.")],
    out: Annotated[Path, typer.Option(help="A new file for the offer.")],
    count: Annotated[
        str, typer.Option(help="How the number of rows is told: declared, rounded, dp:EPSILON, or kept:FILE.")
    ] = "declared",
    title: Annotated[str | None, typer.Option(help="What the rows are called.")] = None,
    description: Annotated[str | None, typer.Option(help="What they are.")] = None,
    contact: Annotated[str | None, typer.Option(help="Whom to ask: an address, or words.")] = None,
    days: Annotated[int, typer.Option(help="How many days the offer is good for.")] = 365,
    terms: Annotated[
        bool, typer.Option("--terms", help="Tell which options of privacy and aggregation the policy admits.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Make a signed offer out of a silo's own file: schema, labels, and a number of rows. Nothing else of the rows.

    \b
    quire catalog offer silo.yaml --out offer.json --title "Heart disease, 1988" --contact data@clinic.example
    quire catalog offer silo.yaml --out offer.json --count dp:0.1          charged to the silo's ledger
    quire catalog offer silo.yaml --out newer.json --count kept:offer.json the number of an earlier offer: free
    """
    from quire.catalog.counts import Asked
    from quire.catalog.making import About, make_offer
    from quire.clients.data.silo_file import read_silo

    asked, own = Asked.of(count), read_silo(silo)
    allowance = _allowance(own)
    identity = open_identity(own.operator.identity, passphrase_file, passphrase_env)
    about = About(title, description, contact, days, terms)
    made = make_offer(own, asked, about, identity, out, allowance)
    typer.echo(f"{out}: offered by {made.silo}, signed by {made.signer[:16]}, until {_day(made.expires)}")
    typer.echo(f"Rows     {made.count.words}")
    typer.echo(f"Schema   {made.task}, {_columns(made)}; its hash is {made.schema.sha256[:16]}")
    typer.echo(f"Labels   {_labels(made)}")
    if asked.form == "dp":
        typer.echo(f"Charged  epsilon {count.partition(':')[2]} to the ledger: see `quire ledger show {silo}`")


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="OFFER", help="The offer of a silo.")],
    catalog: Annotated[Path, typer.Option(help="The catalogue: a folder, made if it is missing.")],
    roster: RosterFile = None,
) -> None:
    """Check an offer and put it into a catalogue, in the place of the silo's older one.

    Refused: what was changed, what has expired, an older offer than the one that is there, and one under other keys.

    \b
    quire catalog add offer.json --catalog partners
    quire catalog add offer.json --catalog partners --roster roster.json
    """
    from quire.catalog.catalogue import Catalogue
    from quire.catalog.offer import read_offer

    found = read_offer(file)
    state = Catalogue(catalog).add(found, _now(), _roster(roster))
    words = {"new": "is in now", "newer": "is in now, in the place of an older one", "known": "is in already"}[state]
    typer.echo(f"{catalog}: the offer of {found.silo} {words}.")
    if state == "new":
        how = "as the roster has it" if roster is not None else "which only the silo can confirm: compare it"
        typer.echo(f"From now on {found.silo} is known by the key {found.signer}, {how}.")


@app.command()
def show(
    catalog: Folder,
    silo: Annotated[str | None, typer.Argument(metavar="SILO", help="The name of a silo: all of its offer.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what is in a catalogue, or the offer of one silo.

    \b
    quire catalog show partners
    quire catalog show partners clinic-1 --json
    """
    from quire.catalog.catalogue import Catalogue

    shelf = Catalogue(catalog)
    found = shelf.offers() if silo is None else [shelf.offer(silo)]
    if as_json:
        typer.echo(json.dumps({"offers": [{**one.body, "signer": one.signer} for one in found]}, indent=2))
    elif silo is None:
        _list(found, catalog)
    else:
        _show(found[0])


@app.command()
def verify(catalog: Folder, roster: RosterFile = None) -> None:
    """Check every offer of a catalogue: signature, time, with --roster whose keys they are. Ends with 1 if one fails.

    \b
    quire catalog verify partners --roster roster.json
    """
    from quire.catalog.catalogue import Catalogue
    from quire.catalog.errors import CatalogError
    from quire.text import visible

    shelf, members, bad = Catalogue(catalog), _roster(roster), 0
    for name in shelf.names():
        try:
            found = shelf.check(name, _now(), members)
        except CatalogError as error:
            bad += 1
            typer.echo(f"{visible(name)}: {error}")
        else:
            typer.echo(f"{found.silo}: signed by {found.signer[:16]}, {_day(found.issued)} to {_day(found.expires)}")
    typer.echo(f"{len(shelf.names()) - bad} of {len(shelf.names())} offers hold.")
    raise typer.Exit(1 if bad else 0)


@app.command()
def match(
    catalog: Folder,
    task: Annotated[
        list[str], typer.Argument(metavar="TASK...", help="A task's name, a schema.yaml, settings as key=value.")
    ],
    purpose: Annotated[str | None, typer.Option(help="What the model is for, word for word as in a charter.")] = None,
    residency: Annotated[list[str] | None, typer.Option(help="Where a member is; once for each place.")] = None,
    min_rows: Annotated[int, typer.Option(min=0, help="Fewest rows that a silo has to offer.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Say which silos of a catalogue fit a task, best first, and why the others do not. Ends with 1 if none fits.

    \b
    quire catalog match partners tabular
    quire catalog match partners schema.yaml privacy=record --purpose "Predict heart disease." --residency eu
    """
    from quire.catalog.catalogue import Catalogue
    from quire.catalog.matching import match as hold

    wanted = _wanted(task, purpose, tuple(residency or ()), min_rows)
    found = hold(Catalogue(catalog).offers(), wanted, _now())
    fits = [one for one in found if one.fits]
    if as_json:
        typer.echo(json.dumps(_matched(found, fits), indent=2))
    else:
        _judge(found, fits, catalog)
    raise typer.Exit(0 if fits else 1)


@app.command()
def export(
    catalog: Folder,
    form: Annotated[str, typer.Option("--format", help="dcat or schema.org.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    title: Annotated[str, typer.Option(help="What the catalogue is called.")] = "Offers of silos",
) -> None:
    """Write all offers that are good now as JSON-LD, for other catalogues: DCAT (as DCAT-AP uses it) or schema.org.

    \b
    quire catalog export partners --format dcat --out catalog.jsonld
    """
    from quire.catalog.catalogue import SUFFIX, Catalogue
    from quire.catalog.linked import exported
    from quire.clients.identity.files import replace
    from quire.errors import SettingsError

    if out.name.endswith(SUFFIX):
        raise SettingsError(f"{out} is named as an offer is: choose another name, such as catalog.jsonld.")
    if not out.parent.is_dir() or out.is_dir():
        raise SettingsError(f"{out} cannot be written: name a file in a folder that exists.")
    now = _now()
    offers = [one for one in Catalogue(catalog).offers() if one.expires >= now]
    replace(out, exported(offers, form, title))
    typer.echo(f"{out}: {len(offers)} offers, {form}.")


def _allowance(own: SiloFile) -> Allowance:
    """Return what a number of rows may cost: the policy's budget, and that of a charter which the silo is under."""
    from datetime import UTC, datetime

    from quire.catalog.errors import OfferRefused
    from quire.catalog.making import Allowance
    from quire.clients.answering import Refusal
    from quire.clients.code import code_hash
    from quire.clients.policy.books import since, today
    from quire.clients.policy.chartered import under_charter
    from quire.clients.store import Budget

    policy = own.operator.policy
    if policy is None:
        return Allowance((), code_hash())
    caps = [(Budget(policy.epsilon, policy.delta), since(policy, today()))] if policy.capped else []
    try:
        _, bound = under_charter(own.operator, own.name or "")
    except Refusal as refusal:
        raise OfferRefused(f"{own.path} is under a charter that does not hold: {refusal.words}.") from None
    for cap in () if bound is None else bound.limits.budgets:
        first = None if cap.since is None else datetime.fromtimestamp(cap.since, UTC).date()
        caps.append((Budget(cap.epsilon, cap.delta), first))
    return Allowance(tuple(caps), code_hash())


def _wanted(task: list[str], purpose: str | None, residency: tuple[str, ...], rows: int) -> Wanted:
    from quire.catalog.matching import Wanted
    from quire.clients.tasks.schema import read_schema
    from quire.conf.compose import compose
    from quire.conf.schema import FilesData
    from quire.errors import SettingsError

    overrides, schema = [], None
    for word in task:
        if "=" in word:
            overrides.append(word)
        elif not word.endswith((".yaml", ".yml")):
            overrides.append(f"task={word}")
        elif schema is not None:
            raise SettingsError("Name one schema.yaml: a task has one form of rows.")
        else:
            schema = read_schema(Path(word))
    named = {word.split("=")[0].lstrip("+") for word in overrides}
    if schema is not None and overrides and "task" not in named:
        overrides.append(_task_of(schema, "task.model" in named))
    settings = compose(" ".join(overrides)) if overrides else None
    if settings is not None and schema is not None and not isinstance(settings.data, FilesData):
        raise SettingsError(f"task={settings.task.name} has rows of its own: a schema goes with tabular or images.")
    held = any(name.split(".")[0] in ("privacy", "aggregation") for name in named)
    return Wanted(settings, schema, held, purpose, residency, rows)


def _task_of(schema: Schema, model: bool) -> str:
    """Return the task that a schema is for; with a model that can learn its target, unless one is named."""
    if schema.image is not None:
        return "task=images"
    return "task=tabular" if model or schema.target.kind == "classification" else "task=tabular task.model=linear"


def _roster(path: Path | None) -> Roster | None:
    if path is None:
        return None
    from quire.clients.identity import read_roster
    from quire.clients.identity.rosters import check_roster

    signed = read_roster(path)
    check_roster(path, signed)
    return signed.roster


def _list(found: list[Offer], catalog: Path) -> None:
    if not found:
        typer.echo(f"{catalog} has no offers yet: see `quire catalog add`.")
    for one in found:
        expired = ", EXPIRED" if one.expires < _now() else ""
        typer.echo(f"{one.silo}: {one.task}, {_columns(one)}; {one.count.words}; until {_day(one.expires)}{expired}")


def _show(one: Offer) -> None:
    from quire.catalog.describe import described

    for name, words in described(one):
        typer.echo(f"{name:<12} {words}")


def _judge(found: list[Fit], fits: list[Fit], catalog: Path) -> None:
    for place, one in enumerate(found, 1):
        about = f"{one.offer.silo}: {one.offer.count.words}"
        if not one.fits:
            typer.echo(f"   {about}; does not fit")
        else:
            typer.echo(f"{place:>2} {about}; fits{', with the very schema' if one.exact else ''}")
        for words in one.reasons or one.notes:
            typer.echo(f"     {words}")
    rows = sum(one.offer.count.rows for one in fits)
    typer.echo(f"{len(fits)} of {len(found)} silos of {catalog} fit, with {rows:,} rows in all, as they say.")
    if len(forms := {one.offer.schema.sha256 for one in fits}) > 1:
        typer.echo(f"They have {len(forms)} schemas: to learn together they have to agree on one.")


def _matched(found: list[Fit], fits: list[Fit]) -> dict[str, Any]:
    silos = [
        {
            **{"silo": one.offer.silo, "signer": one.offer.signer, "fits": one.fits, "exact": one.exact},
            **{"reasons": list(one.reasons), "notes": list(one.notes), "rows": one.offer.count.to_json()},
            "schema_sha256": one.offer.schema.sha256,
        }
        for one in found
    ]
    return {"fits": len(fits), "rows": sum(one.offer.count.rows for one in fits), "silos": silos}


def _columns(one: Offer) -> str:
    from quire.catalog.describe import form_of

    return form_of(one.schema)


def _labels(one: Offer) -> str:
    from quire.catalog.describe import labels_of

    return labels_of(one)


def _day(seconds: int) -> str:
    from quire.catalog.offer import day

    return day(seconds)


def _now() -> int:
    return int(time.time())
