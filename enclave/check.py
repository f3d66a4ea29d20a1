"""A manifest held against what a rendering may hold, with Gramine absent: closed keys, and a rule for each value.

A key that is not here is refused, whatever it says: Gramine has many that weaken an enclave, and gets new ones. Some
are named for a better sentence.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quire.enclave.errors import EnclaveError
from quire.enclave.files import MAX_FILES, hashed, is_digest
from quire.enclave.manifest import DIRECT, KEYS, PROFILES, RUNTIME, SGX, STORE, TEMPORARY, mounts
from quire.enclave.settings import PLAIN, SEALS, SIZES
from quire.enclave.tracing import environment
from quire.text import visible

MAX_BYTES = 64 * 1024 * 1024
Rule = Callable[[Any], str | None]
# Folders that are Gramine's own inside, or what is sealed: nothing of the host's is mounted over them.
_NOT_THE_HOSTS = ("proc", "sys", "dev", "silo")
_BARE = re.compile(r"[A-Za-z0-9_]+")

# What is wrong with keys that a rendering never has. The first that fits is said.
_NAMED = (
    (re.compile(r"(^|\.)insecure__"), "opens the enclave to the host: no rendering has an insecure key"),
    (re.compile(r"(^|\.)debug__"), "is for debugging: no enclave for production has it"),
    (re.compile(r"^sgx\.allowed_files$"), "lets the host change files unseen: every file is trusted with its SHA-256"),
    (re.compile(r"^loader\.argv_src_file$"), "takes the arguments from a file: they are fixed in loader.argv"),
    (re.compile(r"^loader\.env_src_file$"), "takes the environment from a file: it is fixed in loader.env"),
    (re.compile(r"^sgx\.(profile|vtune_profile|enable_stats)"), "is for measuring, and needs an enclave in debug mode"),
    (re.compile(r"^sgx\.seal_key"), "changes what sealed files are bound to"),
    (re.compile(r"^loader\.env\."), "is not one of the environment's variables: nothing of the host's is handed in"),
)


def is_(expected: object) -> Rule:
    """Demand this very value, of this very type."""

    def rule(value: Any) -> str | None:
        if spelled(value) == spelled(expected):  # to Python, False is 0 and 1.0 is 1
            return None
        return f"must be {_shown(expected)}, and is {_shown(value)}"

    return rule


def one_of(*choices: str) -> Rule:
    """Demand one of some texts."""
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def whole(low: int, high: int) -> Rule:
    """Demand a whole number between bounds."""

    def rule(value: Any) -> str | None:
        good = type(value) is int and low <= value <= high
        return None if good else f"must be a whole number from {low} to {high}"

    return rule


def place(value: Any) -> str | None:
    """Demand an absolute path of plain characters."""
    good = isinstance(value, str) and PLAIN.fullmatch(value) and not {".", ".."} & set(value.split("/"))
    return None if good else "must be an absolute path of plain characters, without '.' and '..'"


def uri(value: Any) -> str | None:
    """Demand ``file:`` with an absolute path."""
    if not isinstance(value, str) or not value.startswith("file:"):
        return "must be file: with an absolute path"
    return place(value.removeprefix("file:"))


def places(value: Any) -> str | None:
    """Demand absolute paths with colons between them."""
    if not isinstance(value, str) or not value:
        return "must be absolute paths with colons between them"
    return next((problem for problem in map(place, value.split(":")) if problem), None)


def _arguments(value: Any) -> str | None:
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, str) and one for one in value):
        return "must fix the arguments: a list of texts, Python's own file and what it runs"
    return None


def _rules(profile: str) -> dict[str, Rule]:
    """Return what each key must be; those of lists of tables are checked apart."""
    fixed = environment(profile, (), (), "", 1)
    free: dict[str, Rule] = {"LD_LIBRARY_PATH": places, "PYTHONPATH": places, "PYTHONPYCACHEPREFIX": place}
    threads = {name: one_of(*map(str, range(1, 1025))) for name in fixed if name.endswith("_NUM_THREADS")}
    variables = {f"loader.env.{name}": (free | threads).get(name, is_(value)) for name, value in fixed.items()}
    return {
        "libos.entrypoint": place,
        "loader.entrypoint.uri": uri,
        "loader.log_level": is_("error"),
        "loader.argv": _arguments,
        **variables,
        "fs.root.type": is_("tmpfs"),
        "fs.start_dir": is_(TEMPORARY),
        "fs.mounts": lambda value: None if isinstance(value, list) else "must be a list",
        "sys.stack.size": one_of("1M", "2M", "4M", "8M", "16M", "32M"),
        "sys.fds.limit": whole(64, 1_000_000),
        "sys.disallow_subprocesses": is_(True),
        "sys.enable_sigterm_injection": is_(True),
        "sys.enable_extra_runtime_domain_names_conf": is_(True),
        "sys.experimental__enable_flock": is_(True),
        "sgx.debug": is_(profile == DIRECT),
        "sgx.remote_attestation": is_("dcap" if profile == SGX else "none"),
        "sgx.enclave_size": one_of(*SIZES),
        "sgx.max_threads": whole(4, 4096),
        "sgx.isvprodid": whole(0, 65535),
        "sgx.isvsvn": whole(0, 65535),
        "sgx.edmm_enable": is_(False),
        "sgx.use_exinfo": is_(False),
        "sgx.file_check_policy": is_("strict"),
        "sgx.trusted_files": lambda value: None if isinstance(value, list) else "must be a list",
        **(
            {
                "sys.debug__mock_syscalls": is_([{"name": "utimensat", "return": 0}]),
                "sgx.allowed_files": lambda value: None if isinstance(value, list) else "must be a list",
            }
            if profile == DIRECT
            else {}
        ),
    }


def problems(text: str, profile: str) -> list[str]:
    """Return what is wrong with a manifest, a sentence for each; none if it is sound.

    Parameters
    ----------
    text : str
        The manifest.
    profile : str
        ``direct-dev`` or ``sgx-prod``: what it should be. What it says of itself counts for nothing.

    Raises
    ------
    EnclaveError
        If it is not TOML, or there is no such profile.
    """
    if profile not in PROFILES:
        raise EnclaveError(f"There is no profile '{visible(profile, 40)}'; there are {' and '.join(PROFILES)}.")
    rules, flat = _rules(profile), decoded(text)
    wrong = [f"{key} is missing." for key in rules if key not in flat]
    for key, value in flat.items():
        if key not in rules:
            wrong.append(f"{visible(key)} {objection_to(key) or 'is no key of a rendering'}.")
        elif problem := rules[key](value):
            wrong.append(f"{visible(key)} {problem}.")
    if not wrong:
        wrong += _trusted(flat) or [*_mounts(flat, profile), *_fit(flat)]
    return wrong


def check(path: Path, profile: str, files: bool = False) -> list[str]:
    """Return what is wrong with a file, as :func:`problems`; with ``files``, also whose content is another by now.

    Raises
    ------
    EnclaveError
        If it cannot be read.
    """
    text = read_text(path)
    wrong = problems(text, profile)
    if files and not wrong:
        listed = {
            one["uri"].removeprefix("file:"): one["sha256"] for one in tomllib.loads(text)["sgx"]["trusted_files"]
        }
        wrong = [
            f"{name} is not what it was when it was listed." for name, now in hashed(listed) if listed[name] != now
        ]
    return wrong


def read_text(path: Path) -> str:
    """Read a manifest."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise EnclaveError(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > MAX_BYTES:
        raise EnclaveError(f"{path} is larger than {MAX_BYTES} bytes, more than a manifest has.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise EnclaveError(f"{path} is not a text in UTF-8.") from None


def decoded(text: str) -> dict[str, Any]:
    """Return the values of a manifest by the keys that lead to them, with dots between.

    Raises
    ------
    EnclaveError
        If it is not TOML.
    """
    try:
        return dict(_flat(tomllib.loads(text)))
    except (ValueError, RecursionError) as error:  # also: a number too long for Python, or tables without end
        raise EnclaveError(f"The manifest is not TOML: {visible(str(error), 200)}.") from None


def objection_to(key: str) -> str | None:
    """Return what is wrong with a key that a rendering never has; None if nothing is known of it."""
    return next((words for form, words in _NAMED if form.search(key)), None)


def _flat(table: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value with the keys that lead to it; an empty table as a value."""
    for key, value in table.items():
        # A quoted key may have a dot in it and must not pass for two: ["sgx.debug"] is not [sgx] debug.
        name = f"{before}{key}" if _BARE.fullmatch(key) else f"{before}'{key}'"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _trusted(flat: dict[str, Any]) -> list[str]:
    entries, seen, wrong = flat["sgx.trusted_files"], set[str](), []
    if not entries or len(entries) > MAX_FILES:
        wrong.append(f"sgx.trusted_files must name 1 to {MAX_FILES} files, and names {len(entries)}.")
    for one in entries:
        if not isinstance(one, dict) or set(one) != {"uri", "sha256"} or not is_digest(one["sha256"]):
            wrong.append(f"sgx.trusted_files: {_shown(one)} is not a file with its SHA-256; folders are not listed.")
        elif problem := uri(one["uri"]):
            wrong.append(f"sgx.trusted_files: {_shown(one['uri'])} {problem}; folders and patterns are not listed.")
        elif one["uri"].split("/")[1] in _NOT_THE_HOSTS or one["uri"] == "file:/lib":
            wrong.append(f"sgx.trusted_files: {_shown(one['uri'])} cannot be trusted.")
        elif one["uri"] in seen:
            wrong.append(f"sgx.trusted_files: {_shown(one['uri'])} is there twice.")
        else:
            seen.add(one["uri"])
    # What has a file below it is a folder, and would be mounted with all that is in it.
    folders = {"/".join(parts[:end]) for uri in seen if (parts := uri.split("/")) for end in range(2, len(parts))}
    wrong += [
        f"sgx.trusted_files: {_shown(one)} is a folder; folders are not listed." for one in sorted(seen & folders)
    ]
    return wrong


def _mounts(flat: dict[str, Any], profile: str) -> Iterator[str]:
    """Say what is wrong with mounts: the files of the list and no more, and what is sealed."""
    libos = flat["loader.entrypoint.uri"]
    gramine = libos.removeprefix("file:").removesuffix("/libsysdb.so")
    if not libos.endswith("/libsysdb.so"):
        yield f"loader.entrypoint.uri must be Gramine's libsysdb.so, and is {_shown(libos)}."
    paths = tuple(one["uri"].removeprefix("file:") for one in flat["sgx.trusted_files"])
    known = {"/lib": f"file:{gramine}/{RUNTIME}", **{path: f"file:{path}" for path in mounts(paths)}}
    seen: dict[str, str] = {}
    for one in flat["fs.mounts"]:
        if not isinstance(one, dict) or not isinstance(one.get("path"), str) or one["path"] in seen:
            yield f"fs.mounts: {_shown(one)} is no mount, or its path is there twice."
            continue
        path, kind = one["path"], one.get("type")
        seen[path] = str(one.get("uri"))
        if path == TEMPORARY:
            good = one == {"type": "tmpfs", "path": path}
        elif path in (STORE, KEYS):
            good = not uri(one.get("uri")) and (
                set(one) == {"type", "path", "uri", "key_name"} and kind == "encrypted" and _seals(one["key_name"])
                if profile == SGX
                else set(one) == {"type", "path", "uri"} and kind == "chroot"
            )
        else:
            good = path in known and one == {"type": "chroot", "path": path, "uri": known[path]}
        if not good:
            words = "is not encrypted with a key of the enclave's" if path in (STORE, KEYS) else "is no mount of ours"
            yield f"fs.mounts: {_shown(one)} {words}: it is wider, or another, than the files of the list need."
    for path in (TEMPORARY, STORE, KEYS, "/lib"):
        if path not in seen:
            yield f"fs.mounts: nothing is mounted at {path}."
    if STORE in seen and seen[STORE] == seen.get(KEYS):
        yield f"fs.mounts: {STORE} and {KEYS} are one folder."
    if profile == DIRECT:
        expected = [f"{seen.get(STORE)}/", f"{seen.get(KEYS)}/"]
        if flat["sgx.allowed_files"] != expected:
            yield f"sgx.allowed_files must be {_shown(expected)}, and is {_shown(flat['sgx.allowed_files'])}."


def _seals(key: object) -> bool:
    return key in SEALS.values()


def _fit(flat: dict[str, Any]) -> Iterator[str]:
    """Say which values do not fit together."""
    listed = {one["uri"] for one in flat["sgx.trusted_files"]}
    python = flat["libos.entrypoint"]
    if flat["loader.argv"][0] != python:
        yield f"loader.argv must begin with {python}, which libos.entrypoint starts."
    for one in (f"file:{python}", flat["loader.entrypoint.uri"]):
        if one not in listed:
            yield f"sgx.trusted_files lacks {_shown(one)}, which is started."
    threads = {flat[key] for key in flat if key.endswith("_NUM_THREADS")}
    if len(threads) > 1 or int(next(iter(threads))) >= flat["sgx.max_threads"]:
        yield "loader.env: numerical libraries must have one number of threads, below sgx.max_threads."


def spelled(value: object) -> str:
    """Return a value of TOML so that two are spelled alike if they are of one type and the same."""
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except ValueError:  # a number of more digits than Python writes
        return "?"


def _shown(value: object) -> str:
    try:
        return visible(str(value).lower() if isinstance(value, bool) else repr(value), 160)
    except ValueError:
        return "too long a number"
