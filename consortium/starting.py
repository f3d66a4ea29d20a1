"""What a silo's folder begins with for people: a ``silo.yaml`` to complete, and a README of three commands."""

from __future__ import annotations

from pathlib import Path

from quire.consortium.about import SiloAbout
from quire.consortium.certificates import day

_SILO = """\
# This silo's own file: what it reads, and what it lets out. It never travels. docs/silo-policy.md explains every line;
# `quire silo check {file}` says what it comes to.
name: {name}
identity: identity/silo.key
store: store
data:                        # where the rows are; the agreed schema.yaml lies beside: docs/bring-your-own-data.md
  connector: csv
  path: rows.csv
"""
_POLICY = """\
population: {{name: {name}, records: {records}}}
policy:                      # careful to begin with: widen what you have decided to
  modes: [record_distributed]
  aggregation: [secure]
  code: []                   # list the hash of the code that you reviewed: `quire app hash`
  epsilon: 1.0
"""
_NO_POLICY = """\
# Without a policy every run is refused. Say how many records there are, a public number, and what you accept:
# population: {{name: {name}, records: 1000}}
# policy: {{modes: [record_distributed], aggregation: [secure], code: [], epsilon: 1.0}}
"""
_README = """\
# {member} in {name}: three commands

The server is {server}. Keys in this folder never leave it; keep a copy of `identity/` where nobody else can read it.

1. `quire consortium request INVITATION --folder {root}`
   made the keys, and `request.json`, which goes to the operator.
2. `quire consortium join ADMISSION --folder {root}`
   installs what the operator sends back: the admission now, renewals and bulletins later.
3. `quire silo start {root}`
   serves, once `silo.yaml` names the rows and says what is accepted.

{state} `quire consortium status {root}` says how long the certificate is good for, and
`quire consortium renew {root}` asks for the next one.
"""


def silo_file(name: str, records: int | None, path: Path) -> bytes:
    """Return the `silo.yaml` that a silo begins with; no rows are named in it yet, and little is accepted.

    Parameters
    ----------
    name : str
        The silo's.
    records : int or None
        How many records it declares; None: there is no policy yet, and every run is refused.
    path : pathlib.Path
        Where it goes.
    """
    policy = _NO_POLICY if records is None else _POLICY
    return (_SILO.format(name=name, file=path) + policy.format(name=name, records=records)).encode()


def readme(about: SiloAbout, root: Path) -> bytes:
    """Return a silo's README: three commands, and how far it has come."""
    state = "It waits to be admitted." if about.joined is None else f"It joined on {day(about.joined)}."
    text = _README.format(member=about.member, name=about.name, server=about.server, root=root, state=state)
    return text.encode()
