"""The folders of an operator and of silos that have joined, provisioned in one go on one machine, and silo files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from consortium_parties import Parties
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import Certificate

from quire.consortium.about import Server
from quire.consortium.authority import Authority
from quire.consortium.founding import init
from quire.consortium.joining import join
from quire.consortium.layout import OperatorFolder, SiloFolder
from quire.consortium.vault import open_authority

POLICY = "modes: [none], aggregation: [secure], code: [], min_cohort: 2, colluders: 0, test_seed: true"
DAYS = 30


@dataclass
class Provisioned:
    """A consortium in a folder.

    Attributes
    ----------
    parties : Parties
    silos : dict of str to SiloFolder
        By name.
    """

    parties: Parties
    silos: dict[str, SiloFolder]

    @property
    def operator(self) -> OperatorFolder:
        return self.parties.operator

    @property
    def authority(self) -> Authority:
        """With its key, for what provisioning would never sign."""
        return open_authority(self.operator, "hearts", None)

    def both(self, name: str, file: Path) -> Path:
        """Write a silo's certificate and key into one file, and return its path."""
        silo = self.silos[name]
        file.write_bytes(silo.client_certificate.read_bytes() + silo.client_key.read_bytes())
        return file


def provision(root: Path, names: Sequence[str], server: Server, policy: str = POLICY) -> Provisioned:
    """Make the folders; the silos share out a shipped data set."""
    parties = Parties(root, int(time.time()))
    init(parties.operator.root, "hearts", server, None, now=parties.now)
    silos = {name: parties.bring(name) for name in names}
    for place, (name, silo) in enumerate(silos.items()):
        join(silo.root, parties.operator.bulletin, now=parties.now)
        (pinned,) = [line for line in silo.silo_file.read_text().splitlines() if line.startswith("roster: ")]
        silo.silo_file.write_text(
            f"name: {name}\ndata: {{connector: shipped, partition: {place}, partitions: {len(names)}}}\n"
            f"population: {{name: breast-{place}, records: 100}}\nidentity: identity/silo.key\n"
            f"{pinned}\npolicy: {{{policy}}}\n"
        )
    return Provisioned(parties, silos)


def pem(certificate: Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def secret(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
