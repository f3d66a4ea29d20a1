"""A bundle is untrusted bytes: what is read, what is refused, and what its hash stands for."""

from __future__ import annotations

import contextlib
import hashlib
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from bundles import APP, packed
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients.gate import bundle as module
from quire.clients.gate.bundle import Bundle, BundleError, read_bundle


def refused(raw: bytes, match: str) -> None:
    with pytest.raises(BundleError, match=match):
        Bundle(raw).files  # noqa: B018


def test_files_are_those_that_were_packed() -> None:
    found = Bundle(packed(APP))
    assert found.files == APP
    assert list(found.files) == sorted(APP)
    assert found.fab == hashlib.sha256(found.raw).hexdigest()


def test_the_content_hash_is_the_one_that_is_documented() -> None:
    stream = b"quire-bundle-v1\0"
    for name in sorted(APP):
        stream += struct.pack(">Q", len(name)) + name.encode() + struct.pack(">Q", len(APP[name])) + APP[name]
    assert Bundle(packed(APP)).content == hashlib.sha256(stream).hexdigest()


def test_the_content_hash_does_not_depend_on_packing() -> None:
    other = list(reversed(APP.items()))
    bundles = [Bundle(packed(APP)), Bundle(packed(other)), Bundle(packed(APP, zipfile.ZIP_STORED))]
    assert len({bundle.content for bundle in bundles}) == 1
    assert len({bundle.fab for bundle in bundles}) == 3


@given(st.sampled_from(sorted(APP)), st.binary(max_size=20))
def test_the_content_hash_depends_on_every_file(name: str, content: bytes) -> None:
    changed = {**APP, name: content}
    assert (Bundle(packed(changed)).content == Bundle(packed(APP)).content) == (changed == APP)


def test_moving_bytes_between_name_and_content_changes_the_hash() -> None:
    one, other = {**APP, "ab": b"c"}, {**APP, "a": b"bc"}
    assert Bundle(packed(one)).content != Bundle(packed(other)).content


def test_flowers_own_bundle_of_a_folder_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    for name, content in APP.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "test_app.py").write_text("Flower leaves this out")
    built = read_bundle(folder)
    assert set(built.files) == set(APP)
    archive = tmp_path / "app.fab"
    archive.write_bytes(built.raw)
    assert (read_bundle(archive).content, read_bundle(archive).fab) == (built.content, built.fab)
    names = zipfile.ZipFile(archive).namelist()
    assert ".info/CONTENT" in names


def test_flower_packs_the_same_folder_to_the_same_bytes(tmp_path: Path) -> None:
    hashes = set()
    for name, order in (("one", sorted(APP)), ("two", sorted(APP, reverse=True))):
        for file in order:
            (tmp_path / name / "app" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "app" / file).write_bytes(APP[file])
        hashes.add(read_bundle(tmp_path / name / "app").fab)
    assert len(hashes) == 1


def test_what_is_written_is_what_was_hashed_and_private(tmp_path: Path) -> None:
    found = Bundle(packed(APP))
    found.write(tmp_path / "out")
    written = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in written.items()} == APP
    assert {stat.S_IMODE(path.stat().st_mode) for path in written.values()} == {0o400}
    folders = [tmp_path / "out", *(path for path in (tmp_path / "out").rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    with pytest.raises(FileExistsError):
        found.write(tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [
        *("../evil.py", "a/../../evil.py", "/evil.py", "a//b.py", "./a.py", "a/.", "a/..", "..", "", "a/"),
        *(
            "a\\b.py",
            "C:/evil.py",
            "c:evil.py",
            "a\nb.py",
            "a\x00b.py",
            "a\u202eb.py",
            "ö.py",
            "x" * 121,
            "a/" * 120 + "b",
        ),
        *("a. ", "a.", " ", "...", "a/ /b", "nul:", "a*b"),
    ],
)
def test_a_name_that_is_not_plain_is_refused(name: str) -> None:
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name
    with pytest.raises(BundleError):
        Bundle(packed([*APP.items(), (entry, b"x")])).files  # noqa: B018


def test_a_name_hidden_behind_a_nul_is_refused() -> None:
    raw = packed({**APP, "harmless.pyZevil": b"x"}).replace(b"harmless.pyZevil", b"harmless.py\0evil")
    refused(raw, "not a plain one|damaged")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFSOCK])
