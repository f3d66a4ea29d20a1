"""The transparency log at the server, as silos are shown it in every round, and what they sign of it.

What a silo is shown goes on from the checkpoint that it countersigned last, or from one after it: its reply may have
been lost on the way. All of that stands in the log itself, so that a server that goes on with a run knows it. A silo
that has got an old copy of its store back says how far it has seen the log, and is shown a path from there next time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from flwr.app import ConfigRecord, RecordDict

from quire.clients import contract
from quire.errors import RunFailed
from quire.privacy.identity.roster import Roster
from quire.privacy.secagg.context import GENESIS
from quire.strategies.reading import Unusable, of_kind
from quire.transparency.checkpoints import Checkpoint, Mark, Note
from quire.transparency.errors import CheckpointError, LogError
from quire.transparency.log import Log
from quire.transparency.shown import MOST_PATHS, LogName

LOG = logging.getLogger("quire.strategies")


class Bound:
    """What binds the rounds of a run to its log.

    Parameters
    ----------
    log : Log or None
        None where the server keeps none: then nothing is shown, and the context of a round has a fixed value.
    members : Roster
        Who has which key.
    """

    def __init__(self, log: Log | None, members: Roster) -> None:
        self._log, self._members = log, members
        self._marks: dict[str, Mark] = {}
        self._claims: dict[str, int] = {}  # how far silos say that they have seen the log
        self._paths: dict[tuple[int, int], bytes] = {}
        # For each silo the number of the checkpoint that it countersigned last.
        self._at = {mark.name: at for at, note in enumerate(log.notes if log else ()) for mark in note.marks}

    @property
    def name(self) -> LogName | None:
        """Which log it is, as the configuration of a session names it."""
        return None if self._log is None else LogName(self._log.origin, self._log.key.fingerprint)

    @property
    def root(self) -> bytes:
        """The 32 bytes of a round's context that stand for the log: the hash of its newest checkpoint."""
        return GENESIS if self._log is None else bytes.fromhex(self._checkpoint(self._log).hash)

    def about(self) -> dict[str, str]:
        """Return what the journal says of it."""
        return {} if self._log is None else {"checkpoint": self._checkpoint(self._log).hash}

    def beside(self, contents: Mapping[int, RecordDict], names: Mapping[int, str]) -> Mapping[int, RecordDict]:
        """Put the newest checkpoint into the messages that begin an attempt, for each silo from where it stands.

        Parameters
        ----------
        contents : mapping of int to flwr.app.RecordDict
            By roster index; silos may share one.
        names : mapping of int to str
            By roster index.
        """
        log = self._log
        if log is None:
            return contents
        for index in contents:  # those of others stand: their attempt may be under way
            self._marks.pop(names[index], None)
        told: dict[tuple[int, tuple[int, ...]], RecordDict] = {}
        found = {}
        for index, content in contents.items():
            sizes = self._sizes(log, names[index])
            key = id(content), sizes
            if key not in told:
                told[key] = RecordDict({**content, contract.LOG: self._record(log, sizes)})
            found[index] = told[key]
        return found

    def accept(self, silo: str, content: RecordDict) -> None:
        """Take a silo's countersignature, which comes beside its answer.

        Raises
        ------
        Unusable
            If there is none, or it does not hold.
        """
        if self._log is None:
            return
        mark = Mark(silo, _signature(content))
        try:
            self._log.check_countersignature(mark, self._members)
        except CheckpointError as error:
            LOG.warning("%s", error)
            raise Unusable(
                "bad_countersignature", "its signature on the checkpoint of the transparency log does not hold"
            ) from None
        self._marks[silo] = mark

    def refused(self, silo: str, content: RecordDict) -> None:
        """Learn from a refusal how far the silo has seen the log, if it says so."""
        size = of_kind(content, ConfigRecord).get(contract.LOG, ConfigRecord()).get(contract.SEEN)
        if self._log is None or type(size) is not int:
            return
        self._claims[silo] = size
        if self._log.at(size) is None:
            LOG.warning(
                "%s has seen a checkpoint of this log at %d entries, and there is none: if the log is an old copy, put "
                "the newest one back; else this silo was shown another log.",
                silo,
                size,
            )

    def keep(self) -> None:
        """Write the countersignatures of an attempt into the log, all at once.

        Raises
        ------
        RunFailed
            If they cannot be written. Silos have charged for the round by then, so it is to be journalled as failed.
        """
        if self._log is None or not self._marks:
            return
        known = {mark.name for mark in self._log.notes[-1].marks}
        if new := [mark for name, mark in sorted(self._marks.items()) if name not in known]:
            try:
                self._log.add_countersignatures(new, self._members)
            except LogError as error:
                raise RunFailed(
                    f"The countersignatures of silos cannot be written into the log: {str(error).rstrip('.')}."
                ) from error
        self._at.update(dict.fromkeys(self._marks, len(self._log.notes) - 1))
        self._claims = {silo: size for silo, size in self._claims.items() if silo not in self._marks}

    def _checkpoint(self, log: Log) -> Checkpoint:
        return log.notes[-1].checkpoint

    def _sizes(self, log: Log, silo: str) -> tuple[int, ...]:
        """Return the sizes that a silo may know the log at, the newest left out: for that it needs no path."""
        newest, first = len(log.notes) - 1, self._at.get(silo, 0)
        likely = {first, *range(max(first, newest + 1 - MOST_PATHS), newest)} if first < newest else set()
        claimed = log.at(self._claims.get(silo, -1))
        if claimed is not None and claimed != newest:
            likely.add(claimed)
        return tuple(log.notes[at].checkpoint.size for at in sorted(likely))

    def _record(self, log: Log, sizes: tuple[int, ...]) -> ConfigRecord:
        note = log.notes[-1]
        own = Note(note.checkpoint, tuple(mark for mark in note.marks if mark.name == log.origin))
        record = ConfigRecord({contract.CHECKPOINT: own.encode(), contract.LOG_KEY: log.key.encode()})
        if sizes:
            record[contract.SIZES] = list(sizes)
            record[contract.PATHS] = [self._path(log, size, note.checkpoint.size) for size in sizes]
        return record

    def _path(self, log: Log, old: int, new: int) -> bytes:
        if (old, new) not in self._paths:
            self._paths = {key: path for key, path in self._paths.items() if key[1] == new}
            self._paths[old, new] = b"".join(log.consistency(old, new))
        return self._paths[old, new]


def _signature(content: RecordDict) -> bytes:
    blob = of_kind(content, ConfigRecord).get(contract.LOG, ConfigRecord()).get(contract.COUNTERSIGNATURE)
    if not isinstance(blob, bytes):
        raise Unusable("no_countersignature", "it has not signed the checkpoint of the transparency log")
    return blob
