"""``quire enclave``: a silo inside an SGX enclave, by Gramine, and answers of enclaves verified."""

from __future__ import annotations

import json
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quire.attest_cli import record
from quire.enclave_start_cli import pack, start, waited

if TYPE_CHECKING:
    from quire.enclave.verify import Answer

app = typer.Typer(
    name="enclave",
    help="A silo inside an SGX enclave, by Gramine: what is missing, which files, manifests, signatures, quotes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Profile(StrEnum):
    """What a manifest is rendered for."""

    sgx = "sgx-prod"
    direct = "direct-dev"


class Mode(StrEnum):
    """Where an enclave is started."""

    direct = "direct"
    sgx = "sgx"


SettingsFile = Annotated[Path, typer.Argument(metavar="ENCLAVE.YAML", help="The settings of the enclave.")]
Manifest = Annotated[Path, typer.Argument(metavar="NAME.manifest", help="A rendering.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ProfileOption = Annotated[Profile, typer.Option(help="sgx-prod, or direct-dev to try things without SGX.")]


app.command()(record)
app.command()(start)
app.command()(pack)


@app.command()
def doctor(
    settings: Annotated[
        Path | None, typer.Argument(metavar="[ENCLAVE.YAML]", help="Look at what it needs too.")
    ] = None,
    mode: Annotated[Mode, typer.Option(help="What must be there for exit status 0.")] = Mode.sgx,
    as_json: AsJson = False,
) -> None:
    """Say what this machine lacks for an enclave, and how to get it. Changes nothing; ends with 1 if anything lacks.

    \b
    quire enclave doctor
    quire enclave doctor enclave.yaml --mode direct
    """
    from quire.enclave.doctor import examine
    from quire.enclave.settings import read_settings

    found = examine(read_settings(settings) if settings is not None else None)
    needed = ("direct",) if mode is Mode.direct else ("direct", "sgx")
    missing = [one for one in found if not one.good and one.mode in needed]
    if as_json:
        typer.echo(json.dumps([vars(one) for one in found], indent=1))
        raise typer.Exit(int(bool(missing)))
    for one in found:
        typer.echo(f"{'yes' if one.good else 'NO':<4} {one.what:<28} {one.words}")
    if missing:
        typer.echo(f"Missing for --mode {mode.value}: {', '.join(one.what for one in missing)}.")
        raise typer.Exit(1)
    typer.echo(f"Nothing is missing for --mode {mode.value}.")


@app.command()
def trace(
    settings: SettingsFile,
    strace: Annotated[bool, typer.Option("--strace", help="Ask the kernel as well, with strace; slower.")] = False,
    seconds: Annotated[int, typer.Option(min=1, max=604_800, help="How long the run may take.")] = 1800,
) -> None:
    """Run what the enclave will run, outside, and write the list of files that it opened, its modules compiled.

    \b
    quire enclave trace enclave.yaml
    """
    from quire.enclave.settings import read_settings
    from quire.enclave.tracing import trace as follow

    found = read_settings(settings)
    listing = follow(found, strace, seconds)
    listing.write(found.files)
    typer.echo(f"{found.files}: {len(listing.files)} files; compiled modules are in {listing.bytecode}")


@app.command()
def render(
    settings: SettingsFile,
    where: Annotated[
        str | None, typer.Argument(metavar="[enclave=direct|sgx]", help="For which `quire enclave start` it is.")
    ] = None,
    profile: ProfileOption = Profile.sgx,
    out: Annotated[
        Path | None, typer.Option(metavar="NAME.manifest", help="Where to; else NAME.manifest beside the settings.")
    ] = None,
) -> None:
    """Hash the files of the list and write a manifest, which `quire enclave check` finds sound.

    \b
    quire enclave render enclave.yaml
    quire enclave render enclave.yaml enclave=direct
    quire enclave render enclave.yaml --profile direct-dev --out try.manifest
    """
    from quire.enclave.check import problems
    from quire.enclave.errors import EnclaveError
    from quire.enclave.files import Listing, write_whole
    from quire.enclave.manifest import render as write
    from quire.enclave.profiles import read_profile
    from quire.enclave.programs import named
    from quire.enclave.settings import read_settings

    found = read_settings(settings)
    if where is not None:
        chosen = read_profile(where)
        if chosen.profile is None:
            raise EnclaveError(f"{where} needs no manifest: `quire enclave start` runs the command as it is.")
        profile, out = Profile(chosen.profile), out or chosen.place(found, settings.resolve().parent)
    target = out if out is not None else settings.resolve().with_name(f"{found.name}.manifest")
    named(target)
    listing = Listing.read(found.files)
    text = write(found, listing, profile.value)
    if wrong := problems(text, profile.value):
        raise EnclaveError(f"What these settings give is no sound manifest, and was not written: {wrong[0]}")
    write_whole(target, text.encode())
    _banner(profile)
    typer.echo(f"{target}: {profile.value}, {len(listing.files)} files besides Gramine's own")


@app.command()
def check(
    manifest: Manifest,
    profile: ProfileOption = Profile.sgx,
    files: Annotated[bool, typer.Option("--files", help="Hash the listed files again, and compare.")] = False,
) -> None:
    """Hold a manifest against what a rendering may hold; Gramine need not be there. Ends with 1 if anything is wrong.

    What the manifest says of itself counts for nothing: it is held against --profile. Where gramine-manifest-check is
    on the PATH, it is asked as well.
    """
    import shutil

    from quire.enclave.check import check as hold
    from quire.enclave.programs import CHECKER, gramine_check

    wrong = hold(manifest, profile.value, files)
    for one in wrong[:50]:
        typer.echo(one)
    if len(wrong) > 50:
        typer.echo(f"... and {len(wrong) - 50} more")
    if wrong:
        typer.echo(f"{manifest} is no sound {profile.value} manifest: {len(wrong)} problems.")
        raise typer.Exit(1)
    _banner(profile)
    typer.echo(f"{manifest} is a sound {profile.value} manifest.")
    if shutil.which(CHECKER) is None:
        typer.echo(f"{CHECKER} is not on the PATH: Gramine itself was not asked.")
    elif (words := gramine_check(manifest)) is not None:
        typer.echo(f"{CHECKER} refuses it: {words}.")
        raise typer.Exit(1)
    else:
        typer.echo(f"{CHECKER} is content too.")


@app.command()
def sign(
    manifest: Manifest,
    key: Annotated[Path, typer.Option(metavar="KEY.pem", help="The key of whoever answers for the enclave.")],
) -> None:
    """Check an sgx-prod manifest and have Gramine sign it: NAME.manifest.sgx and NAME.sig beside it."""
    from quire.enclave.programs import sign as by_gramine

    signature = by_gramine(manifest, key)
    typer.echo(f"{signature}: `quire enclave measure {signature}` prints what was signed")


@app.command()
def measure(
    signature: Annotated[Path, typer.Argument(metavar="NAME.sig", help="The signature of an enclave.")],
    as_json: AsJson = False,
) -> None:
    """Print MRENCLAVE, MRSIGNER, product and version of a signed enclave, for allow-lists. Gramine is not needed."""
    from quire.enclave.sigstruct import SIZE, Sigstruct

    found = Sigstruct.decode(read(signature, SIZE + 1))
    if as_json:
        typer.echo(json.dumps(vars(found), indent=1))
    else:
        typer.echo(f"measurement  {found.measurement}  (MRENCLAVE)")
        typer.echo(f"signer       {found.signer}  (MRSIGNER)")
        typer.echo(f"product      {found.product}\nversion      {found.version}\nsigned       {found.date}")
        typer.echo(f"debug        {'YES: whoever owns the machine could read it' if found.debug else 'no'}")
    raise typer.Exit(int(found.debug))


@app.command()
def run(manifest: Manifest, mode: Annotated[Mode, typer.Option(help="direct: without SGX.")] = Mode.sgx) -> None:
    """Check a manifest and start it with gramine-sgx or gramine-direct; ends as what runs inside ends."""
    from quire.enclave.programs import command_to_run

    command = command_to_run(manifest, mode.value)
    _banner(Profile.direct if mode is Mode.direct else Profile.sgx, err=True)
    raise typer.Exit(waited(command, manifest.resolve().parent))


@app.command()
def challenge(
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new file.")],
    policy: Annotated[
        str | None, typer.Option(metavar="HEX", help="The SHA-256 of what was agreed on, 64 digits.")
    ] = None,
    charter: Annotated[Path | None, typer.Option(metavar="CHARTER", help="Or the charter that was agreed on.")] = None,
) -> None:
    """Draw a challenge for an enclave to answer."""
    from quire.enclave.errors import EnclaveError
    from quire.enclave.files import is_digest, write_whole
    from quire.enclave.verify import Challenge

    if (policy is None) == (charter is None):
        raise EnclaveError("Give --policy, or --charter.")
    if charter is not None:
        from quire.charter.chain import read_chain

        policy = read_chain(charter).first.hash
    if policy is None or not is_digest(policy):
        raise EnclaveError("--policy needs 64 hexadecimal digits in small letters, a SHA-256.")
    if os.path.lexists(out):
        raise EnclaveError(f"{out} exists; a challenge is drawn anew for each answer, so choose a new name.")
    write_whole(out, Challenge.new(bytes.fromhex(policy), int(time.time())).encode())
    typer.echo(f"{out}: give it to the enclave, and keep it until the answer is here")


@app.command()
def verify(
    answer: Annotated[Path, typer.Argument(metavar="ANSWER", help="What the enclave answered; or a bare quote.")],
    collateral: Annotated[Path, typer.Option(metavar="FILE", help="Intel's collateral for the platform, as JSON.")],
    allow: Annotated[Path, typer.Option(metavar="FILE", help="Which enclaves and platforms are allowed, as YAML.")],
    challenge: Annotated[Path, typer.Option(metavar="FILE", help="The challenge that it answers.")],
    identity: Annotated[Path | None, typer.Option(metavar="KEY.pub", help="The key, for a bare quote.")] = None,
    at: Annotated[int | None, typer.Option(metavar="SECONDS", min=0, help="Verify as of this Unix time.")] = None,
    root: Annotated[Path | None, typer.Option(metavar="DER", help="Another root than Intel's, for tests.")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify, offline, that an answer proves a key to be an allowed enclave's. Ends with 1 if it does not.

    \b
    quire enclave verify answer.json --collateral collateral.json --allow allow.yaml --challenge challenge.json
    """
    from quire.clients.gate.mark import BANNER
    from quire.enclave.chain import MAX_COLLATERAL, collateral_of, dcap_chain
    from quire.enclave.errors import QuoteRefused
    from quire.enclave.policy import read_allowed
    from quire.enclave.verify import MAX_FILE, Challenge
    from quire.enclave.verify import verify as hold

    allowed = read_allowed(allow)
    asked = Challenge.decode(read(challenge, MAX_FILE + 1))
    given = _answer(answer, identity)
    proof = collateral_of(read(collateral, MAX_COLLATERAL + 1))
    chain = dcap_chain(read(root, MAX_FILE) if root is not None else None)
    now = int(time.time()) if at is None else at
    try:
        if given.quote is None:
            raise QuoteRefused("malformed", f"There is no quote in this answer: {BANNER}.")
        quote, platform = hold(given.quote, given.identity, asked, allowed, proof, now, chain)
    except QuoteRefused as error:
        if as_json:
            typer.echo(json.dumps({"accepted": False, "reason": error.reason, "words": str(error)}, indent=1))
            raise typer.Exit(error.exit_code) from None
        raise
    if as_json:
        about = {"measurement": quote.measurement, "signer": quote.signer, "product": quote.product}
        about |= {"version": quote.version, "status": platform.status, "advisories": list(platform.advisories)}
        about |= {"identity": given.identity.fingerprint, "root": "given" if root is not None else "Intel"}
        typer.echo(json.dumps({"accepted": True, **about}, indent=1))
        return
    typer.echo(f"accepted     {given.identity}")
    typer.echo(f"measurement  {quote.measurement}\nsigner       {quote.signer}")
    typer.echo(f"product      {quote.product}, version {quote.version}")
    typer.echo(f"platform     {platform.status}{''.join(f', {one}' for one in platform.advisories)}")
    if root is not None:
        typer.echo("root         the one that was given, NOT INTEL'S: this proves nothing about any processor")
    if at is not None:
        typer.echo("time         the one that was given, not now")


def _answer(path: Path, identity: Path | None) -> Answer:
    """Read an answer, or a bare quote with the key beside it."""
    from quire.clients.identity import read_key_file
    from quire.enclave.errors import EnclaveError
    from quire.enclave.verify import MAX_FILE, Answer

    data = read(path, MAX_FILE + 1)
    if data[:1] == b"{":
        if identity is not None:
            raise EnclaveError(f"{path} is an answer, which names its key: leave --identity out.")
        return Answer.decode(data)
    if identity is None:
        raise EnclaveError(f"{path} is no answer of an enclave; for a bare quote, give the key with --identity.")
    return Answer(read_key_file(identity).public(), data)


def _banner(profile: Profile, err: bool = False) -> None:
    from quire.clients.gate.mark import BANNER

    if profile is Profile.direct:
        typer.echo(f"{BANNER}: {profile.value} is for finding out whether things work.", err=err)


def read(path: Path, limit: int) -> bytes:
    """Read at most so many bytes of a file that somebody named."""
    from quire.enclave.errors import EnclaveError

    try:
        with path.open("rb") as stream:
            return stream.read(limit)
    except OSError as error:
        raise EnclaveError(f"{path} cannot be read: {error.strerror}.") from error
