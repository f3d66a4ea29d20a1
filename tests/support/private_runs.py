"""Run folders of a consortium with real keys, written by the parts that a server and its silos are made of."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from quire.clients.arrays import fingerprint
from quire.clients.code import code_hash
from quire.clients.private.plan import plan_of
from quire.clients.receipts import Round, Stand, receipt_of
from quire.conf.compose import compose
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.identity.roster import Admin, Member, Roster
from quire.privacy.identity.signed import SignedRoster
from quire.privacy.receipts import Receipt
from quire.strategies.checkpoint import replace
from quire.strategies.folder import RunFolder
from quire.strategies.reading import Failure
from quire.strategies.rounds import RoundState
from quire.strategies.run_log import RunLog
from quire.strategies.strategy import RoundReport

OVERRIDES = "task=breast_cancer partition=iid partition.silos=3 strategy.rounds=4 privacy=record privacy.epsilon=3"
SILOS = {"hospital-1": 150, "hospital-2": 152, "hospital-3": 153}


@dataclass
class Consortium:
    """Three silos and their admin, with keys."""

    keys: dict[str, PrivateIdentity] = field(
        default_factory=lambda: {name: PrivateIdentity.from_seed(name.encode().ljust(32)) for name in SILOS}
    )
    admin: PrivateIdentity = field(default_factory=lambda: PrivateIdentity.from_seed(b"a" * 32))

    @property
    def signed(self) -> SignedRoster:
        """The roster, signed by its admin."""
        members = tuple(Member(index, name, key.public) for index, (name, key) in enumerate(self.keys.items()))
        roster = Roster("hearts", 1, members, (Admin("admin", self.admin.public),), 1, len(members))
        return SignedRoster(roster).sign(self.admin)

    def receipt(self, silo, number, model, overrides=OVERRIDES, /, *, run=7, count=None, **changes):
        """Return a silo's receipt; ``changes`` are made to its body, and signed with it."""
        settings, records = compose(overrides), count or SILOS[silo]
        stand = Stand(self.keys[silo], "hearts", 10 + number, f"{number:064x}", 0.5 * number, 1e-5)
        about = Round(
            *(silo, records, run, number, model, code_hash()), simulated=False, test_seed=False, broken_gradients=None
        )
        data = receipt_of(settings, plan_of(settings, records), about, stand)
        if not changes:
            return data
        return Receipt.sign({**Receipt.decode(data).body, **changes}, self.keys[silo]).encode()


def model_of(number):
    """Return the global model after a round."""
    return {"weight": np.full(3, float(number), np.float32)}


def write_run(
    folder: Path,
    consortium: Consortium,
    overrides=OVERRIDES,
    rounds=4,
    silent=None,
    records=None,
    log_key=None,
    approvals=None,
    charter=None,
) -> Path:
    """Write the folder of a deployed run as the server does; ``silent`` (silo, round) gives no answer.

    Without privacy there are no receipts. ``records`` are what silos declare; with ``log_key`` the run has a
    transparency log; ``approvals`` are those of its silos, and ``charter`` is what it is under.
    """
    settings = compose(overrides)
    run = RunFolder(folder)
    run.run = "7"
    run.begin(settings, "deployment", code_hash())
    replace(folder / "roster.json", consortium.signed.encode())
    if charter is not None:
        run.hold_to("charter", {"charter": charter.hash, "version": charter.version, "previous": charter.previous})
    log = None if log_key is None else RunLog(run, log_key, "7")
    run.started(settings, list(SILOS), RoundState(0, model_of(0)))
    if log is not None:
        log.began(settings, code_hash())
    if approvals is not None:
        if log is not None:
            log.decided(approvals.statements)
        approvals.keep(folder)
    for number in range(1, rounds + 1):
        before = fingerprint(model_of(number - 1))
        good = [silo for silo in SILOS if (silo, number) != silent]
        report = RoundReport(number, cohort=list(SILOS), replied=good)
        report.failed = [Failure(silo, "train", "late", "it was late") for silo in SILOS if silo not in good]
        for silo in good if settings.privacy.name != "none" else ():
            data = consortium.receipt(silo, number, before, overrides, count=(records or SILOS)[silo])
            report.receipts[silo] = base64.b64encode(data).decode()
        (log or run).round_done(report, RoundState(number, model_of(number)))
    run.finish("completed")
    if log is not None:
        log.ended()
        log.close()
    return folder


def journal(folder):
    """Return the journal's lines."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def rewrite(folder, lines):
    """Replace the journal."""
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def leaves(value, path=()):
    """Yield the path and value of every leaf of a JSON value; of empty containers too."""
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def changed(value):
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if value is None:
        return 1
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.01 + 1e-3
    if isinstance(value, str):
        return ("0" if not value.startswith("0") else "1") + value[1:]
    return [1] if isinstance(value, list) else {"more": 1}


def put(tree, path, value):
    """Change one leaf in place."""
    for key in path[:-1]:
        tree = tree[key]
    tree[path[-1]] = value


def bodies(run):
    """Yield each receipt of the journal as (line, silo, document)."""
    for line in journal(run):
        for silo, text in line.get("receipts", {}).items():
            yield line["round"], silo, json.loads(base64.b64decode(text))


def forge(run, number, silo, document):
    """Put a receipt in the place of another, in whatever form."""
    lines = journal(run)
    for line in lines:
        if line.get("round") == number and line["event"] == "round":
            data = document if isinstance(document, bytes) else canonical(document)
            line["receipts"][silo] = base64.b64encode(data).decode()
    rewrite(run, lines)


def canonical(document):
    """Return the one spelling of a receipt."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
