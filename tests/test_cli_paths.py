"""A path that the operating system refuses to look at is a person's mistake: one sentence, and no traceback."""

from __future__ import annotations

import errno

import pytest
from command_line import Call, command_line

from quire import cli

LONG = "a" * 300


@pytest.fixture
def quire(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path) -> Call:
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys)


@pytest.mark.parametrize(
    "words",
    [
        ("report", "dpia", LONG, "--out", "o.md"),
        ("report", "audit", LONG, "--out", "o.md"),
        ("model", "list", LONG),
        ("model", "verify", LONG),
        ("model", "key", "new", "x", "--folder", LONG),
        ("catalog", "show", LONG),
        ("catalog", "offer", LONG, "--out", "o.json"),
        ("verify", LONG),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_a_name_that_is_too_long_is_said_in_a_sentence(quire: Call, words: tuple[str, ...], tmp_path) -> None:
    status, out, err = quire(*words)
    assert (status, out) == (2, "")
    assert err.startswith("quire: ")
    assert err.count("\n") == 1
    assert "File name too long" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_what_a_folder_does_not_let_one_do_is_said(quire: Call, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(*args: object, **more: object) -> None:
        raise OSError(number, "No way", "x/\u202eevil")

    monkeypatch.setattr(cli, "app", refused)
    assert quire("report", "audit", "x") == (2, "", "quire: x/\u27e8U+202E\u27e9evil cannot be used: No way.\n")


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "Bad", "x"), OSError(errno.EACCES, "Denied"), OSError("x")])
def test_what_no_person_named_stays_a_bug(quire: Call, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def broken(*args: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(OSError, match=str(error.strerror or "x")):
        quire("report", "audit", "x")
