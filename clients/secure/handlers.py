"""The stages of secure aggregation at the silo, as handlers of its Flower app.

Each reads one message of the protocol, lets :mod:`quire.privacy.secagg` answer it, writes down how far the silo has
come, and replies: with a message of the protocol, in which an error of its closed set is a number, or with one of the
fixed codes. Only the stage that trains imports torch; what it makes stays in the silo, encoded, until it is masked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from quire.clients import contract
from quire.clients.answering import LOG, Refusal, answering
from quire.clients.arrays import Arrays, MalformedArray, decode, fingerprint
from quire.clients.contract import Code
from quire.clients.secure.agreement import Agreement, agreement_of
from quire.clients.secure.memory import Vector
from quire.clients.secure.stage import Core, Silo, Stage
from quire.privacy.csprng import Csprng
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.dp.shares import add_share, encoding_of
from quire.privacy.secagg import client, client_round
from quire.privacy.secagg.client import Step
from quire.privacy.secagg.context import GENESIS
from quire.privacy.secagg.errors import PolicyViolation, Replay, SecAggError
from quire.privacy.secagg.masks import Words
from quire.privacy.secagg.messages import Start
from quire.privacy.secagg.state import position


def register(app: ClientApp, asked: Callable[[Message, Context], Silo], code: str) -> None:
    """Add the stages to a silo's app.

    Parameters
    ----------
    app : flwr.clientapp.ClientApp
    asked : callable
        Returns the silo that a message is for; nobody has let it answer yet.
    code : str
        Hash of the code that runs here.
    """

    def add(name: str, answer: Callable[[Stage], Message], failure: Code = Code.INTERNAL) -> None:
        # The stage is what the handler does, here and for the policy; never what the message calls itself.
        def handle(message: Message, context: Context) -> Message:
            return answer(Stage.read(name, message, context, asked(message, context), code))

        category, action = name.split(".")
        {"query": app.query, "train": app.train}[category](action)(answering(failure)(handle))

    def by(core: Core, last: bool = False) -> Callable[[Stage], Message]:
        return lambda stage: stage.answer(core, last)

    add(contract.OPEN, by(client.open_session))
    add(contract.PAIRS, by(client.agree))
    add(contract.READY, by(client.ready))
    add(contract.SHARES, shares, Code.TRAINING_FAILED)
    add(contract.MASK, mask)
    add(contract.CONFIRM, by(client_round.confirm))
    add(contract.UNMASK, by(client_round.unmask, last=True))


def shares(stage: Stage) -> Message:
    """X1: begin an attempt. Train, if this round was not trained for yet; the update stays here.

    Under distributed noise every attempt trains anew and is charged: one draw of noise is in one sum alone.
    """
    model, round_number = _model(stage.message)
    digest = bytes.fromhex(fingerprint(model))
    silo = stage.silo
    with stage.desk() as desk:
        try:
            agreement = agreement_of(desk.terms, model)
        except EncodingError as error:
            raise Refusal(Code.SECURE_REFUSED, str(error)) from error
        state = desk.memory.load()
        try:
            attempt = Start.decode(stage.data)
            step = client_round.start(desk.party, state, stage.data, digest, GENESIS)
            config = state.settings
            if config != agreement.config(stage.context.run_id, config.first_round):
                raise PolicyViolation("The session was opened with other numbers than the settings and the model give.")
            if attempt.round != round_number:
                raise Replay(f"The message is about round {attempt.round}, and says that it is round {round_number}.")
        except SecAggError as error:
            return stage.refuse(desk, error)
        kept = desk.memory.vector()
        if agreement.terms.noise or kept is None or (kept.round, kept.model) != (round_number, digest):
            kept = None
            desk.memory.forget()
            silo = silo.charged(desk.admit(round_number, attempt.attempt))
        desk.memory.save(step.state)
    shown: dict[str, float] = {}
    if kept is None:
        kept, shown = _trained(stage, silo, agreement, model, digest, (round_number, attempt.attempt))
        with stage.desk() as desk:
            now = desk.memory.load().at
            if now.opened >= round_number or now != step.state.at:
                raise Refusal(Code.REPLAY_REFUSED, f"round {round_number} went on without this training")
            desk.memory.keep(kept)
    return stage.reply(step.reply, kept.receipt, shown)


def _trained(
    stage: Stage, silo: Silo, agreement: Agreement, model: Arrays, digest: bytes, attempt: tuple[int, int]
) -> tuple[Vector, dict[str, float]]:
    from quire.clients.work import train_update

    round_number, _ = attempt
    if agreement.terms.noise is not None:
        return _shared(stage, silo, agreement, model, digest, attempt)
    settings, member = silo.settings, silo.member
    entropy = member.entropy(settings)
    shown: dict[str, float] = {}
    receipt = b""
    metrics: dict[str, float] = {}
    if silo.private:
        update, shown, receipt = silo.private_update(stage.context, model, round_number)
        weight = silo.records
    else:
        silo.load(stage.context)
        trained = train_update(settings, member.where, member.name, model, {}, {}, round_number, entropy, None)
        update, weight, metrics = trained.update, trained.rows, {contract.TRAIN_LOSS: trained.loss}
    if not all(np.isfinite(part).all() for part in [*update.values(), np.array(list(metrics.values()))]):
        raise Refusal(Code.NOT_FINITE)
    source = Csprng(entropy.key("secure-rounding", round_number, member.name))
    encoded = agreement.encode(update, weight, metrics, source)
    if encoded.clamped:
        LOG.warning("%d coordinates of round %d lay beyond aggregation.bound.", encoded.clamped, round_number)
    words = encoded.words.astype("<u4").tobytes()
    return Vector(round_number, digest, receipt, words), shown


def _shared(
    stage: Stage, silo: Silo, agreement: Agreement, model: Arrays, digest: bytes, attempt: tuple[int, int]
) -> tuple[Vector, dict[str, float]]:
    """Make ready what this attempt adds under distributed noise: in whole numbers, and without any noise yet."""
    vector, shown, receipt = silo.shared_vector(stage.context, model, attempt, agreement.terms.members)
    entropy = silo.member.entropy(silo.settings)
    source = Csprng(entropy.key("secure-rounding", *attempt, silo.member.name))
    encoded, clamped = agreement.encode_shared(vector, source)
    if clamped:  # for the silo's own eyes: the count is private
        LOG.warning("%d coordinates of round %d lay beyond what one silo may add.", clamped, attempt[0])
    words = encoded.astype("<u4").tobytes()
    return Vector(attempt[0], digest, receipt, words, agreement.layout.size, attempt[1]), shown


def mask(stage: Stage) -> Message:
    """X2: mask what was made ready, under distributed noise with this silo's share on top. No data is touched."""
    silo = stage.silo
    with stage.desk() as desk:
        state = desk.memory.load()

        def words() -> Words:
            kept = desk.memory.vector()
            if kept is None or kept.round != state.round:
                raise Refusal(Code.SECURE_REFUSED, f"nothing is ready for round {state.round}")
            plain = np.frombuffer(kept.words, dtype="<u4").astype(np.uint32)
            terms = desk.terms
            if terms.noise is None:
                return plain
            if position(state.settings, kept.round, kept.attempt) != state.at.position:
                raise Refusal(Code.SECURE_REFUSED, f"what is ready for round {kept.round} is of another attempt")
            encoding = encoding_of(terms.noise, kept.parameters, terms.bits, terms.rotation)
            # Drawn now, for this attempt alone: the state that goes on from here masks nothing a second time.
            entropy = silo.member.entropy(silo.settings)
            share = Csprng(entropy.key("noise-share", kept.round, kept.attempt, silo.member.name))
            return add_share(encoding, plain, share)

        try:
            step: Step = client_round.mask(desk.party, state, stage.data, words)
        except SecAggError as error:
            return stage.refuse(desk, error)
        desk.memory.save(step.state)
    return stage.reply(step.reply)


def _model(message: Message) -> tuple[Arrays, int]:
    """Read the global model and the round."""
    arrays, config = message.content.get(contract.ARRAYS), message.content.get(contract.CONFIG)
    number = config.get(contract.ROUND) if isinstance(config, ConfigRecord) else None
    if not isinstance(arrays, ArrayRecord) or type(number) is not int or number < 1:
        raise Refusal(Code.BAD_REQUEST)
    try:
        return decode(arrays), number
    except MalformedArray as error:
        raise Refusal(Code.BAD_REQUEST) from error
