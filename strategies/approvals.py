"""Runs that silos' operators have to approve: what they decided, as their silos state it, and waiting for it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from quire.clients.contract import Code
from quire.conf.schema import Settings
from quire.privacy.approval import ApprovalStatementError, Statement
from quire.privacy.identity.roster import Roster
from quire.privacy.receipts import settings_hash
from quire.strategies.checkpoint import replace
from quire.strategies.exchange import Deadline, Deadlines
from quire.strategies.reading import Failure, Unusable

LOG = logging.getLogger("quire.strategies")

#: The deadline, in ``strategy.deadlines``, of those who decide; without it nobody is waited for.
DEADLINE = "approval"
#: In the run folder: the signed statements, one a line, in the order of their silos' names; those of a run that goes on
#: there, which has another number and needs approvals of its own, after those of the runs before it.
APPROVALS_FILE = "approvals.jsonl"

AWAITING = Code.AWAITING_APPROVAL.name.lower()

_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
# Of a silo's own answers those that say nothing about this run: they pass, as do Flower's own errors.
_PASSING = {Code.DATA_UNAVAILABLE, Code.BOOKS_UNUSABLE, Code.INTERNAL, Code.AWAITING_APPROVAL}
# After these nobody is waited for any more.
_REFUSALS = {code.name.lower() for code in Code if code not in _PASSING} | {
    *("other_contract", "other_code", "other_schema", "no_member", "another_member", "name_taken", "no_records"),
    *("bad_approval", "bundle_refused"),
}

#: By node: the name of an enrolled silo, or why it could not be enrolled.
Found = dict[int, str | Failure]


@dataclass
class Approvals:
    """The decisions about one run.

    Attributes
    ----------
    run : str
        Flower's number of the run.
    code, settings : str
        Hashes of what this server runs.
    seconds : float
        How long silos are waited for whose operators have not decided; 0: not at all.
    roster : Roster or None
        With the keys that sign; None: signatures cannot be checked.
    statements : dict of str to Statement
        By silo, what was taken.
    """

    run: str
    code: str
    settings: str
    seconds: float = 0.0
    roster: Roster | None = None
    statements: dict[str, Statement] = field(default_factory=dict)

    @classmethod
    def of(cls, run: str, code: str, settings: Settings, roster: Roster | None) -> Approvals:
        """Make it for a run under some settings."""
        seconds = Deadlines.of(settings.strategy).stages.get(DEADLINE, 0.0)
        return cls(run, code, settings_hash(settings.as_dict()), seconds, roster)

    def take(self, silo: str, data: object, decision: str) -> Statement:
        """Take a silo's statement of a decision.

        Raises
        ------
        Unusable
            If it is none, is about another run, or is not signed by the silo.
        """
        try:
            if not isinstance(data, bytes):
                raise ApprovalStatementError("it is not one")
            statement = Statement.decode(data)
            told, binding = statement.body, statement.binding
            if (told["silo"], told["decision"]) != (silo, decision):
                raise ApprovalStatementError("it is another silo's, or another decision")
            if (binding.run, binding.code, binding.settings) != (self.run, self.code, self.settings):
                raise ApprovalStatementError("it is about another run")
            if self.roster is not None:
                if binding.roster not in (None, self.roster.hash):  # None: that silo has pinned none
                    raise ApprovalStatementError("it is about a run under another roster")
                member = next((one for one in self.roster.members if one.name == silo), None)
                if member is None:
                    raise ApprovalStatementError("the roster has no such member")
                statement.check(member.identity)
        except ApprovalStatementError as error:
            raise Unusable("bad_approval", f"its statement of a decision cannot be taken: {error}") from None
        self.statements[silo] = statement
        return statement

    def wait(self, found: Found, ask: Callable[[list[int], Collection[str]], Found], minimum: int) -> None:
        """Ask again those whose operators have not decided, until all have, or it is in vain, or too late.

        Parameters
        ----------
        found : dict of int to str or Failure
            What the nodes have answered; brought up to date.
        ask : callable
            Asks some nodes again, given the names that are taken.
        minimum : int
            Fewest silos that must be enrolled.
        """
        deadline, pause, told = Deadline(self.seconds), _SHORTEST_PAUSE, ""
        while (waiting := _awaiting(found)) and not deadline.over:
            enrolled = [name for name in found.values() if isinstance(name, str)]
            if len(enrolled) + len(waiting) < minimum:
                LOG.warning("%d silos can still take part, and %d have to.", len(enrolled) + len(waiting), minimum)
                return
            if (names := ", ".join(sorted(waiting.values()))) != told:
                LOG.warning(
                    "Waiting up to %g seconds for the approval of %s: `quire approve %s` at the silo.",
                    self.seconds,
                    names,
                    self.run,
                )
                told = names
            time.sleep(min(pause, self.seconds))
            pause = min(2 * pause, _LONGEST_PAUSE)
            for node, answer in ask(list(waiting), enrolled).items():
                if isinstance(answer, str) or answer.code in _REFUSALS:
                    found[node] = answer

    def advice(self, failed: Iterable[Failure]) -> str:
        """Say what helps, if somebody's approval is missing: a sentence, with a space before it."""
        if not any(failure.code == AWAITING for failure in failed):
            return ""
        waits = "" if self.seconds else f"; strategy.deadlines=[{DEADLINE}:SECONDS] lets a run wait for it"
        return f" A run is approved at each silo (`quire approve {self.run}`{waits})."

    def encode(self) -> bytes:
        """Return the statements as the run folder keeps them."""
        return b"".join(self.statements[silo].encode() + b"\n" for silo in sorted(self.statements))

    def keep(self, folder: Path) -> None:
        """Put the statements into a run folder, behind those that are there: they cover the rounds before."""
        path = folder / APPROVALS_FILE
        kept = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        new = [line for line in self.encode().splitlines(keepends=True) if line not in kept]
        if new:
            replace(path, b"".join([*kept, *new]))


def _awaiting(found: Found) -> dict[int, str]:
    return {
        node: answer.silo for node, answer in found.items() if isinstance(answer, Failure) and answer.code == AWAITING
    }
