"""The silo's side as a Flower ``ClientApp``: the same app in every runtime.

A handler composes the settings from the string that the server sent, loads the silo's own rows, works, and
answers in the terms of :mod:`quire.clients.contract`. It never raises: a failure is logged here, in words, and
leaves as one of the fixed codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from quire.clients import contract
from quire.clients.answering import LOG, Refusal, answering
from quire.clients.arrays import Arrays, MalformedArray, decode, encode, fingerprint
from quire.clients.code import code_hash
from quire.clients.contract import Code
from quire.clients.data.own import load
from quire.clients.data.preprocess import FEDERATED, Loaded, preprocessing_of
from quire.clients.gate.mark import enclave
from quire.clients.member import SILO_KEY, Member, member_of
from quire.clients.policy.approval import NotApproved, withheld
from quire.clients.policy.witnessed import hold_to_witnessed
from quire.clients.private.plan import Plan, SharedPlan, plan_of
from quire.clients.receipts import Round, Stand, receipt_of
from quire.clients.secure.handlers import register
from quire.clients.secure.stage import Guard
from quire.clients.simulation import is_simulated
from quire.clients.tasks.moments import MEAN, SCALE, Statistics
from quire.conf.compose import compose
from quire.conf.schema import NoPrivacy, SecureAggregation, Settings
from quire.errors import DataError, SettingsError
from quire.privacy.approval import Statement
from quire.privacy.dp.contract import PrivacyError

__all__ = ["CODE_HASH", "SILO_KEY", "app"]

# Taken when this code is loaded, not later when the files may have changed under it.
CODE_HASH = code_hash()
_ROWS = "rows"

app = ClientApp()


@dataclass(frozen=True)
class _Silo:
    """A silo that its operator's policy lets answer, and the run's settings."""

    settings: Settings
    member: Member
    stand: Stand | None = None
    approval: Statement | None = None

    @property
    def name(self) -> str:
        return self.member.name

    @property
    def private(self) -> bool:
        # In a self-test of the noise there is nothing of any record to state, charge for or declare.
        return not isinstance(self.settings.privacy, NoPrivacy) and not self.settings.selftest

    @property
    def records(self) -> int:
        """The public number of records: the operator's, or in a simulation without one that of the training rows."""
        operator = self.member.operator
        if operator is not None and operator.population is not None:
            return operator.population.records
        if not self.member.simulated:
            raise Refusal(Code.NO_POLICY, "the silo's file declares no population and so no count of records")
        return len(load(self.settings, self.member.where, self.name).data.train)

    def identity(self) -> ConfigRecord:
        told: dict[str, str | int] = {contract.SILO: self.name, contract.CODE_HASH: CODE_HASH}
        if self.private:
            told[contract.RECORDS] = self.records
        if not isinstance(self.member.where, int):
            told[contract.SCHEMA] = self.member.where.schema.sha256
        inside = {contract.ENCLAVE: profile} if (profile := enclave()) else {}
        return ConfigRecord({**told, **inside, contract.CONTRACT: contract.VERSION})

    def load(self, context: Context) -> Loaded:
        """Load the silo's rows, and see to it that they are those that this run began with."""
        if self.settings.selftest:  # whatever brought us here
            raise Refusal(Code.SETTINGS_REFUSED, "a self-test of the noise reads no rows")
        try:
            loaded = load(self.settings, self.member.where, self.name)
        except Exception as error:  # one code for whatever is wrong with the rows: which rows fail is private
            raise Refusal(Code.DATA_UNAVAILABLE, "the silo's rows could not be loaded") from error
        if loaded.digest:
            known = context.state.config_records.get(_ROWS)
            if known is None:
                context.state[_ROWS] = ConfigRecord({"digest": loaded.digest})
            elif known["digest"] != loaded.digest:
                raise DataError(f"The rows of {self.name} changed during the run: start another run.")
        return loaded

    def charged(self, stand: Stand | None) -> _Silo:
        """Return the same silo, after it was charged for a round."""
        return replace(self, stand=stand)

    def private_update(
        self, context: Context, model: Arrays, round_number: int, clip: float | None = None, guard: Guard | None = None
    ) -> tuple[Arrays | None, dict[str, float], bytes]:
        """Train under the plan that the silo makes for itself; return update, what a simulated silo shows, receipt.

        With a guard, that the training failed is for the silo alone to know: there is no update then, and a receipt
        all the same.
        """
        from quire.clients.work import train_privately

        plan = self._planned(context, clip)
        entropy, where = self.member.entropy(self.settings), self.member.where
        note = self.member.notes(context.run_id, round_number, model)

        def work() -> tuple[Arrays, dict[str, float]]:
            found = train_privately(self.settings, where, self.name, plan, model, round_number, entropy, note)
            if not all(np.isfinite(part).all() for part in found[0].values()):
                raise Refusal(Code.NOT_FINITE)
            return found

        update, shown = work() if guard is None else guard(work, round_number) or (None, {})
        told, receipt = self._told(context, plan, model, round_number, shown)
        return update, told, receipt

    def shared_vector(
        self, context: Context, model: Arrays, attempt: tuple[int, int], members: int, guard: Guard
    ) -> tuple[np.ndarray | None, dict[str, float], bytes]:
        """Work out what an attempt adds under distributed noise, without any; and the same beside it."""
        if self.settings.selftest:
            LOG.info("Round %d is a self-test of the noise: nothing but noise, no row is read.", attempt[0])
            return np.zeros(sum(part.size for part in model.values())), {}, b""
        from quire.clients.work import sum_privately

        plan = self._planned(context, members=members)
        if not isinstance(plan, SharedPlan):
            raise Refusal(Code.SETTINGS_REFUSED, "these settings ask for no distributed noise")
        entropy, where = self.member.entropy(self.settings), self.member.where
        about = (self.settings, where, self.name, plan, model, attempt, entropy)
        note = self.member.notes(context.run_id, attempt[0], model)
        found = guard(lambda: sum_privately(*about, note), attempt[0])
        vector, shown = found or (None, {})
        return (vector, *self._told(context, plan, model, attempt[0], shown))

    def _planned(self, context: Context, clip: float | None = None, members: int | None = None) -> Plan:
        """Return the silo's own plan, and see to it that its books were charged before its rows are loaded."""
        if self.stand is None and not self.member.simulated:  # whatever brought us here: first the ledger, then data
            raise Refusal(Code.BOOKS_UNUSABLE, "the silo's books were not charged for this round, so it does not train")
        policy = self.member.policy
        colluders = policy.colluders if policy is not None else 0
        try:
            plan = plan_of(self.settings, self.records, clip, members=members, colluders=colluders)
        except PrivacyError as error:
            raise Refusal(Code.SETTINGS_REFUSED, str(error)) from error
        self.load(context)
        return plan

    def _told(
        self, context: Context, plan: Plan, model: Arrays, round_number: int, shown: Mapping[str, float]
    ) -> tuple[dict[str, float], bytes]:
        """Return what a simulated silo shows of a round, and the receipt for it."""
        if broken := int(shown.get("broken-gradients", 0)):  # for the silo's own eyes: the count is private
            LOG.warning("%d gradients in round %d were not finite, and counted as zero.", broken, round_number)
        policy = self.member.policy
        about = Round(
            self.name,
            self.records,
            context.run_id,
            round_number,
            fingerprint(model),
            CODE_HASH,
            simulated=self.member.simulated,
            test_seed=policy is not None and policy.test_seed,
            broken_gradients=broken if "broken-gradients" in shown else None,
        )
        told = {name: value for name, value in shown.items() if np.isfinite(value)} if self.member.simulated else {}
        return told, receipt_of(self.settings, plan, about, self.stand)


