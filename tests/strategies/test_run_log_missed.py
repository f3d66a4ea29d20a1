"""Rounds that the run folder has and the log was not told of: a resumed run makes up for all of them."""

from __future__ import annotations

import base64
import errno

import pytest
from private_runs import OVERRIDES, SILOS, Consortium, model_of

from quire.clients.arrays import fingerprint
from quire.clients.code import code_hash
from quire.conf.compose import compose
from quire.privacy.identity.keys import PrivateIdentity
from quire.strategies.folder import RunFolder
from quire.strategies.reading import Failure
from quire.strategies.report import RoundReport
from quire.strategies.rounds import RoundState
from quire.strategies.run_log import RunLog
from quire.transparency.errors import LogError
from quire.transparency.reading import Entries
from quire.transparency.verify import Place, verify_log

CONSORTIUM, KEY = Consortium(), PrivateIdentity.from_seed(b"log".ljust(32))


def go_on(log, number):
    """Have a round under masks in two attempts, bound to the newest checkpoint."""
    report = RoundReport(number, cohort=list(SILOS), replied=["hospital-1"])
    data = CONSORTIUM.receipt("hospital-1", number, fingerprint(model_of(number - 1)))
    report.receipts["hospital-1"] = base64.b64encode(data).decode()
    report.failed = [Failure("hospital-2", "train", "late", "it was late")]
    attempts = [
        {"attempt": one, "cohort": list(SILOS), "transcript": {"sha256": f"{10 * number + one:064x}"}} for one in (1, 2)
    ]
    attempts[0]["error"] = "CohortTooSmall"
    report.secure = {"checkpoint": log.log.notes[-1].checkpoint.hash, "attempts": attempts}
    log.round_done(report, RoundState(number, model_of(number)))


def begun(folder, resume=False):
    settings, run = compose(OVERRIDES), RunFolder(folder, reopen=resume)
    if resume:
        run.resumed(run.resume().state)
    else:
        run.begin(settings, "deployment", code_hash())
        run.started(settings, list(SILOS), RoundState(0, model_of(0)))
    log = RunLog(run, KEY, "7")
    log.began(settings, code_hash())
    return run, log


def told(folder):
    kinds = "checkpoint", "cohort", "transcript", "abort", "refusal", "ledger_head", "model"
    entries = [entry for _, entry in Entries(Place.of(folder).entries).each()]
    return [
        (entry.round, entry.kind, {key: entry.body[key] for key in entry.body if key not in ("checkpoint", "size")})
        for entry in entries
        if entry.kind in kinds
    ]


@pytest.mark.parametrize("written", [0, 1, 4, 8, 9])
def test_a_resumed_run_logs_all_of_a_round_that_only_the_journal_has(tmp_path, monkeypatch, written):
    """Killed before the log was told, or within that write: nothing is missing, nothing is there twice."""
    _, log = begun(tmp_path / "whole")
    for number in (1, 2, 3):
        go_on(log, number)
    log.close()
    run, log = begun(tmp_path / "run")
    go_on(log, 1)

    def dying(self, entries, at):
        self.log.append(*list(entries)[:written])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "_write", dying)
        with pytest.raises(KeyboardInterrupt):
            go_on(log, 2)
    log.close()
    run.close()
    run, log = begun(tmp_path / "run", resume=True)
    go_on(log, 3)
    run.close()
    log.close()
    assert told(tmp_path / "run") == told(tmp_path / "whole")
    assert len(told(tmp_path / "run")) == 3 * 9
    assert verify_log(Place.of(tmp_path / "run")).wrong == []


def test_a_log_that_could_not_be_written_is_told_at_the_end(tmp_path, monkeypatch):
    run, log = begun(tmp_path / "run")

    def full(*entries):
        raise LogError(errno.ENOSPC)

    with monkeypatch.context() as patch:
        patch.setattr(log.log, "append", full)
        with pytest.raises(LogError):
            go_on(log, 1)
    run.finish("failed", "the disk was full")
    log.ended()
    log.close()
    assert [kind for _, kind, _ in told(tmp_path / "run")].count("model") == 1
    found = verify_log(Place.of(tmp_path / "run"))
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b"\n")
    assert (found.wrong, found.kinds["journal"], found.kinds["end"]) == ([], lines, 1)
