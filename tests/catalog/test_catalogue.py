"""A catalogue keeps to the keys that it knows, and never goes back; what it shows of strangers hides nothing."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import pytest
from command_line import Call
from offering import KEY, NOW, OTHER, Offering, offer

from quire.catalog.catalogue import Catalogue
from quire.catalog.errors import CatalogError, OfferRefused
from quire.clients.identity.rosters import Change, first_roster, write_new
from quire.clients.tasks.schema import Categorical, Schema, Target
from quire.privacy.identity.signed import SignedRoster

EVIL = "\u202eevil\x1b[2J<script>\u200b"


@pytest.fixture
def shelf(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "partners")


def test_a_newer_offer_takes_the_place_of_an_older_one(shelf: Catalogue) -> None:
    first, second = offer(), offer(issued=NOW + 5)
    assert shelf.add(first, NOW) == "new"
    assert shelf.add(first, NOW) == "known"
    assert shelf.add(second, NOW + 5) == "newer"
    assert shelf.offer("clinic-1").encode() == second.encode()
    with pytest.raises(OfferRefused, match="not newer: an old one was sent again"):
        shelf.add(first, NOW + 5)
    with pytest.raises(OfferRefused, match="not newer"):
        shelf.add(offer(issued=NOW + 5, title="Another of the same second"), NOW + 5)
    assert shelf.offer("clinic-1").encode() == second.encode()


def test_another_key_for_a_known_name_is_refused(shelf: Catalogue) -> None:
    shelf.add(offer(), NOW)
    with pytest.raises(OfferRefused, match="under the key"):
        shelf.add(offer(key=OTHER, issued=NOW + 5), NOW + 5)
    assert shelf.offer("clinic-1").public == KEY.public
    assert shelf.add(offer(key=OTHER, silo="clinic-2"), NOW) == "new"
    assert shelf.names() == ["clinic-1", "clinic-2"]


def test_time_is_held_against_the_clock(shelf: Catalogue) -> None:
    with pytest.raises(OfferRefused, match="expired"):
        shelf.add(offer(), NOW + 86401)
    with pytest.raises(OfferRefused, match="yet to come"):
        shelf.add(offer(), NOW - 1000)
    assert not shelf.folder.exists()
    shelf.add(offer(), NOW)
    with pytest.raises(OfferRefused, match="expired"):
        shelf.check("clinic-1", NOW + 86401)
    assert shelf.offers()[0].silo == "clinic-1"


def test_a_roster_says_whose_keys_they_are(shelf: Catalogue) -> None:
    roster = first_roster("heart", Change({"clinic-1": KEY.public}, {"admin": OTHER.public}, valid_to=NOW + 50))
    assert shelf.add(offer(), NOW, roster) == "new"
    with pytest.raises(OfferRefused, match="no member 'clinic-2'"):
        shelf.add(offer(silo="clinic-2"), NOW, roster)
    with pytest.raises(OfferRefused, match="the roster heart has"):
        Catalogue(shelf.folder.parent / "q").add(offer(key=OTHER), NOW, roster)
    with pytest.raises(OfferRefused, match="at this time"):
        shelf.check("clinic-1", NOW + 50, roster)


def test_a_damaged_or_renamed_offer_is_told(shelf: Catalogue) -> None:
    shelf.add(offer(), NOW)
    path = shelf.folder / "clinic-1.offer.json"
    data = path.read_bytes()
    (shelf.folder / "other.offer.json").write_bytes(data)
    with pytest.raises(OfferRefused, match="named for their silos"):
        shelf.offers()
    (shelf.folder / "other.offer.json").unlink()
    path.write_bytes(data.replace(b"300", b"900"))
    with pytest.raises(OfferRefused, match="changed after it was signed"):
        shelf.offers()
    with pytest.raises(OfferRefused):  # and what was known is not lost by it
        shelf.add(offer(issued=NOW + 5), NOW + 5)
    path.write_bytes(data[:-1])
    with pytest.raises(OfferRefused, match="no offer"):
        shelf.offer("clinic-1")
    (shelf.folder / f"{EVIL.replace('/', '')}.offer.json").write_bytes(data)
    path.unlink()
    with pytest.raises(OfferRefused) as told:
        shelf.offers()
    assert str(told.value).isprintable()


def test_of_two_who_add_at_once_the_newest_stays(shelf: Catalogue) -> None:
    found = [offer(issued=NOW + second) for second in range(8)]

    def add(place: int) -> None:
        with contextlib.suppress(OfferRefused):
            shelf.add(found[place], NOW + 8)

    threads = [threading.Thread(target=add, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shelf.offer("clinic-1").issued == NOW + 7
    assert [path.name for path in shelf.folder.iterdir()] == ["clinic-1.offer.json"]


def test_there_is_no_catalogue_or_no_such_silo(shelf: Catalogue) -> None:
    with pytest.raises(CatalogError, match="makes one"):
        shelf.names()
    shelf.folder.mkdir()
    for name in ("nobody", "../up", EVIL):
        with pytest.raises(CatalogError) as told:
            shelf.offer(name)
        assert str(told.value).isprintable()


def test_the_commands_from_an_offer_to_a_catalogue(silo: Offering, quire: Call) -> None:
    quire("catalog", "offer", "silo.yaml", "--out", "o.json")
    status, out, _ = quire("catalog", "add", "o.json", "--catalog", "p")
    assert (status, "is in now" in out, "compare it" in out) == (0, True, True)
    assert "is in already" in quire("catalog", "add", "o.json", "--catalog", "p")[1]
    assert "clinic-1: classification, 1 column; 64 rows, declared" in quire("catalog", "show", "p")[1]
    status, out, _ = quire("catalog", "show", "p", "clinic-1")
    assert "age: number from 0 to 100" in out
    (found,) = json.loads(quire("catalog", "show", "p", "--json")[1])["offers"]
    assert found["silo"] == "clinic-1"
    assert quire("catalog", "verify", "p")[0] == 0
    Path("p/clinic-1.offer.json").write_bytes(Path("o.json").read_bytes().replace(b"64", b"65"))
    status, out, _ = quire("catalog", "verify", "p")
    assert (status, "0 of 1 offers hold" in out) == (1, True)
    for args in (["show", "p"], ["match", "p", "tabular"], ["export", "p", "--format", "dcat", "--out", "x"]):
        status, out, err = quire("catalog", *args)
        assert (status, out, "is refused" in err) == (1, "", True)


def test_a_roster_is_read_with_its_signatures(silo: Offering, quire: Call) -> None:
    from quire.clients.identity import load_identity

    quire("catalog", "offer", "silo.yaml", "--out", "o.json")
    own = load_identity(silo.folder / "silo.key").public
    roster = SignedRoster(first_roster("heart", Change({"clinic-1": own}, {"admin": OTHER.public})))
    write_new(Path("unsigned.json"), roster)
    write_new(Path("roster.json"), roster.sign(OTHER))
    status, _, err = quire("catalog", "add", "o.json", "--catalog", "p", "--roster", "unsigned.json")
    assert (status, "unsigned.json" in err) == (2, True)
    assert not Path("p").exists()
    assert "as the roster has it" in quire("catalog", "add", "o.json", "--catalog", "p", "--roster", "roster.json")[1]
    assert quire("catalog", "verify", "p", "--roster", "roster.json")[0] == 0


def test_hostile_texts_hide_nothing_in_a_terminal(tmp_path: Path, quire: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import quire.catalog_cli as commands

    monkeypatch.setattr(commands, "_now", lambda: NOW)
    schema = Schema(
        (Categorical(EVIL, (EVIL, "a"), False, "error"),), None, Target(EVIL + "t", "classification", ("x", EVIL))
    )
    labels = {"sensitivity": "secret", "residency": None, "purposes": [EVIL]}
    evil = offer(schema, title=EVIL, description=f"{EVIL}\n\n{EVIL}", contact=EVIL, labels=labels)
    Path(tmp_path / "o.json").write_bytes(evil.encode())
    folder = str(tmp_path / "p")
    written = [
        quire("catalog", "add", str(tmp_path / "o.json"), "--catalog", folder),
        quire("catalog", "show", folder),
        quire("catalog", "show", folder, "clinic-1"),
        quire("catalog", "show", folder, "--json"),
        quire("catalog", "match", folder, "tabular"),
        quire("catalog", "match", folder, "breast_cancer"),
        quire("catalog", "match", folder, "tabular", "--json"),
        quire("catalog", "show", folder, EVIL),
        quire("catalog", "verify", folder),
    ]
    (tmp_path / "schema.yaml").write_text(
        "columns: {age: {low: 0, high: 1}}\ntarget: {name: y, kind: classification, classes: [a, b]}\n"
    )
    written.append(quire("catalog", "match", folder, str(tmp_path / "schema.yaml")))
    for _, out, err in written:
        assert all(line.isprintable() for line in (out + err).split("\n"))
    assert "\\u202e" in written[3][1]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["add", "none.json", "--catalog", "p"], "There is no file"),
        (["add", "rows.csv", "--catalog", "p"], "no offer"),
        (["add", ".", "--catalog", "p"], "cannot be read"),
        (["add", "o.json", "--catalog", "rows.csv"], "cannot be used"),
        (["show", "none"], "cannot be read"),
        (["show", "p", "nobody"], "no offer of"),
        (["match", "p", "nonsense"], "nonsense"),
        (["match", "p", "synthetic"], "makes its rows up"),
        (["match", "p", "none.yaml"], "none.yaml"),
        (["match", "p", "schema.yaml", "schema.yaml"], "one schema"),
        (["match", "p", "schema.yaml", "breast_cancer"], "rows of its own"),
        (["match", "p", "tabular", "privacy=magic"], "magic"),
        (["export", "p", "--format", "xml", "--out", "x"], "--format"),
        (["export", "p", "--format", "dcat", "--out", "none/x"], "folder that exists"),
        (["export", "p", "--format", "dcat", "--out", "p/a.offer.json"], "another name"),
        (["export", "empty", "--format", "dcat", "--out", "x"], "nothing to export"),
    ],
)
def test_a_mistake_is_one_sentence(silo: Offering, quire: Call, args: list[str], words: str) -> None:
    quire("catalog", "offer", "silo.yaml", "--out", "o.json")
    quire("catalog", "add", "o.json", "--catalog", "p")
    Path("empty").mkdir()
    status, out, err = quire("catalog", *args)
    assert status in (1, 2)
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert not Path("x").exists()
