"""``quire dashboard``: a page to watch a consortium, a silo or runs by, and who may log in to it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup


class _Dashboard(TyperGroup):
    """A group whose first word may be a folder: ``quire dashboard FOLDER`` is ``quire dashboard serve FOLDER``."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Take what is no command of the group for what is to be served."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Dashboard,
    help="A page to watch it all, read-only and behind a login: `quire dashboard FOLDER`, after `quire dashboard user "
    "add`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
user_app = typer.Typer(help="Who may log in: add, remove, list.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(user_app, name="user")

Watched = Annotated[
    Path, typer.Option("--folder", help="The folder that the dashboard watches; it has the file of users.")
]


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="An operator's folder, a silo's, or a folder of runs.")],
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that the system gives.")] = 8460,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate, PEM, with the names of this host.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, PEM, mode 0600.")] = None,
) -> None:
    """Serve the dashboard of a folder until Ctrl-C. It changes nothing in it.

    \b
    quire dashboard user add anna --role operator --folder consortium
    quire dashboard consortium
    quire dashboard clinic --port 8461
    quire dashboard consortium --host 10.0.0.5 --certificate page.pem --key page.key
    """
    from quire.dashboard.errors import DashboardError
    from quire.dashboard.serving import Tls
    from quire.dashboard.serving import serve as run

    if (certificate is None) != (key is None):
        raise DashboardError("TLS takes both: --certificate and --key.")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s: %(message)s")
    tls = None if certificate is None or key is None else Tls(certificate, key)
    try:
        run(folder, host, port, tls, lambda address: typer.echo(f"Dashboard: {address}  (Ctrl-C ends it)"))
    except KeyboardInterrupt:
        typer.echo("The dashboard has ended.")


@user_app.command()
def add(
    name: Annotated[str, typer.Argument(help="What they log in by, such as anna.")],
    role: Annotated[str, typer.Option(help="operator, member or auditor: see docs/dashboard.md.")],
    folder: Watched = Path("."),
    password_file: Annotated[
        Path | None, typer.Option(help="Take the password from this file, which only its owner can read.")
    ] = None,
) -> None:
    """Add a user, or give one a new password and role, which ends their sessions. The password is asked for.

    \b
    quire dashboard user add anna --role operator --folder consortium
    quire dashboard user add ben --role auditor --folder consortium --password-file ben.txt
    """
    from quire.clients.identity import passphrase
    from quire.dashboard.errors import DashboardError
    from quire.dashboard.roles import Role
    from quire.dashboard.users import add_user, users_file
    from quire.dashboard.views import Folder

    if role not in list(Role):
        raise DashboardError(f"--role is one of {', '.join(Role)}.")
    Folder.of(folder)
    if password_file is not None:
        words = passphrase.from_file(password_file)
    elif sys.stdin.isatty():
        words = typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise DashboardError("The password is asked for, and there is no terminal to ask at: use --password-file.")
    new = add_user(folder, name, Role(role), words)
    typer.echo(f"{'Added' if new else 'Changed'}: {name}, {role}, in {users_file(folder)}")


@user_app.command()
def remove(name: Annotated[str, typer.Argument()], folder: Watched = Path(".")) -> None:
    """Take a user away; their sessions end at once."""
    from quire.dashboard.users import remove_user

    remove_user(folder, name)
    typer.echo(f"Removed: {name}")


@user_app.command("list")
def list_users(folder: Watched = Path(".")) -> None:
    """Show who may log in, and in which role."""
    from quire.dashboard.users import read_users

    for user in read_users(folder).values():
        typer.echo(f"{user.name:<32}  {user.role}")
