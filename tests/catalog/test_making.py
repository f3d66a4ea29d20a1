"""Making offers: what leaves the silo's file, and what a number of rows costs."""

from __future__ import annotations

import time
from datetime import date
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from charters import charter, member, signed, written
from command_line import Call
from consenting import CONSENT, Consenting
from offering import LABELS, OPEN, Offering

from quire.catalog.counts import MOST, Count
from quire.catalog.making import SESSION
from quire.catalog.offer import Offer, read_offer
from quire.clients.data.own import count_rows
from quire.clients.data.silo_file import read_silo
from quire.clients.identity import load_identity
from quire.clients.store import Position, Unit
from quire.clients.store.errors import StoreError
from quire.clients.store.inspection import Inspection
from quire.privacy.csprng import Csprng


def made(name: str = "o.json") -> Offer:
    return read_offer(Path(name))


def spent(silo: Offering) -> float:
    return Inspection(silo.store).books("clinic", whole=True).spent(Unit.RECORD).epsilon(1e-4)


def test_an_offer_says_what_the_file_says_and_nothing_of_the_rows(silo: Offering, quire: Call) -> None:
    silo.write(LABELS, records=64)
    before = silo.csv.read_bytes()
    silo.csv.unlink()  # nothing of them is needed
    status, out, err = quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--title", "Hearts", "--terms")
    assert (status, err) == (0, "")
    silo.csv.write_bytes(before)
    found = made()
    assert found.body == {
        **{"format": "quire-offer-1", "silo": "clinic-1", "title": "Hearts", "description": None, "contact": None},
        **{key: found.body[key] for key in ("issued", "expires", "identity", "schema")},
        "task": "classification",
        "schema_sha256": read_silo(Path("silo.yaml")).schema.sha256,
        "labels": {"sensitivity": "restricted", "residency": ["ch", "eu"], "purposes": ["Predict heart disease."]},
        "terms": {"privacy": ["record"], "aggregation": ["plain"]},
        "rows": {"form": "declared", "rows": 64, "to": None, "epsilon": None},
    }
    assert found.expires - found.issued == 365 * 86400
    assert found.schema == read_silo(Path("silo.yaml")).schema
    assert "64 rows, declared" in out
    assert not silo.store.exists(), "a public number costs nothing"


def test_a_noisy_number_is_charged_and_the_ledger_understands_it(silo: Offering, quire: Call) -> None:
    status, out, _ = quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "dp:0.5")
    assert status == 0
    assert made().count.form == "dp"
    assert abs(made().count.rows - 60) < 60
    (charge,) = silo.charges()
    assert (charge["session"], charge["round"]) == (SESSION, 1)
    assert charge["charges"][0]["event"] == {"kind": "geometric", "epsilon": "1/2", "count": 1}
    assert 0.4 < spent(silo) < 0.51
    status, out, _ = quire("ledger", "show", "silo.yaml")
    assert (status, "catalog.count" in out) == (0, True)
    status, out, _ = quire("ledger", "verify", "silo.yaml")
    assert (status, "2 entries are sound" in out) == (0, True)
    assert quire("catalog", "offer", "silo.yaml", "--out", "p.json", "--count", "dp:0.5")[0] == 0
    assert [charge["round"] for charge in silo.charges()] == [1, 2]
    assert 0.8 < spent(silo) < 1.01


def test_the_ledger_finds_a_count_that_is_booked_too_low(silo: Offering, quire: Call) -> None:
    from quire.clients.store.entries import Charge
    from quire.privacy.dp.events import Geometric
    from quire.privacy.dp.spending import Spending

    less = Charge(Unit.RECORD, Geometric(2))
    less.__dict__["spending"] = Spending.of(Geometric(1))
    with silo.open() as store:
        position = Position(SESSION, 1)
        store.advance(position, date(2026, 5, 4))
        store.ledger("clinic").charge([less], None, position, code="", settings="")
    status, _, err = quire("ledger", "verify", "silo.yaml")
    assert status == 1
    assert "booked at less than its event costs" in err


def test_what_the_budget_does_not_hold_is_refused_before_a_row_is_read(silo: Offering, quire: Call) -> None:
    silo.csv.unlink()
    status, _, err = quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "dp:5")
    assert status == 1
    assert "budget of the population clinic is epsilon 4" in err
    assert not Path("o.json").exists()
    assert silo.charges() == []


def test_a_run_and_a_number_share_one_budget(silo: Offering, quire: Call) -> None:
    silo.write(records=60, epsilon="2.2")  # the run would fit alone
    assert quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "dp:2")[0] == 0
    assert silo.refused("train") == "BUDGET_REFUSED"


