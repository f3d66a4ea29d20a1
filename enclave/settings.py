"""``enclave.yaml``: what a silo's enclave is made of. It belongs to one machine, and nothing of it travels.

::

    name: hospital-1
    store: /srv/quire/store          # on the host; encrypted there, /silo/store inside. Holds the privacy ledger
    keys: /srv/quire/keys            # on the host; encrypted there, /silo/keys inside
    gramine: /usr/lib/x86_64-linux-gnu/gramine
    command: [-m, quire.enclave.inside, task=breast_cancer]
    size: 8G
    threads: 64
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from quire.conf.strict_yaml import Entry, read_yaml

#: What runs inside unless `command` says otherwise: one round of a small federation, in one process.
COMMAND = ("-m", "quire.enclave.inside", "strategy.rounds=1", "output.report=false", "output.baselines=false")
SIZES = tuple(f"{2**power}{unit}" for unit, powers in (("M", (9,)), ("G", range(10))) for power in powers)
SEALS = {"measurement": "_sgx_mrenclave", "signer": "_sgx_mrsigner"}
#: A part of a path that TOML, Gramine's URIs and a terminal all show as it is.
PLAIN = re.compile(r"(?:/[A-Za-z0-9_.,+@%=~ ()\[\]-]+)+")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_REQUIRED = ("name", "store", "keys", "gramine")
_OPTIONAL = (
    *(
        "command",
        "files",
        "size",
        "threads",
        "cores",
        "stack",
        "descriptors",
        "product",
        "version",
        "seal",
        "workspace",
    ),
)


@dataclass(frozen=True)
class Enclave:
    """The settings of one enclave.

    Attributes
    ----------
    name : str
    store, keys : pathlib.Path
        Folders on the host that are encrypted for the enclave; ``/silo/store`` and ``/silo/keys`` inside.
    gramine : pathlib.Path
        Where Gramine keeps ``libsysdb.so`` and ``runtime/glibc/``.
    command : tuple of str
        What Python is told, and all that it is told.
    files : pathlib.Path
        The list of files, made by ``quire enclave trace``.
    workspace : pathlib.Path
        Where compiled modules are kept.
    size : str
        Memory of the enclave, a power of two: ``4G``.
    threads : int
        Threads that may be inside at once.
    cores : int
        Threads that numerical libraries start.
    stack : str
        Of each thread: ``8M``.
    descriptors : int
        Files and sockets that may be open at once.
    product, version : int
        ISVPRODID and ISVSVN, for allow-lists.
    seal : str
        ``measurement``: only the very same enclave opens what was sealed; ``signer``: later versions do as well.
    """

    name: str
    store: Path
    keys: Path
    gramine: Path
    command: tuple[str, ...]
    files: Path
    workspace: Path
    size: str
    threads: int
    cores: int
    stack: str
    descriptors: int
    product: int
    version: int
    seal: str


def read_settings(path: Path) -> Enclave:
    """Read ``enclave.yaml``; relative paths are meant from its folder.

    Raises
    ------
    DataError
        If it is not as it should be.
    """
    found = read_yaml(path).mapping(_REQUIRED, _OPTIONAL)
    home = path.resolve().parent
    name = found["name"].text()
    if not _NAME.fullmatch(name):
        found["name"].fail("'name' has small letters, digits and hyphens, as in hospital-1")

    def whole(key: str, low: int, high: int, default: int) -> int:
        return found[key].whole(low, high) if key in found else default

    def one_of(key: str, choices: tuple[str, ...], default: str) -> str:
        value = found[key].text() if key in found else default
        if value not in choices:
            found[key].fail(f"'{key}' must be one of {', '.join(choices)}")
        return value

    def place(key: str, default: str) -> Path:
        return _place(found[key], home) if key in found else home / default

    store, keys = _place(found["store"], home), _place(found["keys"], home)
    if store == keys or store in keys.parents or keys in store.parents:
        found["keys"].fail("'store' and 'keys' must be two folders, none within the other")
    return Enclave(
        name=name,
        store=store,
        keys=keys,
        gramine=_place(found["gramine"], home),
        command=_command(found["command"]) if "command" in found else COMMAND,
        files=place("files", "enclave-files.json"),
        workspace=place("workspace", "enclave-bytecode"),
        size=one_of("size", SIZES, "4G"),
        threads=whole("threads", 4, 4096, 64),
        cores=whole("cores", 1, 1024, 1),
        stack=one_of("stack", ("1M", "2M", "4M", "8M", "16M", "32M"), "8M"),
        descriptors=whole("descriptors", 64, 1_000_000, 4096),
        product=whole("product", 0, 65535, 1),
        version=whole("version", 0, 65535, 1),
        seal=one_of("seal", tuple(SEALS), "measurement"),
    )


def _command(entry: Entry) -> tuple[str, ...]:
    found = entry.texts()
    if not found:
        entry.fail("'command' must say what Python shall run, as in [-m, quire.enclave.inside]")
    if not all(text.isprintable() for text in found):
        entry.fail("'command' holds a character that does not print")
    return found


def _place(entry: Entry, home: Path) -> Path:
    path = home / entry.text()
    if ".." in path.parts or not PLAIN.fullmatch(str(path)):
        entry.fail(f"'{entry.key}' must be a path of plain characters, without '..'")
    return path
