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
from quire.clients.secure.chain import Known, follow, watched
from quire.clients.secure.desk import Desk
from quire.clients.secure.link import read_path
from quire.clients.secure.memory import Vector
from quire.clients.secure.shown import countersigned, take
from quire.clients.secure.stage import Silo, Stage
from quire.clients.secure.training import ready_for
from quire.privacy.csprng import Csprng
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.dp.shares import add_share, encoding_of
from quire.privacy.secagg.client import Step
from quire.privacy.secagg.context import GENESIS
from quire.privacy.secagg.errors import PolicyViolation, Replay, SecAggError
from quire.privacy.secagg.masks import Words
from quire.privacy.secagg.messages import Start
from quire.privacy.secagg.state import position
from quire.strategies.chosen import algorithm_of


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

    add(contract.OPEN, lambda stage: stage.answer(stage.protocol.open_session, _tidy))
    add(contract.PAIRS, lambda stage: stage.answer(stage.protocol.agree))
    add(contract.READY, lambda stage: stage.answer(stage.protocol.ready))
    add(contract.SHARES, shares, Code.TRAINING_FAILED)
    add(contract.MASK, mask)
    add(contract.CONFIRM, lambda stage: stage.answer(stage.protocol.confirm))
    add(contract.UNMASK, lambda stage: stage.answer(stage.protocol.unmask, _forget))


def _tidy(desk: Desk, step: Step) -> None:
    """A session begins: what earlier rounds and forgotten runs have left is wiped."""
    if desk.terms.noise is not None:
        desk.memory.forget()  # it was for an attempt of another session
    desk.memory.tidy(step.state.settings.first_round)


def _forget(desk: Desk, _: Step) -> None:
    """A round ends. The vector is wiped before that is written down, and so before any share leaves.

    Whatever moment the silo is killed at, no numbers lie there of a round that was opened. Killed in between, it lacks
    them for another attempt, which then is charged for and draws anew.
    """
    desk.memory.forget()


def shares(stage: Stage) -> Message:
    """X1: begin an attempt. Train, if this round was not trained for yet; the update stays here.

    What it trains from is the model that it works out itself, from one that it knows and the sums since. The context
    holds the transparency log as this silo was shown it, which it countersigns; where there is none, a fixed value.

    The same message again gets the same reply, if what was trained is there: it is never trained a second time for.
    Under distributed noise every attempt trains anew and is charged: one draw of noise is in one sum alone. An attempt
    that was charged is not begun again in another session, which would be another draw of noise for the same charge.
    """
    told, round_number = _model(stage.message)
    silo = stage.silo
    with stage.desk() as desk:
        # Before any sum is followed: how far false ones can walk a model is bounded by the rounds of the run.
        if round_number > (rounds := silo.settings.rounds):
            raise Refusal(Code.ROUNDS_REFUSED, f"round {round_number} is beyond the {rounds} that the settings name")
        try:
            agreement = agreement_of(desk.terms, told)
        except EncodingError as error:
            raise Refusal(Code.SECURE_REFUSED, str(error)) from error
        state = desk.state
        try:
            model, digest, known = _trained_from(stage, desk, agreement, told, round_number)
            attempt = Start.decode(stage.data)
            config = state.settings  # who has lost its session says so, ahead of what it could not make of the log
            checkpoint = take(stage.message, desk.memory, desk.terms.log)
            root = GENESIS if checkpoint is None else bytes.fromhex(checkpoint.hash)
            step = stage.protocol.start(desk.party, state, stage.data, digest, root)
            if config != agreement.config(stage.context.run_id, config.first_round):
                raise PolicyViolation("The session was opened with other numbers than the settings and the model give.")
            if attempt.round != round_number:
                raise Replay(f"The message is about round {attempt.round}, and says that it is round {round_number}.")
            kept = desk.memory.vector()
            if kept is not None and not _serves(kept, agreement, attempt, digest):
                kept = None
            if kept is None and step.again:
                raise Replay(f"Attempt {attempt.attempt} of round {round_number} has begun, and its training is lost.")
        except SecAggError as error:
            return stage.refuse(desk, error)
        if kept is None:
            desk.memory.forget()
            silo = silo.charged(desk.admit(round_number, attempt.attempt))
        if known is not None:
            desk.memory.know(known)
        if not step.again:
            desk.memory.save(step.state)
        log = countersigned(checkpoint, silo.member.name, desk.party.identity)
    shown: dict[str, float] = {}
    if kept is None:
        kept, shown = ready_for(silo, stage.context, agreement, model, digest, attempt)
        with stage.desk() as desk:
            now = desk.state.at
            if now.opened >= round_number or now != step.state.at:
                raise Refusal(Code.REPLAY_REFUSED, f"round {round_number} went on without this training")
            desk.memory.keep(kept)
    return stage.reply(step.reply, kept.receipt, shown, log)


