"""``quire approve`` and ``quire reject``: the silo's operator decides on single runs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quire.identity_cli import PassphraseFile, PassphraseVariable, open_identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from quire.clients.policy.model import Operator
    from quire.clients.store import Store
    from quire.clients.store.decision_book import Book, Matter

_SHORTEST = 8  # digits by which a hash is named

Run = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Flower's number of the run, or the first digits of the hash shown with it."),
]
Silo = Annotated[Path, typer.Option(help="The silo's own file; what was decided is in its store.")]
Reason = Annotated[str, typer.Option(help="Why, in your own words; kept in the silo's store.")]
By = Annotated[str | None, typer.Option(help="Who decides; your login name if left out.")]
Tell = Annotated[bool, typer.Option("--tell", help="Let the reason travel to the server; else it stays here.")]
Listed = Annotated[bool, typer.Option("--list", help="Show what waits for a decision; decides nothing.")]
Every = Annotated[bool, typer.Option("--all", help="With --list: show all that was ever decided, and by whom.")]


def approve(
    run: Run = None,
    silo: Silo = Path("silo.yaml"),
    reason: Reason = "",
    by: By = None,
    tell: Tell = False,
    listed: Listed = False,
    every: Every = False,
    begin_anew: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Give up a book of decisions that is damaged; nothing is approved then."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Approve a run at this silo; without RUN, show the runs that wait for a decision, and what each would do.

    With `approval: true` in its policy a silo answers nothing in a run that was not approved here. An approval is for
    that run alone: its number, code, settings and roster. What is decided is signed by the silo and kept in its store:
    who, when and why. It holds from the next message on, and until another decision.

    \b
    quire approve                                      what waits, in words
    quire approve 1234 --reason "ethics vote 26-117"   let run 1234 go on
    quire reject 1234 --reason "epsilon too large"     stop it here, even in mid-run
    quire approve --list --all                         who decided what, when and why
    """
    if begin_anew is not None:
        _begin_anew(silo, begin_anew, passphrase_file, passphrase_env)
    elif run is None or listed:
        _show(silo, run, every)
    else:
        _decide(silo, run, "approved", reason, by, tell, passphrase_file, passphrase_env)


def reject(
    run: Run = None,
    silo: Silo = Path("silo.yaml"),
    reason: Reason = "",
    by: By = None,
    tell: Tell = False,
    passphrase_file: PassphraseFile = None,
    passphrase_env: PassphraseVariable = None,
) -> None:
    """Reject a run at this silo, or stop one that was approved; without RUN, show the runs that wait for a decision.

    The silo answers nothing more in that run, from the next message on. What has left before has left, and stays
    charged to the ledger. The server is told that the run was rejected, and with --tell also why.

    \b
    quire reject 1234 --reason "no longer covered by the ethics vote"
    """
    if run is None:
        _show(silo, None, every=False)
    else:
        _decide(silo, run, "rejected", reason, by, tell, passphrase_file, passphrase_env)


def _decide(
    silo: Path,
    run: str,
    decision: str,
    reason: str,
    by: str | None,
    tell: bool,
    passphrase_file: Path | None,
    passphrase_env: str | None,
) -> None:
    from quire.clients.gate.approvals import login
    from quire.clients.store.decisions import Decisions
    from quire.errors import SettingsError

    if tell and not reason:
        raise SettingsError("--tell lets the reason travel, and there is none: add --reason, or leave out --tell.")
    operator = _operator(silo)
    matter = _find(_book(operator), run, silo)
    what, number = matter.request.what, matter.request.binding.run
    if matter.last is not None and matter.last.decision == decision:
        typer.echo(f"Run {number} ({what[:12]}) is {_said(matter)} already.")
        return
    with _opened(operator, passphrase_file, passphrase_env) as (store, identity):
        Decisions(store, identity).decide(what, decision, login() if by is None else by, reason, tell)
    then = "it is answered from the next message on" if decision == "approved" else "nothing more is answered in it"
    typer.echo(f"{decision.capitalize()}: run {number} ({what[:12]}); {then}.")


def _begin_anew(silo: Path, reason: str, passphrase_file: Path | None, passphrase_env: str | None) -> None:
    from quire.clients.store.decisions import begin_anew

    with _opened(_operator(silo), passphrase_file, passphrase_env) as (store, identity):
        kept = begin_anew(store, identity, reason)
    typer.echo(f"A new book of decisions; the old one is {'not there' if kept is None else f'kept as {kept}'}.")