def test_a_charter_caps_numbers_too(silo: Offering, monkeypatch: pytest.MonkeyPatch) -> None:
    from quire.catalog.counts import Asked
    from quire.catalog.making import About, Allowance, make_offer
    from quire.clients.identity import load_identity
    from quire.clients.store import Budget, BudgetExceeded

    identity, own = load_identity(silo.folder / "silo.key"), read_silo(silo.folder / "silo.yaml")
    caps = ((Budget(4.0, 1e-4), None), (Budget(0.3, 1e-4), None))
    with pytest.raises(BudgetExceeded, match=r"epsilon 0\.3"):
        make_offer(own, Asked.of("dp:0.5"), About(), identity, Path("o.json"), Allowance(caps, "0" * 64))
    assert silo.charges() == []


def test_a_title_that_nobody_could_read_again_costs_nothing(silo: Offering, quire: Call) -> None:
    told = ("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "dp:0.5", "--title", "a\udcff")
    status, _, err = quire(*told)
    assert (status, "title of an offer has 1 to 200 characters of Unicode" in err) == (2, True)
    assert not Path("o.json").exists()
    assert silo.charges() == []


def test_a_charter_caps_numbers_of_a_silo_whose_own_policy_does_not(silo: Offering, quire: Call) -> None:
    now = int(time.time())
    members = (
        member("clinic-1", identity=load_identity(silo.folder / "silo.key").public),
        member("clinic-2"),
        member("clinic-3"),
    )
    agreed = charter(members=members, issued=now - 600, not_before=now - 300, not_after=now + 6000)
    written(silo.folder / "charter", signed(agreed, "clinic-2", "clinic-3"))
    pinned = f'charter: {{file: charter, hash: "{agreed.hash}", residency: eu}}\n'
    silo.write(pinned, records=64, **OPEN)
    status, _, err = quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "rounded")
    assert (status, "the charter that the silo is under caps what may be spent" in err) == (2, True)
    assert quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "dp:9")[0] == 1
    assert silo.charges() == []
    assert quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "dp:0.5")[0] == 0
    assert len(silo.charges()) == 1
    assert quire("ledger", "verify", "silo.yaml")[0] == 0


def test_a_charge_that_cannot_be_written_leaves_no_offer(
    silo: Offering, quire: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quire.clients.store import Ledger

    def broken(*args: object, **more: object) -> None:
        raise StoreError("The disk is full.")

    monkeypatch.setattr(Ledger, "charge", broken)
    status, _, err = quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "dp:0.5")
    assert (status, err) == (1, "quire: The disk is full.\n")
    assert not Path("o.json").exists()


def test_noise_is_drawn_after_the_charge_and_from_the_system(
    silo: Offering, quire: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quire.catalog import making

    seen: list[int] = []
    draw = making.noisy_count

    def watched(*args: object) -> int:
        seen.append(len(silo.charges()))
        return draw(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "noisy_count", watched)
    drawn = [bytes(32), bytes(31) + b"1"]
    keys = iter(drawn)
    monkeypatch.setattr(making, "os", SimpleNamespace(urandom=lambda size: next(keys)))
    for name, key in zip(("o.json", "p.json"), drawn, strict=True):
        assert quire("catalog", "offer", "silo.yaml", "--out", name, "--count", "dp:0.1")[0] == 0
        assert made(name).count.rows == draw(60, Fraction(1, 10), Csprng(key))
    assert seen == [1, 2]


def test_a_rounded_number_is_refused_under_a_cap_and_charged_without(silo: Offering, quire: Call) -> None:
    status, _, err = quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "rounded")
    assert status == 2
    assert "no differential privacy" in err
    assert silo.charges() == []
    silo.write(**OPEN)
    for name in ("o.json", "p.json"):
        assert quire("catalog", "offer", "silo.yaml", "--out", name, "--count", "rounded")[0] == 0
    assert made().count == Count("rounded", 60, 10)
    (charge,) = silo.charges()  # once a day, as for runs without privacy
    assert charge["charges"][0]["event"] == {"kind": "non_private"}
    silo.write()  # and now a cap holds nothing any more
    status, _, err = quire("catalog", "offer", "silo.yaml", "--out", "q.json", "--count", "dp:0.1")
    assert (status, "unlimited" in err) == (1, True)