def _trained_from(
    stage: Stage, desk: Desk, agreement: Agreement, told: Arrays, round_number: int
) -> tuple[Arrays, bytes, Known | None]:
    """Return the model of a round, its hash for the context, and what the silo is to know of it from now on.

    Where the chain is active the model is the one that this silo itself comes to, and the hash is that of the whole
    state: all who share a context agree on both. Nothing is charged, trained or masked before that.
    """
    if not desk.terms.chain:
        return told, bytes.fromhex(fingerprint(told)), None
    algorithm = algorithm_of(stage.silo.settings.strategy)
    before = desk.memory.known()
    path = read_path(stage.message, agreement, algorithm, told)
    state, digest = follow(agreement, algorithm, path, before)
    known = Known(round_number, digest, watched(agreement, path, before))
    if known.probes.alarm and not (before is not None and before.probes.alarm):
        LOG.warning(
            "Noise probes: by this silo's own test the sums that it was told of %d rounds have %.3g times the variance "
            "of noise that was promised, too %s by more than chance allows.",
            known.probes.looks,
            known.probes.ratio,
            "little" if known.probes.too_little else "much",
        )
    return state.model, digest, None if known == before else known


def _serves(kept: Vector, agreement: Agreement, attempt: Start, model: bytes) -> bool:
    """Tell whether what was made ready is for this attempt: under distributed noise for no other one of the round.

    The number of the attempt is the server's to choose anew in each session, so it takes both.
    """
    same = (kept.round, kept.model) == (attempt.round, model)
    mine = (kept.session, kept.attempt) == (attempt.session, attempt.attempt)
    return same and (agreement.terms.noise is None or mine)


def mask(stage: Stage) -> Message:
    """X2: mask what was made ready, under distributed noise with this silo's share on top. No data is touched.

    What got a share of noise is wiped before the reply is written down, and so before it leaves: nothing masks it with
    another share. A silo that is killed in between has charged for a vector that it lost, never the other way round.
    """
    silo = stage.silo
    with stage.desk() as desk:
        state = desk.state

        def words() -> Words:
            kept = desk.memory.vector()
            if kept is None or kept.round != state.round:
                raise Refusal(Code.SECURE_REFUSED, f"nothing is ready for round {state.round}")
            plain = np.frombuffer(kept.words, dtype="<u4").astype(np.uint32)
            terms = desk.terms
            if terms.noise is None:
                return plain
            here = position(state.settings, kept.round, kept.attempt)
            if (kept.session, here) != (state.session, state.at.position):
                raise Refusal(Code.SECURE_REFUSED, f"what is ready for round {kept.round} is of another attempt")
            encoding = encoding_of(terms.noise, kept.parameters, terms.bits, terms.rotation)
            # Drawn now, for this attempt alone: the state that goes on from here masks nothing a second time.
            entropy = silo.member.entropy(silo.settings)
            share = Csprng(entropy.key("noise-share", kept.round, kept.attempt, silo.member.name))
            return add_share(encoding, plain, share)

        try:
            step: Step = stage.protocol.mask(desk.party, state, stage.data, words)
        except SecAggError as error:
            return stage.refuse(desk, error)
        if desk.terms.noise is not None:
            desk.memory.forget()
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
