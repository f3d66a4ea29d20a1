"""What a run opens is found, compiled and listed, and nothing else."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
from enclaves import enclave

from quire.enclave.bytecode import compiled
from quire.enclave.errors import EnclaveError
from quire.enclave.files import Listing
from quire.enclave.tracing import environment, trace


def traced(folder, code, strace=False, seconds=60):
    script = folder / "work.py"
    script.write_text(code)
    config, _ = enclave(folder, f"command: [{script}, argument]\n")
    return config, trace(config, strace, seconds)


def test_files_modules_and_libraries_of_a_run_are_listed(tmp_path):
    (tmp_path / "data.csv").write_text("1,2\n")
    (tmp_path / "unused.csv").write_text("1,2\n")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "book").write_text("x")
    code = f"""
import ctypes, json.tool, os, sys, tempfile
assert sys.argv[1:] == ["argument"], sys.argv
open({str(tmp_path / "data.csv")!r}).read()
os.close(os.open({str(tmp_path / "store" / "book")!r}, os.O_RDONLY))
open({str(tmp_path / "written")!r}, "w").write("x")
open(os.path.join(tempfile.gettempdir(), "mine"), "w+").write("x")
open("/proc/self/status").read()
"""
    config, listing = traced(tmp_path, code)
    names = set(listing.files)
    assert {listing.python, str(tmp_path / "data.csv")} <= names
    tool = importlib.util.find_spec("json.tool").origin
    assert os.path.realpath(tool) in names
    assert any("_ctypes" in name and ".so" in name for name in names)
    for absent in ("unused.csv", "store/book", "written"):
        assert str(tmp_path / absent) not in names
    assert not [name for name in names if name.startswith(("/proc/", "/dev/", "/sys/"))]
    assert len(names) < 600
    assert os.path.realpath(listing.python) == listing.python
    compiled_tool = [name for name in names if name.endswith(f"tool.{sys.implementation.cache_tag}.pyc")]
    assert compiled_tool
    assert compiled_tool[0].startswith(str(config.workspace))
    assert not [name for name in names if "__pycache__" in name]
    listing.write(config.files)
    assert Listing.read(config.files) == listing


def test_links_by_which_libraries_are_asked_for_are_listed_with_what_they_lead_to(tmp_path):
    _, listing = traced(tmp_path, "import ssl, ctypes\n")
    for name in listing.files:
        assert os.path.realpath(name) in listing.files
    assert [name for name in listing.files if os.path.islink(name)]


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace on the PATH")
def test_strace_sees_what_libraries_open_by_themselves(tmp_path):
    (tmp_path / "seen.txt").write_text("x")
    code = f"import ctypes\nctypes.CDLL(None).open({str(tmp_path / 'seen.txt').encode()!r}, 0)\n"
    _, plain = traced(tmp_path, code)
    try:
        _, more = traced(tmp_path, code, strace=True)
    except EnclaveError as error:
        pytest.skip(f"strace may not trace here: {error}")
    assert str(tmp_path / "seen.txt") not in plain.files
    assert str(tmp_path / "seen.txt") in more.files


def test_the_run_has_the_environment_of_the_enclave_and_nothing_of_the_hosts(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HOST", "x")
    known = sorted({*environment("trace", (), (), "", 1)} - {"LD_LIBRARY_PATH", "PYTHONPYCACHEPREFIX"})
    code = f"import os\nextra = set(os.environ) - set({known!r}) - {{'LC_CTYPE'}}\nraise SystemExit(len(extra))\n"
    traced(tmp_path, code)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit(3)", "ended with 3"),
        ("raise ValueError('oh\\x1b[2J')", "oh"),
        ("import os; os._exit(0)", "ended with 0: it said nothing"),
        ("import no_such_module_at_all", "no_such_module_at_all"),
    ],
)
def test_a_run_that_fails_is_one_sentence(tmp_path, code, words):
    with pytest.raises(EnclaveError, match=words) as caught:
        traced(tmp_path, code)
    assert str(caught.value).isprintable()


def test_a_run_that_does_not_end_is_ended(tmp_path):
    with pytest.raises(EnclaveError, match="had not ended after"):
        traced(tmp_path, "import time\ntime.sleep(60)\n", seconds=1)


def test_a_name_that_a_manifest_cannot_hold_is_refused(tmp_path):
    bad = tmp_path / 'a"b'
    bad.write_text("x")
    with pytest.raises(EnclaveError, match="cannot name it"):
        traced(tmp_path, f"open({str(bad)!r}).read()\n")


def test_modules_are_compiled_with_unchecked_hashes_and_only_where_they_changed(tmp_path):
    source, bad = tmp_path / "m.py", tmp_path / "bad.py"
    source.write_text("VALUE = 1\n")
    bad.write_text("no python (\n")
    (made,) = compiled([str(source), str(bad)], tmp_path / "out")
    with open(made, "rb") as file:
        head = file.read(16)
    assert head[4:8] == b"\x01\0\0\0"
    assert head[8:] == importlib.util.source_hash(source.read_bytes())
    before = os.stat(made).st_ino, os.stat(made).st_mtime_ns
    compiled([str(source)], tmp_path / "out")
    assert (os.stat(made).st_ino, os.stat(made).st_mtime_ns) == before
    source.write_text("VALUE = 2\n")
    compiled([str(source)], tmp_path / "out")
    with open(made, "rb") as file:
        assert file.read(16) != head


def test_python_takes_a_compiled_module_however_old_its_source_looks(tmp_path):
    (tmp_path / "m.py").write_text("VALUE = 'compiled'\n")
    compiled([str(tmp_path / "m.py")], tmp_path / "out")
    (tmp_path / "m.py").write_text("VALUE = 'source'\n")
    os.utime(tmp_path / "m.py", (0, 0))
    variables = {"PYTHONPATH": str(tmp_path), "PYTHONPYCACHEPREFIX": str(tmp_path / "out")}
    done = subprocess.run(
        [sys.executable, "-c", "import m; print(m.VALUE)"], env=variables, capture_output=True, text=True
    )
    assert done.stdout == "compiled\n"


GUARD = """
import json, os, runpy, sys
listed = set(json.load(open(sys.argv[1]))["files"])
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and not (arguments[2] or 0) & os.O_ACCMODE:
        path = os.path.abspath(arguments[0])
        if os.path.isfile(path) and not path.startswith("/proc/") and path not in listed:
            raise PermissionError(path)
sys.addaudithook(hook)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_what_was_traced_runs_where_nothing_else_can_be_opened(tmp_path):
    """As Gramine would have it, for what Python itself opens; compiled modules are taken from their own folder."""
    config, listing = traced(
        tmp_path, "import ssl, email.message, sqlite3, quire.privacy.identity.keys\nprint('ran')\n"
    )
    listing.write(config.files)
    (tmp_path / "guard.py").write_text(GUARD)
    variables = environment("trace", listing.path, listing.libraries, listing.bytecode, 1) | {"TMPDIR": str(tmp_path)}
    del variables["LD_LIBRARY_PATH"]

    def run():
        command = [listing.python, str(tmp_path / "guard.py"), str(config.files), str(tmp_path / "work.py"), "argument"]
        return subprocess.run(command, env=variables, capture_output=True, text=True, cwd=tmp_path)

    done = run()
    assert done.stdout == "ran\n", done.stderr
    (tmp_path / "work.py").write_text("import colorsys\n")
    assert "PermissionError" in run().stderr
