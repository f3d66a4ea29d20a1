"""Holding a run to the transcripts of its secure aggregation: from the stored bytes to the models, all recomputed.

Each attempt is replayed by the code of the server's round (:mod:`quire.privacy.secagg.recording`). What comes of it is
held against the journal (who took part, who is blamed with proof, the sum), against the settings, and against the
models: from the first one, which the seed gives, every model follows from the one before it and the opened sum, for
every strategy that secure aggregation serves, by the code that server and silos step with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quire.clients.arrays import fingerprint
from quire.clients.secure.agreement import agreement_of
from quire.clients.secure.chain import after, digest_of
from quire.clients.secure.terms import terms_of
from quire.conf.schema import SecureAggregation, Settings
from quire.privacy.identity.roster import Roster
from quire.privacy.secagg.context import GENESIS
from quire.privacy.secagg.errors import SecAggError, TooFewClients, TooFewSurvivors
from quire.privacy.secagg.groups import dealt
from quire.privacy.secagg.recording import Replay, TranscriptError, replay
from quire.simulation.audited import Attempt, Audit
from quire.simulation.audited_groups import GroupAudit, Opened
from quire.simulation.verify_secure import check_opened
from quire.strategies.chosen import algorithm_of
from quire.strategies.rounds import RoundState
from quire.strategies.secure_groups import Rule
from quire.strategies.transcripts import TRANSCRIPTS_FOLDER
from quire.transparency.shown import LogName

#: Exchanges of a round in which signed messages can convict their sender, as the journal calls them.
_ROUND = ("shares", "mask", "confirm", "unmask")
_EXCHANGES = {"masked": "mask", "survivors": "confirm", "unmasked": "unmask"}


class Auditor:
    """Goes through a run's rounds in order.

    Parameters
    ----------
    folder : pathlib.Path
        Of the run.
    settings : Settings
        As composed anew.
    roster : Roster
        Whose signatures count.
    span : tuple of int
        When the run began and ended, in seconds since 1970: a key counts that was valid at either.
    first : dict of str to numpy.ndarray, or None
        The model before the first round; None where it is not known, and models are not recomputed.
    log : LogName, optional
        Which log the run's folder has: rounds that the journal calls bound to a log have to be bound to this one.

    Raises
    ------
    EncodingError, PrivacyError
        If such a model, or such settings, cannot be summed.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        roster: Roster,
        span: tuple[int, int],
        first: dict[str, Any] | None,
        log: LogName | None = None,
    ) -> None:
        if not isinstance(settings.aggregation, SecureAggregation):
            raise TypeError("A run without secure aggregation has no transcripts.")
        self._folder, self._settings = folder / TRANSCRIPTS_FOLDER, settings
        self._roster, self._hash = roster, bytes.fromhex(roster.hash)
        self._names = {member.index: member.name for member in roster.members}
        self._keys = {
            member.index: member.identity for member in roster.members if any(member.active(when) for when in span)
        }
        secure, rule = settings.aggregation, Rule.of(settings.aggregation)
        self._circles = dealt(list(self._names), secure.groups or 1)  # all members are one, or each group is
        self._terms = [terms_of(settings, secure, len(self._names), None, one.number) for one in self._circles]
        self._algorithm = algorithm_of(settings.strategy)
        self._state = None if first is None else RoundState(0, first)
        self._agreements = [] if first is None else [agreement_of(terms, first) for terms in self._terms]
        self._required = settings.output.transcripts  # else a run that was gone on with may have begun to keep them
        about = self._agreements, self._algorithm, self._required
        self._grouped = None if rule is None else GroupAudit(rule, *about)
        self._log = log
        self._known: set[str] = set()
        self._there: set[str] = set()  # SHA-256 of every file that was replayed, whether it holds or not
        self.audit = Audit()

    def line(self, line: Mapping[str, Any], before: str) -> None:
        """Audit a round.

        Parameters
        ----------
        line : mapping
            The journal's, of a round, or of one that ended the run.
        before : str
            SHA-256 of the model before it.
        """
        number, opened = line["round"], dict[int, Attempt]()  # by circle
        secure = line.get("secure")
        listed, bound = (secure.get("attempts"), secure.get("checkpoint")) if isinstance(secure, dict) else (None, None)
        if not isinstance(listed, list) or not all(isinstance(log, dict) for log in listed):
            self._wrong(f"Round {number}: the journal does not say how secure aggregation went.")
            listed = []
        for log in listed:
            found = self._attempt(number, log, before, bound)
            if found is None:
                continue
            if found.replay.digest is None and found.replay.error is None and line.get("event") == "round":
                self._wrong(f"{found.name.capitalize()}: it was stopped, and the run went on.")
            if found.replay.total is not None:
                if (found.group or 1) - 1 in opened:
                    of = f", group {found.group}" if found.group else ""
                    self._wrong(f"Round {number}{of}: two of its attempts opened a sum.")
                opened[(found.group or 1) - 1] = found
        if line.get("event") == "round" and self._grouped is not None:
            self._step_of_groups(self._grouped, line, opened)
        elif line.get("event") == "round":
            self._step(line, opened.get(0))

    def others(self, logged: Mapping[str, str]) -> None:
        """Look at what the journal does not name: files of rounds that were run again, and what the log tells of.

        Parameters
        ----------
        logged : mapping of str to str
            For the SHA-256 of each transcript in the log, which one that is, in words.
        """
        left = {}
        for path in sorted(self._folder.glob("*.bin")) if self._folder.is_dir() else ():
            if path.name in self._known:
                continue
            if (digest := self._sha256(path, "A file that the journal does not name")) is not None:
                left[digest] = path
        for digest, words in logged.items():
            if digest in self._there:
                continue
            if digest not in left:
                self._wrong(f"The log names a transcript of {words} that is not in {TRANSCRIPTS_FOLDER}/.")
                continue
            self._replay(left[digest].name, f"{left[digest].name}, of a round that was run again")
        if left:
            self.audit.notes.append(
                f"{len(left)} transcripts are named by no line of the journal: of rounds that were run again."
            )

    # ------------------------------------------------------------------------------------ one attempt
    def _attempt(self, number: int, log: Mapping[str, Any], before: str, bound: object) -> Attempt | None:
        """Replay an attempt and hold the journal to it; None if there is nothing that holds."""
        where, kept, group = f"Round {number}, attempt {log.get('attempt')}", log.get("transcript"), log.get("group")
        if self._grouped is not None:
            if type(group) is not int or not 1 <= group <= len(self._circles):
                self._wrong(f"{where}: the journal does not say of which group it is.")
                return None
            where += f" of group {group}"
        elif group is not None:
            self._wrong(f"{where}: the journal says that it is of a group, and the settings ask for none.")
            return None
        if kept is None:
            if log.get("cohort") and self._required:  # without a cohort it came to no round, only to keys
                self._wrong(f"{where}: the settings ask for transcripts, and the journal names none.")
            return None
        name = kept.get("file") if isinstance(kept, dict) else None
        if not isinstance(name, str) or Path(name).name != name:
            self._wrong(f"{where}: the journal does not name its transcript.")
            return None
        self._known.add(name)
        if not (self._folder / name).is_file():
            self._wrong(f"{where}: the transcript {name} that the journal names is not there.")
            return None
        found = self._replay(name, where)
        if found is None:
            return None
        contradictions = self._against_journal(number, log, kept, found)
        contradictions += self._against_run(found, before, bound, (group or 1) - 1)
        for words in contradictions:
            self._wrong(f"{where}: {words}.")
        if contradictions:
            return None
        attempt = Attempt(number, log["attempt"], name, found, group)
        self.audit.attempts.append(attempt)
        return attempt

    def _replay(self, name: str, where: str) -> Replay | None:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                found = replay(file, self._keys, self._hash)
        except TranscriptError as error:
            self._wrong(f"{where}: {str(error)[0].lower()}{str(error)[1:]}")
            self._there.add(self._sha256(path, where) or "")
        except OSError as error:
            self._wrong(f"{where}: {name} cannot be read: {error.strerror}.")
        else:
            self._there.add(found.sha256)
            return found
        return None

    def _sha256(self, path: Path, where: str) -> str | None:
        """Hash a file; None if it cannot be read, which is then wrong."""
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            self._wrong(f"{where}: {path.name} cannot be read: {error.strerror}.")
            return None

    def _against_journal(
        self, number: int, log: Mapping[str, Any], kept: Mapping[str, Any], found: Replay
    ) -> list[str]:
        """Say where the journal tells of something else than the transcript comes to."""
        head, wrong = found.head, []
        if kept.get("sha256") != found.sha256:
            wrong.append("the transcript is not the one whose hash the journal has")
        if (head.round, head.attempt) != (number, log.get("attempt")):
            wrong.append(f"the transcript is that of round {head.round}, attempt {head.attempt}")
        u2 = () if found.error == TooFewClients.__name__ else found.u2  # the journal has those that sufficed
        u3 = () if found.error == TooFewSurvivors.__name__ else found.u3
        for key, members in (("cohort", head.cohort), ("u2", u2), ("u3", u3)):
            if log.get(key) != [self._names[index] for index in members]:
                wrong.append(f"the journal has another '{key}' than the transcript")
        if log.get("error") != found.error:
            wrong.append("the journal tells of another end of the attempt than the transcript")
        if kept.get("sum") != found.digest:
            wrong.append("the journal has the hash of another sum than the transcript comes to")
        if _proven(log) != {
            (self._names.get(note.member), _EXCHANGES.get(note.stage, note.stage), note.code)
            for note in found.blame
            if note.proven
        }:
            wrong.append("the journal blames other members than the stored messages do")
        return wrong

    def _against_run(self, found: Replay, before: str, bound: object, circle: int) -> list[str]:
        """Say where the transcript is of another run, of another log, or began from another model.

        The checkpoint is the one that the journal has for the round; the log has it as well, which is checked with it.
        A run may get a log when it is gone on with: the rounds before are bound to none.
        """
        config, wrong = found.config, []
        terms = replace(self._terms[circle], log=self._log if bound is not None else None)
        if not set(found.members) <= set(self._circles[circle].members):
            wrong.append("silos of other groups had keys in it")
        if bound is not None and self._log is None:
            wrong.append("the journal has a checkpoint for the round, and there is no log that can be read")
        if found.head.log_root.hex() != (GENESIS.hex() if bound is None else bound):
            wrong.append("it is bound to another checkpoint of the log than the journal has, or to none")
        if self._agreements:
            expected = replace(self._agreements[circle].config(0, 0), run=config.run, first_round=config.first_round)
            expected = replace(expected, application=terms.application)
            if config != expected:
                wrong.append("its session was agreed on other settings than the run's")
        elif config.application != terms.application:
            wrong.append("its session was agreed on other settings than the run's")
        if not terms.chain and found.head.model.hex() != before:
            wrong.append("it began from another model than that of the round before")
        if terms.chain and self._state is not None and found.head.model != digest_of(self._state):
            wrong.append("it began from another state than the one that the rounds before come to")
        return wrong

    # ---------------------------------------------------------------------------------------- models
    def _step(self, line: Mapping[str, Any], opened: Attempt | None) -> None:
        """Work out the model after a round."""
        state = self._state
        if state is None:
            return
        agreement = self._agreements[0]
        if "lost" in line:
            total, silos = (None, 0) if opened is None else (opened.replay.total, len(opened.replay.u3))
            self.audit.wrong += check_opened(line, agreement, total, silos, self._required)
            self._state = RoundState(line["round"], state.model, state.memory)
        elif opened is None or opened.replay.total is None:
            self._state = None  # from here on nothing follows from anything
            words = f"Round {line['round']}: no sum is opened again, and no model recomputed from here on."
            (self.audit.wrong if self._required else self.audit.notes).append(words)
            return
        else:
            try:
                self._state = after(agreement, self._algorithm, state, opened.replay.total, len(opened.replay.u3))
            except SecAggError as error:
                self._state = None
                self._wrong(str(error))
                return
            opened.models = True
        self._same_model(self._state, line)

    def _step_of_groups(self, groups: GroupAudit, line: Mapping[str, Any], opened: Mapping[int, Attempt]) -> None:
        """Work out the model after a round whose silos were summed in groups."""
        if self._state is None:
            return
        if not opened and not self._required and "lost" not in line:
            self._state = None  # the run had not begun to keep them
            self.audit.notes.append(f"Round {line['round']}: no sum is opened again, and no model from here on.")
            return
        sums = {
            group: Opened(tuple(self._names[index] for index in one.replay.u3), one.replay.total)
            for group, one in opened.items()
            if one.replay.total is not None
        }
        self._state, wrong = groups.step(line, self._state, sums)
        self.audit.wrong += wrong
        if self._state is not None:
            for one in opened.values():
                one.models = "lost" not in line
            self._same_model(self._state, line)

    def _same_model(self, state: RoundState, line: Mapping[str, Any]) -> None:
        if fingerprint(state.model) != line["model"]:
            self._state = None
            self._wrong(
                f"Round {line['round']}: its sum leads to another model than the journal has (on the kind of processor "
                "that the run had; on another the last bits of a model may differ)."
            )

    def _wrong(self, words: str) -> None:
        self.audit.wrong.append(words)


def _proven(log: Mapping[str, Any]) -> set[tuple[Any, Any, Any]]:
    notes = log.get("blame")
    return {
        (note.get("silo"), note.get("stage"), note.get("error"))
        for note in (notes if isinstance(notes, list) else ())
        if isinstance(note, dict) and note.get("proven") is True and note.get("stage") in _ROUND
    }