def test_anything_but_a_plain_file_is_refused(mode: int) -> None:
    entry = zipfile.ZipInfo("link.py")
    entry.external_attr = (mode | 0o777) << 16
    refused(packed([*APP.items(), (entry, b"/etc/passwd")]), "not a plain file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_twice_is_refused() -> None:
    refused(packed([*APP.items(), ("app/__init__.py", b"import os")]), "twice")
    refused(packed([*APP.items(), ("app/__INIT__.py", b"import os")]), "case only")


def test_a_file_below_a_file_is_refused() -> None:
    refused(packed({**APP, "app/data/x.json/y": b""}), "below a file")


def test_an_archive_without_an_app_is_refused() -> None:
    refused(packed({"a.py": b""}), "no pyproject.toml")
    refused(packed({}), "does not begin")


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packings_are_refused(how: int) -> None:
    refused(packed(APP, how), "as Flower never does")


def test_an_encrypted_file_is_refused() -> None:
    raw = bytearray(packed(APP))
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    refused(bytes(raw), "as Flower never does")


def test_a_bomb_is_refused_before_it_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED", 1_000_000)
    refused(packed({**APP, "bomb.json": bytes(1_000_001)}), "unpacks to more")
    refused(packed({**APP, **{f"{i}.json": bytes(200_000) for i in range(6)}}), "unpacks to more")


def test_a_bomb_that_lies_about_its_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED", 1_000_000)
    size = 50_000_000
    raw = packed({**APP, "bomb.json": bytes(size)}).replace(struct.pack("<I", size), struct.pack("<I", 10))
    refused(raw, "damaged")


def test_overlapping_entries_are_refused_or_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One compressed kernel under many names, as in D. Fifield, "A better zip bomb", WOOT 2019."""
    monkeypatch.setattr(module, "MAX_UNPACKED", 1_000_000)
    name, kernel = b"aa.json", zlib.compress(bytes(300_000))[2:-4]
    crc = zlib.crc32(bytes(300_000))
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, crc, len(kernel), 300_000, len(name), 0)
    local = b"PK\x03\x04" + common + name + kernel
    central = b"".join(b"PK\x01\x02\x14\x00" + common + bytes(14) + (b"a%c.json" % (97 + i)) for i in range(20))
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 20, 20, len(central), len(local), 0)
    refused(local + central + end, "unpacks to more|damaged")


def test_too_many_files_and_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 10)
    refused(packed({**APP, **{f"{i}.py": b"" for i in range(10)}}), "more than 10 files")
    with pytest.raises(BundleError, match="more than the"):
        Bundle(b"PK\x03\x04" + bytes(module.MAX_BYTES)).fab  # noqa: B018


def test_bytes_before_the_archive_are_refused() -> None:
    refused(b"#!/bin/sh\n" + packed(APP), "does not begin")


@pytest.mark.parametrize("raw", [b"", b"PK", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"PK\x03\x04" + bytes(100)])
def test_what_is_no_archive_is_refused(raw: bytes) -> None:
    with pytest.raises(BundleError):
        Bundle(raw).content  # noqa: B018


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_mutated_archives_are_read_faithfully_or_refused(data: st.DataObject) -> None:
    """Whatever the server sends: an error of ours, or files under plain names and within limits."""
    raw = bytearray(packed(APP))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["set", "insert", "delete", "copy"])):
            case "set":
                raw[place] = data.draw(st.integers(0, 255))
            case "insert":
                raw[place:place] = data.draw(st.binary(max_size=12))
            case "delete":
                del raw[place : place + data.draw(st.integers(1, 12))]
            case "copy":
                other = data.draw(st.integers(0, len(raw) - 1))
                raw[place:place] = raw[other : other + data.draw(st.integers(1, 80))]
        raw = raw or bytearray(b"P")
    with contextlib.suppress(BundleError):
        found = Bundle(bytes(raw))
        assert len(found.content) == 64
        assert all(not name.startswith("/") and ".." not in name.split("/") for name in found.files)
        assert sum(map(len, found.files.values())) <= module.MAX_UNPACKED


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.binary(max_size=20), max_size=5))
def test_any_names_are_written_below_the_folder_or_refused(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    entries = []
    for name, content in files.items():
        entry = zipfile.ZipInfo("x")
        entry.filename = name
        entries.append((entry, content))
    with contextlib.suppress(BundleError, UnicodeEncodeError):
        found = Bundle(packed([*APP.items(), *entries]))
        folder = tmp_path_factory.mktemp("any")
        found.write(folder / "out")
        written = {p.relative_to(folder / "out").as_posix() for p in folder.rglob("*") if p.is_file()}
        assert written == set(found.files) == set(APP) | set(files)


def test_a_path_without_a_bundle_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        read_bundle(tmp_path / "none.fab")
    with pytest.raises(BundleError, match="cannot build a bundle"):
        read_bundle(tmp_path)
