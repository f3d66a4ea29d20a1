"""What is known of the enclaves of a run: what silos say of themselves, and what the server's roster records.

A silo's own word is taken where it speaks against it (``direct-dev``) and no further. What was attested, the admins of
the roster vouch for, under whose keys the silos answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quire.clients.gate.mark import BANNER, DIRECT, PROFILES
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.attested import INTEL, Attested
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.roster import Roster
from quire.strategies import checkpoint

FILE = "enclaves.json"
FORMAT = "quire-enclaves-1"
MAX_BYTES = 16 * 1024 * 1024


class EnclavesError(PrivacyError):
    """What a run folder says of enclaves cannot be read; its text is one sentence."""


@dataclass(frozen=True)
class Enclaves:
    """What is known.

    Attributes
    ----------
    says : mapping of str to str
        By silo: the profile that it says it runs under.
    attested : mapping of str to Attested
        By silo: what the roster records.
    server : Attested or None
        What the roster records of the server.
    """

    says: Mapping[str, str]
    attested: Mapping[str, Attested]
    server: Attested | None = None

    def __bool__(self) -> bool:
        return bool(self.says or self.attested or self.server)

    def by(self, roster: Roster, silos: Iterable[str]) -> Enclaves:
        """Return the same with what a roster records of these silos and of the server, and nobody else."""
        names = set(silos)
        known = {one.name: one.attested for one in roster.members if one.attested is not None and one.name in names}
        server = None if roster.aggregator is None else roster.aggregator.attested
        return Enclaves(self.says, known, server)


NONE = Enclaves({}, {})


def keep(folder: Path, says: Mapping[str, str], roster: Roster | None, silos: Iterable[str]) -> None:
    """Write down what is known when a run begins; nothing where nothing is. Who once said ``direct-dev`` stays with it.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder.
    says : mapping of str to str
        By silo, as enrolment has read it.
    roster : Roster or None
        The server's.
    silos : iterable of str
        Who takes part.
    """
    before = read(folder)
    told = {**says, **{name: word for name, word in before.says.items() if word == DIRECT}}
    found = Enclaves(told, {})
    if roster is not None:
        found = found.by(roster, silos)
    if not found:
        return
    body = {
        "format": FORMAT,
        "says": dict(sorted(told.items())),
        "attested": {name: one.to_json() for name, one in sorted(found.attested.items())},
        "server": None if found.server is None else found.server.to_json(),
    }
    checkpoint.replace(folder / FILE, json.dumps(body, indent=1).encode() + b"\n")


def read(folder: Path) -> Enclaves:
    """Read what :func:`keep` wrote; :data:`NONE` where there is nothing.

    Raises
    ------
    EnclavesError
        If it is anything else.
    """
    try:
        with (folder / FILE).open("rb") as file:
            body = json.loads(file.read(MAX_BYTES))
        if set(body) != {"format", "says", "attested", "server"} or body["format"] != FORMAT:
            raise ValueError
        says = {str(name): PROFILES[PROFILES.index(word)] for name, word in body["says"].items()}
        attested = {str(name): Attested.from_json(one) for name, one in body["attested"].items()}
        return Enclaves(says, attested, None if body["server"] is None else Attested.from_json(body["server"]))
    except FileNotFoundError:
        return NONE
    except OSError as error:
        raise EnclavesError(f"{FILE} cannot be read: {error.strerror}.") from error
    except (AttributeError, IdentityError, RecursionError, TypeError, ValueError):
        raise EnclavesError(f"{FILE} is not what a run writes.") from None


def banner(found: Enclaves) -> str | None:
    """Return what has to stand wherever the run shows up, if a silo ran under ``direct-dev``."""
    loose = sorted(name for name, word in found.says.items() if word == DIRECT)
    if not loose:
        return None
    names = ", ".join(loose[:8]) + (f" and {len(loose) - 8} more" if len(loose) > 8 else "")
    return (
        f"{BANNER}: {names} ran under direct-dev, which is for finding out whether things work. Whoever owns such a "
        "machine can read and change everything on it."
    )


def sentences(found: Enclaves) -> list[str]:
    """Return what there is to say, the banner first, as far as it was verified and no further."""
    said = [text for text in (banner(found),) if text]
    for name, one in sorted(found.attested.items()):
        if found.says.get(name) != DIRECT:
            said.append(f"{name}: {_statement(one)}")
    said += [
        f"{name} says that it runs in an enclave, and no roster records that anybody verified it."
        for name, word in sorted(found.says.items())
        if word != DIRECT and name not in found.attested
    ]
    if found.server is not None:
        said.append(
            f"The server: {_statement(found.server)} Whether that key signed this run's log, the log itself shows."
        )
    return said


def _statement(one: Attested) -> str:
    day = datetime.fromtimestamp(one.verified, UTC).date().isoformat()
    root = (
        "Intel's root" if one.root == INTEL else f"A ROOT THAT IS NOT INTEL'S ({one.root[:16]}), which proves nothing"
    )
    return (
        f"its key was made in the enclave {one.measurement} (signer {one.signer[:16]}, product {one.product}, version "
        f"{one.version}; platform {', '.join([one.status, *one.advisories])}), as the admins of the roster verified on "
        f"{day}, up to {root}."
    )