def test_without_a_policy_there_is_no_budget_and_nothing_to_charge(silo: Offering, quire: Call) -> None:
    silo.no_policy()
    status, _, err = quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "dp:1")
    assert (status, "has no 'policy'" in err) == (2, True)
    status, _, err = quire("catalog", "offer", "silo.yaml", "--out", "o.json")
    assert (status, "has no 'population'" in err) == (2, True)
    assert quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "rounded")[0] == 0
    assert not silo.store.exists()
    silo.write(**OPEN)
    status, _, err = quire("catalog", "offer", "silo.yaml", "--out", "p.json", "--count", "dp:1")
    assert (status, "no budget to charge" in err) == (2, True)


def test_the_number_of_an_earlier_offer_is_free(silo: Offering, quire: Call) -> None:
    quire("catalog", "offer", "silo.yaml", "--out", "o.json", "--count", "dp:0.5")
    status, _, _ = quire("catalog", "offer", "silo.yaml", "--out", "p.json", "--count", "kept:o.json", "--days", "9")
    assert status == 0
    assert made("p.json").count == made("o.json").count
    assert len(silo.charges()) == 1
    Path("silo.key").unlink()
    Path("silo.key.pub").unlink()
    quire("identity", "new", "silo.key")
    status, _, err = quire("catalog", "offer", "silo.yaml", "--out", "q.json", "--count", "kept:o.json")
    assert (status, "not this silo's own" in err) == (2, True)


def test_rows_that_consent_leaves_out_are_not_counted(tmp_path: Path) -> None:
    silo = Consenting(tmp_path)
    assert count_rows(silo.file()) == 60
    silo.withdraw("p1", "p2", "nobody")
    assert count_rows(silo.file()) == 58
    silo.csv.write_text(silo.csv.read_text() + "p1,40,0\np77,40,0\n")
    assert count_rows(silo.file()) == 59
    silo.write(CONSENT + "test: {connector: csv, path: rows.csv}\n")
    assert count_rows(silo.file()) == 118


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["--count", "exact"], 2, "--count takes"),
        (["--count", "dp"], 2, "0.001 to 10"),
        (["--count", "dp:0"], 2, "0.001 to 10"),
        (["--count", "dp:1e-1"], 2, "0.001 to 10"),
        (["--count", "dp:-1"], 2, "0.001 to 10"),
        (["--count", "kept:nowhere.json"], 2, "There is no file"),
        (["--count", "kept:rows.csv"], 1, "no offer"),
        (["--days", "0"], 2, "--days"),
        (["--days", "9999"], 2, "--days"),
        (["--title", ""], 2, "title"),
        (["--description", "x" * 4001], 2, "description"),
        (["--out", "silo.yaml"], 2, "exists already"),
        (["--out", "nowhere/o.json"], 2, "no folder"),
    ],
)
def test_a_mistake_is_one_sentence_and_costs_nothing(
    silo: Offering, quire: Call, args: list[str], status: int, words: str
) -> None:
    done, out, err = quire("catalog", "offer", "silo.yaml", "--out", "o.json", *args)
    assert (done, out) == (status, "")
    assert words in err
    assert err.count("\n") == 1
    assert not Path("o.json").exists()
    assert silo.charges() == []


def test_what_cannot_be_said_costs_nothing_with_noise_either(silo: Offering, quire: Call) -> None:
    args = ("--count", "dp:0.5", "--title", "x" * 300)
    assert quire("catalog", "offer", "silo.yaml", "--out", "o.json", *args)[0] == 2
    assert silo.charges() == []


def test_a_file_without_a_name_or_key_cannot_be_offered(silo: Offering, quire: Call) -> None:
    text = Path("silo.yaml").read_text()
    Path("silo.yaml").write_text(text.replace("name: clinic-1\n", ""))
    assert "no 'name'" in quire("catalog", "offer", "silo.yaml", "--out", "o.json")[2]
    Path("silo.yaml").write_text("name: a\ndata: {connector: shipped, partition: 0, partitions: 2}\n")
    assert "shipped data set" in quire("catalog", "offer", "silo.yaml", "--out", "o.json")[2]
    Path("silo.yaml").write_text(text)
    Path("silo.key").unlink()
    assert "There is no file" in quire("catalog", "offer", "silo.yaml", "--out", "o.json")[2]
    assert quire("catalog", "offer", "none.yaml", "--out", "o.json")[0] == 2


def test_a_number_of_rows_says_how_sure_it_is() -> None:
    assert Count("declared", 1234).words == "1,234 rows, declared"
    assert Count("rounded", 300, 100).words == "about 300 rows, rounded to 100"
    assert (
        Count("dp", 297, epsilon="0.1").words
        == "about 297 rows, with noise for epsilon 0.1 (within 30 in 19 of 20 cases)"
    )
    assert Count.from_json({"form": "declared", "rows": MOST, "to": None, "epsilon": None}).rows == MOST
