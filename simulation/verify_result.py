"""What came out of verifying a run: every discrepancy, every note, and which of the checks each is of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from quire.strategies.material import CardError


class Stopped(Exception):
    """Nothing after this can be checked; why has been noted."""


@dataclass
class Verification:
    """What came out.

    Attributes
    ----------
    wrong : list of str
        Every discrepancy, in one sentence each; the run verifies if there is none.
    notes : list of str
        What holds, and what a reader still has to compare.
    parts : dict of str to (list of str, list of str)
        Both, by what was looked at; what was not reached, or does not concern the run, is not in it.
    """

    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Note under a name what is found meanwhile."""
        wrong, notes = len(self.wrong), len(self.notes)
        try:
            yield
        except (CardError, OSError) as error:
            self.wrong.append(str(error))
            raise Stopped from error
        finally:
            found = self.parts.setdefault(name, ([], []))
            found[0].extend(self.wrong[wrong:])
            found[1].extend(self.notes[notes:])

    def take(self, wrong: Iterable[str], notes: Iterable[str]) -> None:
        """Add what was found."""
        self.wrong += wrong
        self.notes += notes
