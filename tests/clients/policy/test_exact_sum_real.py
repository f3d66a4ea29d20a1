"""A real silo is never talked into the short cut of a simulation, whatever its policy says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from real_silo import MODEL, RealSilo, code_of, merged, opened_files

from quire.clients import contract, member
from quire.clients.answering import Refusal
from quire.clients.arrays import encode
from quire.clients.client_app import SILO_KEY, app
from quire.clients.policy.decide import Allow
from quire.clients.secure.protocols import protocol_of
from quire.conf.compose import compose
from quire.privacy.secagg import client_round, exact_sum
from quire.privacy.secagg.messages import Open
from quire.simulation.grid import server_identity

EXACT = "aggregation=secure aggregation.max_rows=100 aggregation.simulate=exact_sum"


@pytest.fixture
def silo(tmp_path: Path) -> RealSilo:
    made = RealSilo(tmp_path)
    made.write(aggregation="[plain, secure]")
    return made


def refused(silo: RealSilo, stage: str) -> str:
    content: dict[str, Any] = {
        contract.ARRAYS: encode(MODEL),
        contract.CONFIG: ConfigRecord({contract.ROUND: 1}),
        contract.PROTOCOL: ConfigRecord({contract.MESSAGE: Open(bytes(16), bytes(32), b"").encode()}),
    }
    context = Context(
        silo.run, 10, {SILO_KEY: str(silo.folder / "silo.yaml")}, silo.state, {"overrides": merged(EXACT)}
    )
    with server_identity(silo.run), opened_files() as files:
        message = Message(RecordDict(content), 10, stage)
        message.metadata.__dict__["_message_id"] = "m"
        reply = app(message, context)
    assert str(silo.csv) not in files
    return code_of(reply)


@pytest.mark.parametrize("stage", sorted(set(contract.STAGES) - {contract.TRAIN}))
def test_it_refuses_every_message_and_opens_no_rows(silo: RealSilo, stage: str, caplog: pytest.LogCaptureFixture):
    code = refused(silo, stage)
    assert code in ("POLICY_REFUSED", "SETTINGS_REFUSED")
    by_policy = "is a short cut for simulations, without any secure aggregation, and this is a deployment"
    by_itself = "has no secure aggregation: it is for simulations"
    assert (by_policy if code == "POLICY_REFUSED" else by_itself) in caplog.text
    assert silo.charges() == []


def test_an_update_in_clear_is_refused_ahead_of_that(silo: RealSilo) -> None:
    assert refused(silo, contract.TRAIN) == "SECURE_REFUSED"


@pytest.mark.parametrize("stage", contract.SECURE_STAGES)
def test_nor_would_it_answer_without_its_policy(silo: RealSilo, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "decide", lambda *case: Allow())
    code = refused(silo, stage)
    assert code in ("SETTINGS_REFUSED", "ROSTER_REFUSED")  # this one pins no roster, which it looks at first
    assert silo.charges() == []


def test_only_a_simulated_silo_answers_by_it() -> None:
    asked, whole = (
        compose(f"task=breast_cancer aggregation=secure {how}").aggregation for how in (EXACT.split()[-1], "")
    )
    simulated, real = (member.Member("a", 0, None, simulated) for simulated in (True, False))
    assert protocol_of(asked, simulated).mask is exact_sum.mask
    assert protocol_of(whole, simulated).mask is protocol_of(whole, real).mask is client_round.mask
    with pytest.raises(Refusal, match="it is for simulations") as caught:
        protocol_of(asked, real)
    assert caught.value.code is contract.Code.SETTINGS_REFUSED