@contextlib.contextmanager
def _opened(
    operator: Operator, passphrase_file: Path | None, passphrase_env: str | None
) -> Iterator[tuple[Store, Any]]:
    """Open the silo's store with its key."""
    from quire.clients.store import Store

    identity = open_identity(operator.identity, passphrase_file, passphrase_env)
    with Store.open(operator.store, identity, witness=operator.witness) as store:
        yield store, identity


def _operator(silo: Path) -> Operator:
    from quire.clients.data.silo_file import read_operator_of

    return read_operator_of(silo)


def _book(operator: Operator) -> Book:
    from quire.clients.identity import read_key_file
    from quire.clients.store.decision_book import look

    own = read_key_file(operator.identity).fingerprint if operator.identity.exists() else None
    return look(operator.store, operator.witness, own)


def _find(book: Book, run: str, silo: Path) -> Matter:
    from quire.errors import DataError

    found = [matter for matter in book.matters.values() if matter.request.binding.run == run]
    if not found and len(run) >= _SHORTEST:
        found = [matter for matter in book.matters.values() if matter.request.what.startswith(run)]
    if not found:
        waiting = ", ".join(matter.request.binding.run for matter in book.pending) or "none"
        raise DataError(f"The silo of {silo} was not asked for a run {_plain(run)[:80]}; there wait: {waiting}.")
    if len(found) > 1:
        hashes = ", ".join(matter.request.what[:12] for matter in found)
        raise DataError(
            f"{len(found)} runs go by {_plain(run)[:80]}, with other code, settings or rosters: name one by the first "
            f"digits of its hash ({hashes}), as `quire approve --list --all` shows them."
        )
    return found[0]


def _show(silo: Path, run: str | None, every: bool) -> None:
    operator = _operator(silo)
    book = _book(operator)
    if run is not None:
        chosen: Iterable[Matter] = [_find(book, run, silo)]
    else:
        chosen = list(book.matters.values()) if every else book.pending
        for at, why in book.openings if every else ():
            typer.echo(f"A damaged book was given up on {at:%Y-%m-%d %H:%M} UTC: {_plain(why)}\n")
        if not chosen:
            asks = operator.policy is not None and operator.policy.approval
            typer.echo("No run waits for a decision." + ("" if asks else f" The policy in {silo} demands none."))
    for matter in chosen:
        _describe(matter, silo)


def _describe(matter: Matter, silo: Path) -> None:
    """Print what a run would do, for a person who decides by it."""
    from quire.clients.policy.approval import is_bound
    from quire.conf.overrides import parse

    request = matter.request
    number, code, roster = request.binding.run, request.binding.code, request.binding.roster
    typer.echo(f"Run {number} ({request.what[:12]}), asked of {request.silo} on {matter.asked:%Y-%m-%d %H:%M} UTC")
    lines = [*request.terms, ("code", f"{code} (`quire app hash` shows that of a bundle)")]
    items = parse(request.overrides)
    bound = " ".join(str(item) for item in items if is_bound(item.key))
    unbound = ", ".join(item.key for item in items if not is_bound(item.key))  # their values are free text
    lines += [("roster", roster or "none is pinned"), ("settings", bound or "every default")]
    if unbound:
        lines.append(("not approved", f"{unbound}: the server's own affair, not part of what is approved"))
    for title, text in lines:
        typer.echo(f"  {_plain(title):<14}{_plain(text)}")
    for made in matter.decisions:
        told = " (told to the server)" if made.statement.body["reason"] is not None else ""
        why = f": {made.why}{told}" if made.why else ""
        typer.echo(f"  {made.decision:<14}{_plain(f'by {made.by} on {made.at:%Y-%m-%d %H:%M} UTC{why}')}")
    if matter.last is None:
        typer.echo(f"  to decide     quire approve {number} --silo {silo}, or quire reject {number} --silo {silo}")
    typer.echo("")


def _said(matter: Matter) -> str:
    made = matter.last
    return "" if made is None else _plain(f"{made.decision} (by {made.by} on {made.at:%Y-%m-%d %H:%M} UTC)")


def _plain(text: str) -> str:
    """Return a text that a terminal cannot obey, or show as further lines: some of it is the server's."""
    return " ".join("".join(letter if letter.isprintable() else "?" for letter in text).split())
