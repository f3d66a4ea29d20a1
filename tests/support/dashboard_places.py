"""An operator's folder and a silo's in which everything that is there to see has a name of its own."""

from __future__ import annotations

import json
from pathlib import Path

from consortium_parties import Parties
from dashboards import leave_run
from logs import SERVER, opened
from logs import entry as log_entry
from real_silo import RealSilo
from stores import go_on

from quire.clients.identity import load_identity
from quire.clients.store import Store
from quire.clients.store.decision_book import Request
from quire.clients.store.decisions import Decisions
from quire.dashboard.roles import Part
from quire.privacy.approval import Binding, Statement
from quire.privacy.identity.keys import PrivateIdentity
from quire.transparency.memory import Memory

#: What stands for each part on the pages of a consortium's operator, and on those of a silo.
AT_OPERATOR = {
    Part.MEMBERS: "member-zz",
    Part.INVITATIONS: "invitee-zz",
    Part.RUNS: "task-zz",
    Part.SETTINGS: "overrides-zz",
    Part.ERRORS: "error-zz",
    Part.BY_SILO: "31337",
    Part.CODES: "rounds_refused",
    Part.REFUSERS: "refuser-zz",
    Part.CARD: "verdict-zz",
    Part.LOG: "Checkpoints and countersignatures",
    Part.STATEMENTS: "reason-zz",
}
AT_SILO = {
    Part.CERTIFICATE: "Certificate and roster",
    Part.CODES: "budget_refused",
    Part.SEEN: "heart/run-7",
    Part.BUDGET: "of epsilon 4",
    Part.LEDGER: "session-zz",
    Part.WORDS: "words-zz",
    Part.REQUESTS: "terms-zz",
    Part.DECISIONS: "decider-zz",
    Part.LINEAGE: "Data lineage",
}
#: What no page has, whoever looks: what silos never say, and what the file of users says.
NOBODYS = ("inner-words-zz", "c0ffee" * 4)

_GATE = """2026-01-31 12:00:00,123 gate INFO: The gate is open for silo.yaml (1 approved in silo.approved.json)
train answered with BUDGET_REFUSED: the run would spend more than is left: words-zz.
2026-01-31 12:00:01,123 gate INFO: Answered train with BUDGET_REFUSED
2026-01-31 12:00:02,123 gate ERROR: Answered with CODE_REFUSED: nobody has approved this bundle, words-zz
2026-01-31 12:00:02,125 gate INFO: Answered train with CODE_REFUSED
2026-01-31 12:00:03,123 gate INFO: Answered train with CONTENT
"""


def card_of(verdict: str) -> dict[str, object]:
    """Return a privacy card, as far as a page shows it."""
    told = {"silo": "hospital-1", "delta": 1e-5, "noise_multiplier": 1.1}
    silo = {"statement": told, "figures": {"rdp": 1.5, "pld": "inf"}, "rounds": {"asked": 2, "released": 2}}
    words = {"protects": ["One record."], "trusted": ["Nobody."]}
    return {"verdict": verdict, "coverage": "2 of 2.", "standing": "stated", "words": words, "silos": [silo]}


def operators(root: Path) -> Path:
    """Make an operator's folder with a member, an invitation, and a run that failed."""
    parties = Parties(root).found()
    parties.bring("member-zz")
    parties.invite("invitee-zz")
    run = leave_run(
        parties.operator.root / "runs" / "7",
        "error-zz",
        task="task-zz",
        refuser="refuser-zz",
        code="rounds_refused",
        words="inner-words-zz",
        rows=31337,
        overrides="overrides-zz",
    )
    (run / "privacy_card.json").write_text(json.dumps(card_of("verdict-zz")))
    with opened(run / "log") as log:
        log.append(*(log_entry(number) for number in (1, 2)))
        log.checkpoint(2000)
    key = PrivateIdentity.from_seed(b"s" * 32)
    stated = Statement.sign(Binding("7", "c" * 64, "5" * 64, None), "hospital-1", "rejected", 2000, "reason-zz", key)
    (run / "approvals.jsonl").write_bytes(stated.encode() + b"\n")
    return parties.operator.root


def silos(root: Path) -> Path:
    """Make a silo's folder that has joined, with what its records spent, what it refused, and what waits."""
    parties = Parties(root).found()
    folder = parties.bring("clinic-1").root
    own = RealSilo(folder)  # its key, rows and silo.yaml, beside what the consortium gave it
    own.write("identity: silo.key\nstore: store\n", approval="true")
    identity = load_identity(folder / "silo.key")
    with Store.open(folder / "store", identity) as store:
        go_on(store, store.ledger("clinic"), 3, "session-zz")
        book = Decisions(store, identity)
        for run in ("7", "8"):
            request = Request("clinic-1", Binding(run, "c" * 64, "5" * 64, None), "", ())
            matter = book.ask(request, lambda: [("learns", "terms-zz")])
        book.decide(matter.request.what, "rejected", "decider-zz", "not covered", False)
        with opened(root / "log") as log:
            log.append(log_entry(1))
            Memory(folder / "store" / "logs").accept(log.checkpoint(2000), SERVER.public)
    (folder / "run" / "log").mkdir(parents=True)
    (folder / "run" / "log" / "gate.log").write_text(_GATE)
    return folder
