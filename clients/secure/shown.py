"""The transparency log as a silo is shown it before a round: taken if it goes on from what was seen, then signed.

Which log a session is bound to stands in the configuration that all its members sign. Its newest checkpoint comes with
the first message of a round, and the hash of that goes into the round's context: silos that were shown different logs
have different masks, and no sum of theirs opens.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, Message

from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.member import Member
from quire.clients.policy.books import now
from quire.clients.policy.model import OPTIONAL, REQUIRED
from quire.clients.secure.memory import Memory
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.secagg.errors import LogMismatch, SecAggError
from quire.privacy.secagg.messages import Config, Open
from quire.privacy.secagg.state import ClientState
from quire.transparency.checkpoints import Checkpoint, countersign
from quire.transparency.errors import CheckpointError, ProofError, SplitView
from quire.transparency.shown import LogName, Shown


def log_of(stage: str, data: bytes, state: ClientState) -> LogName | None:
    """Return which log the session at hand is bound to, as the server says: hold it against the silo's own terms.

    Parameters
    ----------
    stage : str
        What the handler does.
    data : bytes
        The message of the protocol, unchecked.
    state : ClientState
        What the silo remembers: the session's configuration, once it has begun.
    """
    try:
        config = Config.decode(Open.decode(data).config if stage == contract.OPEN else state.config)
    except SecAggError:  # no session, or no message: whoever answers it says so
        return None
    return LogName.agreed(config.application)


def check_pinned(member: Member, log: LogName | None) -> None:
    """Hold the log of a session against what the operator asks for; a simulated silo asks for none.

    Raises
    ------
    Refusal
        With ``LOG_REFUSED``.
    """
    policy = member.policy
    if member.simulated or policy is None or policy.log == OPTIONAL:
        return
    if log is None:
        raise Refusal(
            Code.LOG_REFUSED,
            f"{policy.place('log')} asks for a transparency log, and this run has none: have the server's operator "
            "name a key for it (QUIRE_LOG_KEY)",
        )
    if policy.log not in (REQUIRED, log.key):
        raise Refusal(
            Code.LOG_REFUSED,
            f"{policy.place('log')} is the key {policy.log[:16]}, and the log of this run is signed with "
            f"{log.key[:16]}: ask the server's operator, and pin that key only if it is theirs",
        )


def take(message: Message, memory: Memory, log: LogName | None) -> Checkpoint | None:
    """Take the checkpoint that comes with a message, and remember it; nothing is trained before that.

    Parameters
    ----------
    message : flwr.app.Message
    memory : Memory
    log : LogName or None
        What the session is bound to.

    Returns
    -------
    Checkpoint or None
        What the round is bound to; None in a session without a log.

    Raises
    ------
    Refusal
        With ``BAD_REQUEST``, if what comes along cannot be read, or comes where there is no log.
    LogMismatch
        If it is missing, not of the session's log, not signed by it, or does not go on from what was seen.
    """
    record = message.content.get(contract.LOG)
    if log is None:
        if record is not None:
            raise Refusal(Code.BAD_REQUEST, "a transparency log is shown, and the session is bound to none")
        return None
    if record is None:
        raise LogMismatch(f"The session is bound to the log '{log.origin}', and no checkpoint of it was shown.")
    shown = _read(record)
    if shown.name != log:
        raise LogMismatch(
            f"The session is bound to the log '{log.origin}' with the key {log.key[:16]}, and was shown "
            f"'{shown.name.origin}' with the key {shown.name.key[:16]}."
        )
    try:
        memory.see(shown.note, shown.key, shown.paths)
    except (CheckpointError, SplitView) as error:
        raise LogMismatch(str(error)) from error
    return shown.note.checkpoint


def countersigned(checkpoint: Checkpoint | None, name: str, identity: PrivateIdentity) -> ConfigRecord | None:
    """Return what a silo replies of a checkpoint that it has taken: its signature, with its own clock's time."""
    if checkpoint is None:
        return None
    return ConfigRecord({contract.COUNTERSIGNATURE: countersign(checkpoint, name, identity, now()).blob})


def standing(memory: Memory, log: LogName | None) -> ConfigRecord | None:
    """Return what a silo says beside a refusal, so that the server can show how the log goes on from there."""
    size = None if log is None else memory.seen(log.origin)
    return None if size is None else ConfigRecord({contract.SEEN: size})


def _read(record: object) -> Shown:
    if not isinstance(record, ConfigRecord):
        raise Refusal(Code.BAD_REQUEST, "the log is not shown in a record of settings")
    note, key = record.get(contract.CHECKPOINT), record.get(contract.LOG_KEY)
    sizes, paths = record.get(contract.SIZES, []), record.get(contract.PATHS, [])
    if (
        not isinstance(note, bytes)
        or not isinstance(key, bytes)
        or not (isinstance(sizes, list) and all(type(size) is int for size in sizes))
        or not (isinstance(paths, list) and all(isinstance(path, bytes) for path in paths))
    ):
        raise Refusal(Code.BAD_REQUEST, "the log is not shown as servers show it")
    try:
        return Shown.read(note, key, sizes, paths)  # type: ignore[arg-type]
    except (CheckpointError, ProofError) as error:
        raise Refusal(Code.BAD_REQUEST, str(error).rstrip(".")) from error
