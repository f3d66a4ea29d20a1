"""Whatever a file from elsewhere holds: one sentence or what it says, never a traceback, never an admission."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from consortium_parties import NOW, Parties, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients.identity import IdentityFileError, PrivateIdentity, load_identity
from quire.consortium import documents
from quire.consortium.about import Server
from quire.consortium.documents import ADMISSION, BULLETIN, INVITATION, RENEWAL, REQUEST, Document
from quire.consortium.errors import ConsortiumError
from quire.consortium.joining import join
from quire.consortium.operator import Operator, opened
from quire.consortium.requests import examine
from quire.consortium.silo import read_invitation, renew
from quire.errors import QuireError
from quire.privacy.identity.canonical import dumps
from quire.privacy.identity.errors import IdentityError

KINDS = (INVITATION, REQUEST, RENEWAL, ADMISSION, BULLETIN)


@dataclass(frozen=True)
class Scene:
    """A member that has joined and asks for renewal, a silo whose request waits, and one document of each kind."""

    parties: Parties
    operator: Operator
    files: dict[str, bytes]
    identity: PrivateIdentity
    asked: Document
    renewal: Document
    scratch: Path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    parties = Parties(tmp_path_factory.mktemp("scene")).found()
    parties.bring("hospital-1")
    renewal = renew(parties.silo("hospital-1").root, now=NOW)
    asked = parties.ask("hospital-2")
    folder = parties.operator
    files = {
        INVITATION: folder.invitation("hospital-2").read_bytes(),
        REQUEST: asked.encode(),
        RENEWAL: renewal.encode(),
        ADMISSION: folder.admission("hospital-1").read_bytes(),
        BULLETIN: folder.bulletin.read_bytes(),
    }
    identity = load_identity(parties.silo("hospital-2").identity_key)
    with opened(folder.root, None, NOW) as operator:
        yield Scene(parties, operator, files, identity, asked, renewal, tmp_path_factory.mktemp("scratch"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes cut, doubled, flipped or put in."""
    kind = draw(st.sampled_from(("flip", "cut", "insert", "double", "drop")))
    place = draw(st.integers(0, len(data) - 1))
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ draw(st.integers(1, 255))]) + data[place + 1 :]
    if kind == "cut":
        return data[:place]
    if kind == "insert":
        return data[:place] + draw(st.binary(min_size=1, max_size=40)) + data[place:]
    end = draw(st.integers(place, len(data)))
    return data[:place] + data[place:end] * 2 + data[end:] if kind == "double" else data[:place] + data[end:]


@st.composite
def rebuilt(draw: st.DrawFn, data: bytes) -> bytes:
    """The same document with a key more, a key less or another value somewhere; canonical where that is possible."""
    value = json.loads(data)
    place: Any = value
    while isinstance(place, dict | list) and place:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
        if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
            break
        place = place[key]
    what = draw(st.sampled_from(("replace", "remove", "add")))
    if what == "remove":
        del place[key]
    elif what == "replace" or isinstance(place, list):
        place[key] = draw(JSON)
    else:
        place[draw(st.text(max_size=8))] = draw(JSON)
    with contextlib.suppress(IdentityError, RecursionError):
        return dumps(value)
    return json.dumps(value).encode()


def sentence(error: BaseException) -> None:
    words = str(error)
    assert "\n" not in words
    assert words
    assert len(words) < 2000


def take(scene: Scene, data: bytes, *kinds: str) -> Document | None:
    """Read a document as the command line does; None if it is refused in a sentence."""
    path = scene.scratch / "came.json"
    path.write_bytes(data)
    try:
        return documents.read(path, *kinds)
    except QuireError as error:
        sentence(error)
        return None


def check(scene: Scene, asked: Document) -> object:
    return examine(asked, scene.operator.about, scene.operator.state, scene.operator.folder, NOW)


