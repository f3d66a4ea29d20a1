"""Each way to weaken a manifest is caught, those we thought of and any change of a key."""

import copy
import functools
import tempfile
import tomllib
from pathlib import Path

import pytest
from enclaves import enclave
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.enclave.check import check, problems
from quire.enclave.errors import EnclaveError
from quire.enclave.manifest import DIRECT, PROFILES, SGX, render


@functools.cache
def rendering(profile=SGX) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return render(*enclave(Path(folder)), profile)


def toml(value) -> str:
    """Write TOML: inline, which says the same as tables do."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {toml(one)}' for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def written(tree: dict) -> str:
    return "\n".join(f'"{key}" = {toml(value)}' for key, value in tree.items())


def changed(change) -> list[str]:
    tree = tomllib.loads(rendering())
    change(tree)
    return problems(written(tree), SGX)


def at(*keys):
    def put(value):
        def change(tree):
            for key in keys[:-1]:
                tree = tree[key]
            tree[keys[-1]] = value

        return change

    return put


def mounted(which, **of):
    def change(tree):
        one = next(one for one in tree["fs"]["mounts"] if one["path"] == which)
        one.update(of)
        for key in [key for key, value in one.items() if value is None]:
            del one[key]

    return change


def trust(entry):
    return lambda tree: tree["sgx"]["trusted_files"].append(entry)


def add_mount(**of):
    return lambda tree: tree["fs"]["mounts"].append(of)


def whole(path):
    """List a folder as if it were a file, and mount it."""

    def change(tree):
        trust({"uri": f"file:{path}", "sha256": DIGEST})(tree)
        add_mount(type="chroot", path=path, uri=f"file:{path}")(tree)

    return change


DIGEST = "00" * 32
WEAKENED = {
    "debug on": (at("sgx", "debug")(True), "sgx.debug"),
    "debug as a text": (at("sgx", "debug")("false"), "sgx.debug"),
    "debug as a number": (at("sgx", "debug")(0), "sgx.debug"),
    "host environment": (at("loader", "insecure__use_host_env")(True), "insecure key"),
    "host arguments": (at("loader", "insecure__use_cmdline_argv")(True), "insecure key"),
    "insecure key, though false": (at("sgx", "insecure__rpc_thread_num")(0), "insecure key"),
    "known keys of sealed files": (at("fs", "insecure__keys")({"default": "00"}), "insecure key"),
    "eventfd": (at("sys", "insecure__allow_eventfd")(True), "insecure key"),
    "arguments from a file": (at("loader", "argv_src_file")("file:/a/b"), "from a file"),
    "environment from a file": (at("loader", "env_src_file")("file:/a/b"), "from a file"),
    "variable handed in": (at("loader", "env", "LANG")({"passthrough": True}), "loader.env.LANG"),
    "variable more": (at("loader", "env", "LD_PRELOAD")("/a/b.so"), "loader.env.LD_PRELOAD"),
    "start-up file": (at("loader", "env", "PYTHONSTARTUP")("/a/b.py"), "loader.env.PYTHONSTARTUP"),
    "safe path off": (at("loader", "env", "PYTHONSAFEPATH")(""), "PYTHONSAFEPATH"),
    "wide trusted folder": (trust({"uri": "file:/usr/lib/", "sha256": DIGEST}), "folders and patterns"),
    "trusted folder as a text": (trust("file:/usr/lib/"), "not a file with its SHA-256"),
    "trusted without a hash": (trust({"uri": "file:/usr/lib/x.so"}), "not a file with its SHA-256"),
    "trusted pattern": (trust({"uri": "file:/usr/lib/*", "sha256": DIGEST}), "folders and patterns"),
    "trusted, relative": (trust({"uri": "file:lib/x.so", "sha256": DIGEST}), "absolute path"),
    "trusted, up": (trust({"uri": "file:/usr/../etc/x", "sha256": DIGEST}), "absolute path"),
    "trusted, the kernel's": (trust({"uri": "file:/proc/cpuinfo", "sha256": DIGEST}), "cannot be trusted"),
    "trusted, here": (trust({"uri": "file:/usr/./x.so", "sha256": DIGEST}), "absolute path"),
    "trusted, a short hash": (trust({"uri": "file:/usr/lib/x.so", "sha256": "00"}), "SHA-256"),
    "allowed files": (at("sgx", "allowed_files")(["file:/srv/data/"]), "allowed_files"),
    "allowed files, none": (at("sgx", "allowed_files")([]), "allowed_files"),
    "files not checked": (at("sgx", "file_check_policy")("allow_all_but_log"), "file_check_policy"),
    "no attestation": (at("sgx", "remote_attestation")("none"), "remote_attestation"),
    "attestation missing": (lambda tree: tree["sgx"].pop("remote_attestation"), "remote_attestation is missing"),
    "store in clear": (mounted("/silo/store", type="chroot", key_name=None), "not encrypted"),
    "store with a key of somebody's": (mounted("/silo/store", key_name="default"), "not encrypted"),
    "store that mends itself": (mounted("/silo/store", enable_recovery=True), "not encrypted"),
    "store missing": (lambda tree: tree["fs"]["mounts"].pop(-2), "nothing is mounted at /silo/store"),
    "keys missing": (lambda tree: tree["fs"]["mounts"].pop(-1), "nothing is mounted at /silo/keys"),
    "keys elsewhere": (mounted("/silo/keys", uri="dev:tty"), "/silo/keys"),
    "everything mounted": (add_mount(type="chroot", path="/", uri="file:/"), "wider"),
    "everything mounted, as a file of the list": (whole("/."), "absolute path"),
    "devices of the host": (whole("/dev"), "cannot be trusted"),
    "devices of the host, another way": (whole("/./dev"), "absolute path"),
    "processes of the host": (whole("/proc"), "cannot be trusted"),
    "what is sealed, from the host": (whole("/silo"), "cannot be trusted"),
    "the host's libraries for Gramine's": (
        lambda tree: (trust({"uri": "file:/lib", "sha256": DIGEST})(tree), mounted("/lib", uri="file:/lib")(tree)),
        "cannot be trusted",
    ),
    "shared memory": (add_mount(type="untrusted_shm", path="/dev/shm", uri="dev:/dev/shm"), "no mount of ours"),
    "root of the host": (at("fs", "root")({"type": "chroot", "uri": "file:/"}), "fs.root.type"),
    "forks": (at("sys", "disallow_subprocesses")(False), "disallow_subprocesses"),
    "mocked system calls": (at("sys", "debug__mock_syscalls")([{"name": "fsync", "return": 0}]), "for debugging"),
    "device calls": (at("sys", "allowed_ioctls")([{"request_code": 1}]), "no key of a rendering"),
    "statistics": (at("sgx", "enable_stats")(True), "for measuring"),
    "profile": (at("sgx", "profile")({"enable": "all"}), "for measuring"),
    "seal masks": (at("sgx", "seal_key")({"flags_mask": "0x0"}), "sealed files"),
    "log to the host": (at("loader", "log_level")("trace"), "log_level"),
    "log file": (at("loader", "log_file")("/a/log"), "no key of a rendering"),
    "another program": (at("libos", "entrypoint")("/bin/sh"), "must begin with"),
    "another first argument": (lambda tree: tree["loader"]["argv"].insert(0, "/bin/sh"), "must begin with"),
    "no arguments": (at("loader", "argv")([]), "fix the arguments"),
    "another library system": (at("loader", "entrypoint", "uri")("file:/a/libevil.so"), "libsysdb.so"),
    "library system with its own hash": (at("loader", "entrypoint", "sha256")(DIGEST), "no key of a rendering"),
    "memory without a unit": (at("sgx", "enclave_size")("4096"), "enclave_size"),
    "threads unbounded": (at("sgx", "max_threads")(10**6), "max_threads"),
    "threads that do not fit": (at("loader", "env", "OMP_NUM_THREADS")("64"), "threads"),
    "dots in a key": (lambda tree: tree.update({"sgx.debug": False}), "no key of a rendering"),
    "tables that are none": (at("fs", "mounts")("all"), "must be a list"),
    "nothing trusted": (at("sgx", "trusted_files")([]), "must name 1 to"),
}


@pytest.mark.parametrize("name", WEAKENED)
def test_a_weakening_is_caught(name):
    change, words = WEAKENED[name]
    found = changed(change)
    assert any(words in one for one in found), found
    assert all(one.endswith(".") and "\n" not in one for one in found)


def test_a_change_of_nothing_is_sound():
    assert changed(lambda tree: None) == []


def test_a_folder_that_is_listed_as_a_file_is_caught():
    entrypoint = tomllib.loads(rendering())["libos"]["entrypoint"]
    top = "/" + entrypoint.split("/")[1]
    assert changed(whole(top)) == [f"sgx.trusted_files: 'file:{top}' is a folder; folders are not listed."]


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "1" * 5000,
        "[sgx]\ndebug = 0x" + "f" * 6000,
        "[fs]\nmounts = [0x" + "f" * 6000 + "]",
        ".".join("a" * 3000) + " = 1",
        "a = " + "[" * 5000 + "]" * 5000,
    ],
    ids=["digits", "hexadecimal", "in a list", "tables", "lists"],
)
def test_a_text_beyond_measure_is_refused_in_a_sentence(text):
    try:
        found = problems(text, SGX)
    except EnclaveError as error:
        found = [str(error)]
    assert found
    assert all(one.endswith(".") and "\n" not in one for one in found)


@pytest.mark.parametrize(("old", "new"), [("debug = false", "debug = {}"), ("mounts = [", "mounts = [{},")])
def test_a_number_beyond_measure_is_told_in_words(old, new):
    """Python itself refuses to write that many digits."""
    found = problems(rendering().replace(old, new.format("0x" + "f" * 6000)), SGX)
    assert any("too long a number" in one for one in found)


def test_what_a_manifest_says_of_itself_counts_for_nothing():
    assert problems(rendering(DIRECT), DIRECT) == []
    assert any("sgx.debug" in one for one in problems(rendering(DIRECT), SGX))
    assert problems(rendering(SGX), DIRECT)


def leaves(tree, before=()):
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(value, dict | list) and value:
            yield from leaves(value, (*before, key))
        else:
            yield (*before, key)


#: What is free within bounds, and so cannot be told from another rendering: that is what the measurement is for.
FREE = {
    *("libraries", "isvprodid", "isvsvn", "enclave_size", "max_threads", "size", "limit", "sha256"),
    *("LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONPYCACHEPREFIX", "OMP_NUM_THREADS"),
}
JUNK = st.one_of(
    st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False), st.text("ab/.*:", max_size=6)
)


@settings(max_examples=80)
@given(st.data())
@pytest.mark.parametrize("profile", PROFILES)
def test_any_other_value_of_any_key_that_matters_is_caught(profile, data):
    tree = tomllib.loads(rendering(profile))
    changed = copy.deepcopy(tree)
    where = data.draw(st.sampled_from([one for one in leaves(tree) if one[-1] not in FREE and "argv" not in one]))
    inner = changed
    for key in where[:-1]:
        inner = inner[key]
    old = inner[where[-1]]
    new = data.draw(JUNK.filter(lambda value: not (type(value) is type(old) and value == old)))
    if where[-1] == "uri" and where[1] == "mounts" and str(new).startswith("file:/"):
        return  # where sealed folders lie on the host is free
    inner[where[-1]] = new
    assert problems(written(changed), profile)


@settings(max_examples=60)
@given(st.data())
@pytest.mark.parametrize("profile", PROFILES)
def test_any_key_that_is_missing_or_more_is_caught(profile, data):
    tree = tomllib.loads(rendering(profile))
    tables = [(), *{one[:-1] for one in leaves(tree) if one and isinstance(one[-1], str)}]
    where = data.draw(st.sampled_from(sorted(tables, key=str)))
    inner = tree
    for key in where:
        inner = inner[key]
    if data.draw(st.booleans()):
        del inner[data.draw(st.sampled_from(sorted(inner)))]
    else:
        name = data.draw(
            st.text("abcdefghijklmnopqrstuvwxyz_.", min_size=1, max_size=20).filter(lambda k: k not in inner)
        )
        inner[name] = data.draw(JUNK)
    assert problems(written(tree), profile)


@settings(max_examples=60)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=100).map(lambda raw: raw.decode("latin-1"))))
def test_no_text_is_a_sound_manifest_by_accident(text):
    try:
        found = problems(text, SGX)
    except EnclaveError:
        return
    assert found


def test_files_that_have_changed_since_are_named(tmp_path):
    path = tmp_path / "x.manifest"
    path.write_text(render(*enclave(tmp_path), SGX))
    assert check(path, SGX, files=True) == []
    (tmp_path / "a.py").write_text("changed\n")
    assert check(path, SGX) == []
    assert check(path, SGX, files=True) == [f"{tmp_path / 'a.py'} is not what it was when it was listed."]


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    for content in (None, b"\xff\xfe", b"a = 1\na = 2\n"):
        if content is not None:
            (tmp_path / "x").write_bytes(content)
        with pytest.raises(EnclaveError):
            check(tmp_path / "x", SGX)
    with pytest.raises(EnclaveError, match="no profile 'prod'"):
        problems("", "prod")