def _asked(message: Message, context: Context) -> _Silo:
    """Find out who this silo is and what the run's settings are. Nobody has let it answer yet."""
    try:
        settings = compose(str(context.run_config.get("overrides", "")))
    except SettingsError as error:
        raise Refusal(Code.SETTINGS_REFUSED) from error
    # By where this code runs: the run config and the message are the server's, and have no say.
    return _Silo(settings, member_of(settings, context.node_config, is_simulated()))


def _silo(message: Message, context: Context, stage: str, round_number: int = 0, clip: float | None = None) -> _Silo:
    """Find out who this silo is, and whether its operator lets it answer. No data is touched before this returns.

    The stage is what the handler *does*. Never what the message calls itself: Flower brings ``train.default`` to the
    same handler as ``train``, and the books would not know it.
    """
    silo = _asked(message, context)
    if stage == contract.TRAIN and isinstance(silo.settings.aggregation, SecureAggregation):
        raise Refusal(Code.SECURE_REFUSED, "under aggregation=secure no update leaves in clear")
    stand, approval = silo.member.admit(silo.settings, stage, CODE_HASH, context.run_id, round_number, clip)
    return replace(silo, stand=stand, approval=approval)


def _statistics(message: Message) -> Statistics | None:
    """Read the mean and scale of the features, which are there where preprocessing is federated."""
    config = message.content[contract.CONFIG]
    if MEAN not in config and SCALE not in config:
        return None
    mean, scale = _numbers(config.get(MEAN)), _numbers(config.get(SCALE))
    if len(mean) != len(scale) or min(scale, default=1.0) <= 0.0:
        raise Refusal(Code.BAD_REQUEST)
    return Statistics(mean, scale)


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(isinstance(value, float) and np.isfinite(value) for value in values):
        raise Refusal(Code.BAD_REQUEST)
    return tuple(values)


def _request(message: Message) -> tuple[Arrays, int]:
    """Read the global model and the round from the server's message."""
    try:
        arrays = _arrays(message.content, contract.ARRAYS)
        config = message.content[contract.CONFIG]
    except KeyError as error:
        raise Refusal(Code.BAD_REQUEST) from error
    round_number = config.get(contract.ROUND)
    if not isinstance(config, ConfigRecord) or type(round_number) is not int or round_number < 1:
        raise Refusal(Code.BAD_REQUEST)
    return arrays, round_number