def refused(scene: Scene, data: bytes, kind: str) -> None:
    """Hand a changed document to whoever reads its kind; only its very contents may pass."""
    found = take(scene, data, kind)
    if found is None or found.encode() == scene.files[kind]:
        return
    came = scene.scratch / "came.json"
    readers: dict[str, Callable[[], object]] = {
        REQUEST: lambda: check(scene, found),
        RENEWAL: lambda: scene.operator.renew(found, 90, NOW),
        INVITATION: lambda: read_invitation(came),
    }
    read = readers.get(kind, lambda: join(scene.parties.silo("hospital-1").root, came, now=NOW))
    with pytest.raises(QuireError) as caught:
        read()
    sentence(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_refused_in_a_sentence(scene: Scene, kind: str, data: st.DataObject) -> None:
    refused(scene, data.draw(mutated(scene.files[kind])), kind)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_values_are_refused_in_a_sentence(scene: Scene, kind: str, data: st.DataObject) -> None:
    refused(scene, data.draw(rebuilt(scene.files[kind])), kind)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused_in_a_sentence(scene: Scene, data: bytes) -> None:
    assert take(scene, data, *KINDS) is None


BLOBS = st.binary(min_size=1, max_size=200).map(documents.text_of)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_silo_that_signs_nonsense_is_refused_in_a_sentence(scene: Scene, data: st.DataObject) -> None:
    """The signature is good, so that what is behind it is reached: the parsers of certificates and keys."""
    body = {key: value for key, value in scene.asked.body.items() if key != "format"}
    key = data.draw(st.sampled_from(("csr", "node", "nonce", "name", "consortium")))
    if key == "csr":
        body[key] = documents.text_of(data.draw(mutated(scene.asked.blob("csr"))) or b"\0")
    elif key == "node":
        body[key] = "ecdsa-sha2-nistp384 " + data.draw(BLOBS)
    else:
        body[key] = data.draw(st.text("abcdef0123456789-./\\\0 ", max_size=40))
    if body[key] == scene.asked.body[key]:
        return
    before = snapshot(scene.parties.operator.root)
    try:
        made = documents.sign(REQUEST, body, scene.identity)
        check(scene, made)
    except (QuireError, IdentityError) as error:
        sentence(error)
        assert snapshot(scene.parties.operator.root) == before
        return
    # What is left over is a request for another key, and its holder has signed it.
    assert key == "csr"
    raise AssertionError("a changed request for a certificate proved a key that nobody holds")


def test_what_is_not_changed_is_taken(scene: Scene) -> None:
    """Else the tests above would pass for a reader that refuses everything."""
    for kind in KINDS:
        assert take(scene, scene.files[kind], kind) is not None
    assert check(scene, scene.asked) is not None


def test_a_deeply_nested_file_is_refused_in_a_sentence(scene: Scene) -> None:
    for depth in (100, 5000):
        body = b'{"format":"quire-request-1","x":' + b"[" * depth + b"]" * depth + b"}"
        assert take(scene, b'{"body":' + body + b',"signature":"00"}\n', REQUEST) is None


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "/etc", "a\\b", "Hospital", "1a", "a" * 33, "a-", "a.b", "a b", "-server", "a\0"]
)
def test_no_name_is_a_way_out_of_the_folder(scene: Scene, name: str) -> None:
    body = {key: value for key, value in scene.asked.body.items() if key != "format"}
    with pytest.raises((ConsortiumError, IdentityError)):
        documents.sign(REQUEST, body | {"name": name}, scene.identity)
    raw = dumps({"body": scene.asked.body | {"name": "x"}, "signature": "00"})
    assert take(scene, raw.replace(b'"name":"x"', b'"name":' + json.dumps(name).encode()), REQUEST) is None
    with pytest.raises(ConsortiumError):
        scene.operator.invite(name, False, NOW)
    with pytest.raises(ConsortiumError):
        scene.parties.operator.member(name)


def test_a_file_that_is_too_large_is_not_read(scene: Scene) -> None:
    path = scene.scratch / "large.json"
    path.write_bytes(b"[" * (documents.SMALL + 1))
    with pytest.raises(IdentityFileError, match="more than"):
        documents.read(path, REQUEST)
    with pytest.raises(IdentityFileError, match="There is no file"):
        documents.read(scene.scratch / "none.json", REQUEST)


def test_a_document_of_another_kind_is_named(scene: Scene) -> None:
    path = scene.scratch / "other.json"
    path.write_bytes(scene.files[BULLETIN])
    with pytest.raises(ConsortiumError, match="is a bulletin, and a request is wanted here"):
        documents.read(path, REQUEST)


@given(host=st.text(max_size=40), port=st.none() | st.integers(-5, 70000))
@settings(deadline=None)
def test_a_server_is_read_back_as_it_is_written(host: str, port: int | None) -> None:
    try:
        found = Server.parse(host if port is None else f"{host}:{port}")
    except ConsortiumError:
        return
    assert Server.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("fl.example.org", "fl.example.org", 8443),
        ("FL.Example.org:443", "fl.example.org", 443),
        ("10.0.0.5:9", "10.0.0.5", 9),
        ("::1", "::1", 8443),
        ("[2001:DB8::5]:443", "2001:db8::5", 443),
    ],
)
def test_servers_are_names_and_addresses(text: str, host: str, port: int) -> None:
    assert Server.parse(text) == Server(host, port)


@pytest.mark.parametrize(
    "text",
    ["", ":4", "a:b", "a..b", "-a", "a-", "999.1.1.1", "1.2.3", "a_b", "a b", "a:0", "a:70000", "a/b", "[::1", "*"],
)
def test_what_is_no_server_is_refused(text: str) -> None:
    with pytest.raises(ConsortiumError):
        Server.parse(text)
