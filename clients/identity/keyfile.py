"""Key files: ``FILE`` with the secret keys of one party, for its owner alone, and ``FILE.pub`` with the public ones."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from quire.clients.identity import armour, files, passphrase
from quire.clients.identity.errors import IdentityFileError, PassphraseNeeded, sentences
from quire.privacy.identity.errors import BadEncoding
from quire.privacy.identity.keys import SEED_SIZE, PrivateIdentity, PublicIdentity
from quire.privacy.identity.roster import NAME_WORDS, is_name

SUFFIX = ".pub"
_ALGORITHMS = {"Ed25519": False, "Ed25519+ML-DSA-65": True}
_PLAIN, _ENCRYPTED = "none", "scrypt+AES-256-GCM"


@dataclass(frozen=True)
class KeyFile:
    """What a key file says of itself without its passphrase.

    Attributes
    ----------
    path : pathlib.Path
        Where it is.
    name : str or None
        What its maker called it; a proposal, for names that count are in a roster.
    post_quantum : bool
        Whether there is an ML-DSA-65 key.
    fingerprint : str
        Of the public keys.
    encrypted : bool or None
        Whether a passphrase is needed; None in a file of public keys.
    """

    path: Path
    name: str | None
    post_quantum: bool
    fingerprint: str
    encrypted: bool | None
    _body: bytes = field(repr=False)
    _about: bytes = field(repr=False)

    @property
    def algorithms(self) -> str:
        """The names of its algorithms."""
        return "Ed25519 + ML-DSA-65" if self.post_quantum else "Ed25519"

    def public(self) -> PublicIdentity:
        """Return the public keys of a file of public keys.

        Raises
        ------
        IdentityFileError
            If it is a file of secret keys, or its keys are not what it says.
        """
        if self.encrypted is not None:
            raise IdentityFileError(f"{self.path} holds secret keys, which go to nobody: name {self.path}{SUFFIX}.")
        with sentences(self.path):
            found = PublicIdentity.decode(self._body)
        self._agrees(found)
        return found

    def open(self, words: str | None = None) -> PrivateIdentity:
        """Return the private identity of a file of secret keys.

        Parameters
        ----------
        words : str or None
            The passphrase; needed if ``encrypted``, and left alone if not.

        Raises
        ------
        PassphraseNeeded
            If it is encrypted, and there is none.
        IdentityFileError
            If it is a file of public keys, the passphrase is wrong, or its keys are not what it says.
        """
        if self.encrypted is None:
            raise IdentityFileError(f"{self.path} holds public keys: name the file of the secret ones.")
        with sentences(self.path):
            if not self.encrypted:
                found = PrivateIdentity.decode_secret(self._body)
            elif words is None:
                raise PassphraseNeeded(
                    f"{self.path} is encrypted: its passphrase is needed; a service finds it in the file that the "
                    f"environment variable {passphrase.VARIABLE} names."
                )
            else:
                secret = passphrase.decrypt(words, self._body, self._about)
                if secret is None:
                    raise IdentityFileError(f"The passphrase does not open {self.path}.")
                found = PrivateIdentity.decode_secret(secret)
        self._agrees(found.public)
        return found

    def _agrees(self, public: PublicIdentity) -> None:
        if (public.fingerprint, public.post_quantum) != (self.fingerprint, self.post_quantum):
            raise IdentityFileError(f"{self.path} has been changed: its keys are not those of its fingerprint.")


def new_identity(
    path: Path,
    name: str | None = None,
    post_quantum: bool = False,
    words: str | None = None,
    cost: int = passphrase.COST,
) -> PublicIdentity:
    """Make an identity from the operating system's randomness, and write ``path`` and ``path.pub``.

    Parameters
    ----------
    path : pathlib.Path
        Where the secret keys go: a new file, readable and writable by its owner alone.
    name : str or None
        What it is called, under the rules for names in a roster.
    post_quantum : bool
        Whether to have an ML-DSA-65 key beside the Ed25519 key.
    words : str or None
        Passphrase that encrypts the secret keys; None for none.
    cost : int
        scrypt's N is two to the power of this.

    Raises
    ------
    IdentityFileError
        If a file exists already or cannot be written, the name is none, or the passphrase is too short. Then neither
        file is left behind, and no existing one is touched.
    """
    if name is not None and not is_name(name):
        raise IdentityFileError(f"The name of an identity must be {NAME_WORDS}.")
    if words is not None:
        passphrase.check_strength(words)
    beside = path.with_name(path.name + SUFFIX)
    files.check_absent(path)
    identity = PrivateIdentity.from_seed(secrets.token_bytes(SEED_SIZE), post_quantum)
    headers = _headers(identity.public, name) | {"Protection": _PLAIN if words is None else _ENCRYPTED}
    body = identity.encode_secret()
    if words is not None:
        body = passphrase.encrypt(words, body, _about(headers), cost)
    # The public file first: should the second fail, what is taken back is worth nothing.
    files.create(beside, write_public(identity.public, name), files.EVERYBODY)
    try:
        files.create(path, armour.write(armour.PRIVATE, headers, body), files.OWNER_ONLY)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return identity.public


def write_public(public: PublicIdentity, name: str | None) -> bytes:
    """Return the contents of a file of public keys."""
    return armour.write(armour.PUBLIC, _headers(public, name), public.encode())


def read_key_file(path: Path) -> KeyFile:
    """Read a file of keys, public or secret; opens nothing that is encrypted.

    Raises
    ------
    IdentityFileError
        If it cannot be read, is damaged, or holds secret keys and others than its owner can read it.
    """
    data, mode = files.read_with_mode(path, armour.MAX_BYTES)
    with sentences(path):
        kind, headers, body = armour.read(data)
        if kind == armour.PRIVATE:
            files.check_private(path, mode)
        if headers.get("Format") != "1":
            raise BadEncoding("this version of Quire reads key files of format 1 only.")
        expected = ["Format", *(["Name"] if "Name" in headers else []), "Keys", "Fingerprint"]
        expected += ["Protection"] if kind == armour.PRIVATE else []
        if (
            list(headers) != expected
            or headers["Keys"] not in _ALGORITHMS
            or headers.get("Protection", _PLAIN) not in (_PLAIN, _ENCRYPTED)
            or ("Name" in headers and not is_name(headers["Name"]))
        ):
            raise BadEncoding("the lines above the keys are not those of a key file.")
    return KeyFile(
        path=path,
        name=headers.get("Name"),
        post_quantum=_ALGORITHMS[headers["Keys"]],
        fingerprint=headers["Fingerprint"],
        encrypted=headers["Protection"] == _ENCRYPTED if kind == armour.PRIVATE else None,
        _body=body,
        _about=_about(headers),
    )


def load_identity(path: Path, words: str | None = None) -> PrivateIdentity:
    """Read the secret keys of a party.

    Parameters
    ----------
    path : pathlib.Path
        The file, mode 0600.
    words : str or None
        Its passphrase, if it has one; None: that of the file which ``QUIRE_PASSPHRASE_FILE`` names, if it is set.

    Raises
    ------
    PassphraseNeeded
        If it is encrypted, and there is none.
    IdentityFileError
        If it cannot be read, others can read it, it is damaged, or the passphrase is wrong.
    """
    found = read_key_file(path)
    if words is None and found.encrypted:
        words = passphrase.of_service()
    return found.open(words)


def _headers(public: PublicIdentity, name: str | None) -> dict[str, str]:
    named = {} if name is None else {"Name": name}
    return {"Format": "1", **named, "Keys": "+".join(public.algorithms), "Fingerprint": public.fingerprint}


def _about(headers: dict[str, str]) -> bytes:
    return "\n".join(f"{key}: {value}" for key, value in headers.items()).encode()