def _told_clip(message: Message) -> float | None:
    """Read the clip of the round, which the server tells where it moves."""
    clip = message.content[contract.CONFIG].get(contract.CLIP)
    if clip is not None and not (isinstance(clip, float) and np.isfinite(clip) and clip > 0.0):
        raise Refusal(Code.BAD_REQUEST)
    return clip


def _arrays(records: RecordDict, name: str) -> Arrays:
    # Not by Flower's `array_records`: it puts together a dictionary that writes back whenever it is read.
    record = records[name]
    if not isinstance(record, ArrayRecord):
        raise Refusal(Code.BAD_REQUEST)
    try:
        return decode(record)
    except MalformedArray as error:
        raise Refusal(Code.BAD_REQUEST) from error


def _memory(context: Context) -> Arrays:
    return _arrays(context.state, contract.MEMORY) if contract.MEMORY in context.state else {}


def _reply(
    message: Message, silo: _Silo, records: Mapping[str, ArrayRecord | MetricRecord], receipt: bytes = b""
) -> Message:
    identity = silo.identity()
    if receipt:
        identity[contract.RECEIPT] = receipt
    return Message(RecordDict({contract.IDENTITY: identity, **records}), reply_to=message)


@app.query()
@answering(Code.INTERNAL)
def query(message: Message, context: Context) -> Message:
    """Say who this silo is and which code it runs. Touches no data and imports no torch."""
    try:
        silo = _silo(message, context, contract.QUERY)
        hold_to_witnessed(silo.member, message)
    except NotApproved as why:
        return withheld(message, why, CODE_HASH)
    identity = silo.identity()
    if silo.approval is not None:
        identity[contract.APPROVAL] = silo.approval.encode()
    return Message(RecordDict({contract.IDENTITY: identity}), reply_to=message)


@app.query("moments")
@answering(Code.DATA_UNAVAILABLE)
def moments(message: Message, context: Context) -> Message:
    """Reply with count, sum and sum of squares of the features, if the settings ask for them and not else."""
    silo = _silo(message, context, contract.MOMENTS)
    if preprocessing_of(silo.settings) != FEDERATED:
        raise Refusal(Code.BAD_REQUEST)
    return _reply(message, silo, {contract.ARRAYS: encode(silo.load(context).moments())})


@app.train()
@answering(Code.TRAINING_FAILED)
def train(message: Message, context: Context) -> Message:
    """Train the global model on the silo's own rows and reply with the update."""
    model, round_number = _request(message)  # first, so that a message that cannot be read costs nothing
    told = _arrays(message.content, contract.TOLD) if contract.TOLD in message.content else {}
    statistics, clip = _statistics(message), _told_clip(message)
    silo = _silo(message, context, contract.TRAIN, round_number, clip)
    from quire.clients.work import train_update

    memory = _memory(context)
    if silo.private:
        return _train_privately(message, context, silo, model, round_number, clip)
    silo.load(context)
    entropy, note = silo.member.entropy(silo.settings), silo.member.notes(context.run_id, round_number, model)
    trained = train_update(
        silo.settings, silo.member.where, silo.name, model, told, memory, round_number, entropy, statistics, note
    )
    if not trained.finite:
        raise Refusal(Code.NOT_FINITE)
    metrics = MetricRecord({contract.NUM_EXAMPLES: trained.rows, contract.TRAIN_LOSS: trained.loss})
    reply = _reply(message, silo, {contract.UPDATE: encode(trained.update), contract.METRICS: metrics})
    if trained.memory:
        context.state[contract.MEMORY] = encode(trained.memory)
    return reply


def _train_privately(
    message: Message, context: Context, silo: _Silo, model: Arrays, round_number: int, clip: float | None
) -> Message:
    """Train under privacy. Nothing leaves but the update and public figures."""
    update, shown, receipt = silo.private_update(context, model, round_number, clip)
    records: dict[str, ArrayRecord | MetricRecord] = {contract.UPDATE: encode(update or {})}
    if silo.member.simulated:
        records[contract.SHOWN] = MetricRecord(dict(shown))
    return _reply(message, silo, records, receipt)


@app.evaluate()
@answering(Code.EVALUATION_FAILED)
def evaluate(message: Message, context: Context) -> Message:
    """Score the global model on the silo's own test rows, with its own layers, and beside it one tuned to its rows."""
    arrays, round_number = _request(message)
    statistics = _statistics(message)
    silo = _silo(message, context, contract.EVALUATE, round_number)
    from quire.clients.work import score_model

    silo.load(context)
    rng = silo.member.entropy(silo.settings).generator("tuning", round_number, silo.name)
    about = (silo.settings, silo.member.where, silo.name)
    scores, rows = score_model(*about, arrays, statistics, _memory(context), rng)
    metrics = MetricRecord({contract.NUM_EXAMPLES: rows, **scores})
    return _reply(message, silo, {contract.METRICS: metrics})


register(app, _asked, CODE_HASH)
