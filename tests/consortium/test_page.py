"""The page about a consortium: its commands are called as they stand, and what it says of them holds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import Call, command_line
from consortium_parties import snapshot

from quire.clients.identity import load_identity
from quire.clients.identity.passphrase import VARIABLE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "consortium.md"
WORDS = "correct horse battery"
# What people at a terminal would answer.
ANSWERS = {"init": ["--no-passphrase"], "request": ["--yes"], "admit": ["--yes"]}


@pytest.fixture
def quire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_power_cuts: None
) -> Call:
    monkeypatch.chdir(tmp_path)
    words = tmp_path / "words"
    words.write_text(f"{WORDS}\n")
    words.chmod(0o600)
    monkeypatch.setenv(VARIABLE, str(words))
    return command_line(monkeypatch, capsys)


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line]


def good(result: tuple[int, str, str]) -> str:
    assert (result[0], result[2]) == (0, ""), result
    return result[1]


def mistake(result: tuple[int, str, str]) -> str:
    status, _, err = result
    assert status == 2, result
    assert err.startswith("quire: ")
    assert err.count("\n") == 1
    return err


def test_the_commands_of_the_page_make_a_consortium(quire: Call, tmp_path: Path) -> None:
    said = ""
    for name, *arguments in commands():
        assert name == "quire"
        said += good(quire(*arguments, *ANSWERS.get(arguments[1], [])))
    assert said.count("read it out") == 5  # init; invite and request, twice
    assert "member added: hospital-2" in said
    status, out, _ = quire("consortium", "status", "consortium")
    assert status == 0
    assert "roster version 2" in out
    for place, names in (("consortium", ["hospital-1", "hospital-2"]), ("hospital-1", ["hospital-1"])):
        out = good(quire("consortium", "status", place))
        assert all(name in out for name in names)
    assert "roster-2.json" in (tmp_path / "hospital-1" / "silo.yaml").read_text()
    assert "record_distributed" in good(quire("silo", "check", "hospital-1/silo.yaml"))
    for line in (tmp_path / "hospital-1" / "README.md").read_text().splitlines():
        assert "quire" not in line or "`" in line
    files_of_the_page(tmp_path)


def files_of_the_page(tmp_path: Path) -> None:
    """Every file that the page names is there."""
    text = PAGE.read_text(encoding="utf-8").split("## What the files are")[1].split("Documents (")[0]
    operator, silo = text.split("At a silo, mode 0700:")
    found = 0
    for part, root in ((operator, tmp_path / "consortium"), (silo, tmp_path / "hospital-1")):
        for row in re.findall(r"^\| (`[^|]*) \|", part, flags=re.MULTILINE):
            folder = Path()
            for name in re.findall(r"`([a-z][\w./-]+)`", row):
                if name in ("former/", "server.approved.json"):  # nobody has left, nothing was submitted
                    continue
                folder = Path(name).parent if "/" in name else folder
                assert (root / folder / Path(name).name).exists() or (root / name).exists(), name
                found += 1
    assert found > 20


def test_without_a_terminal_nobody_is_taken_at_their_word(quire: Call, tmp_path: Path) -> None:
    assert "--no-passphrase" in mistake(quire("consortium", "init", "c", "--name", "heart", "--server", "a.example"))
    good(quire("consortium", "init", "c", "--name", "heart", "--server", "a.example", "--no-passphrase"))
    invited = good(quire("consortium", "invite", "c", "hospital-1"))
    ask = ("consortium", "request", "c/invitations/hospital-1.json", "--folder", "h")
    assert "--fingerprint" in mistake(quire(*ask))
    assert "not the fingerprint" in mistake(quire(*ask, "--fingerprint", "0" * 64))
    assert not (tmp_path / "h").exists()
    read_out = next(line for line in invited.splitlines() if line.startswith("Fingerprint")).split(maxsplit=1)[1]
    asked = good(quire(*ask, "--fingerprint", read_out))
    admit = ("consortium", "admit", "c", "h/request.json")
    assert "--fingerprint" in mistake(quire(*admit))
    assert "not the fingerprint" in mistake(quire(*admit, "--fingerprint", read_out))
    assert not (tmp_path / "c" / "members" / "hospital-1").exists()
    lines = [line for line in asked.splitlines() if line.startswith("Fingerprint")]
    good(quire(*admit, "--fingerprint", lines[-1].split(maxsplit=1)[1]))
    good(quire("consortium", "join", "c/members/hospital-1/admission.json", "--folder", "h"))
    good(quire("consortium", "renew", "h", "--new-key"))
    good(quire("consortium", "renew", "c", "h/request.json", "--days", "30"))
    assert "fresh TLS key" in good(quire("consortium", "join", "c/members/hospital-1/admission.json", "--folder", "h"))
    good(quire("consortium", "revoke", "c", "hospital-1", "--superseded"))
    good(quire("consortium", "renew", "c", "--new-key"))
    assert "Nothing in it is new" in good(quire("consortium", "join", "c/bulletin.json", "--folder", "h"))
    good(quire("consortium", "revoke", "c", "hospital-1"))
    assert "no member 'nobody'" in mistake(quire("consortium", "revoke", "c", "nobody"))
    good(quire("consortium", "join", "c/bulletin.json", "--folder", "h"))
    status, out, err = quire("consortium", "status", "h", "--json")
    assert (status, err) == (1, "")
    assert '"failing": true' in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("status", "nowhere"), "is not a silo's folder"),
        (("invite", "nowhere", "hospital-1"), "is not an operator's folder"),
        (("join", "nothing.json", "--folder", "nowhere"), "is not a silo's folder"),
        (("renew", "nowhere"), "is not a silo's folder"),
        (("init", "c", "--name", "Heart", "--server", "a.example", "--no-passphrase"), "lower-case letters"),
        (("init", "c", "--name", "heart", "--server", "a_b", "--no-passphrase"), "host name"),
        (("init", ".", "--name", "heart", "--server", "a.example", "--no-passphrase"), "is not empty"),
        (("request", "nothing.json", "--folder", "h"), "There is no file"),
        (("admit", "nowhere", "nothing.json"), "There is no file"),
    ],
)
def test_a_mistake_is_one_sentence(quire: Call, arguments: tuple[str, ...], says: str) -> None:
    assert says in mistake(quire("consortium", *arguments))


def test_keys_are_behind_the_passphrase(quire: Call, tmp_path: Path) -> None:
    said = good(quire(*commands()[0][1:], "--passphrase-file", "words"))
    before = snapshot(tmp_path / "consortium")
    admin = load_identity(tmp_path / "consortium" / "roster" / "admin.key", WORDS).encode_secret()[2:]
    everything = b"".join(before.values()) + said.encode()
    for secret in (admin, admin.hex().encode(), WORDS.encode()):
        assert secret not in everything
    (tmp_path / "words").write_text("another horse\n")
    assert "does not open" in mistake(quire("consortium", "invite", "consortium", "hospital-2"))
    assert snapshot(tmp_path / "consortium") == before
