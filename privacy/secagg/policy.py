"""What a silo accepts of a session, whatever the server says: limits of its own, checked before it answers."""

from __future__ import annotations

from dataclasses import dataclass

from quire.privacy.secagg.errors import CohortTooSmall, PolicyViolation
from quire.privacy.secagg.messages import Config
from quire.privacy.secagg.params import BITS, MAX_LENGTH, Thresholds, thresholds


@dataclass(frozen=True)
class Policy:
    """A silo's limits. A server may ask for something stricter, never for something weaker.

    Attributes
    ----------
    min_cohort : int
        The smallest cohort to take part in.
    colluders : int
        The number of members that the silo wants to be protected against, beside the server.
    min_survivors : int
        The fewest survivors whose sum may be opened.
    max_rounds : int
        The most rounds of one session, after which its keys are made anew.
    max_attempts : int
        The most attempts of one round.
    application : bytes or None
        What the configuration has to say for the layers above, byte by byte, computed by the silo from the settings
        that it accepted; None leaves it unchecked.
    """

    min_cohort: int = 2
    colluders: int = 0
    min_survivors: int = 0
    max_rounds: int = 50
    max_attempts: int = 8
    application: bytes | None = None

    def check(self, config: Config) -> None:
        """Accept a session's configuration.

        Raises
        ------
        PolicyViolation
            Naming the first item that is outside of the limits.
        """
        wrong = None
        if config.colluders < self.colluders:
            wrong = f"protection against {config.colluders} colluders, less than {self.colluders}"
        elif config.bits not in BITS:
            wrong = f"{config.bits} bits a coordinate"
        elif not 1 <= config.length <= MAX_LENGTH:
            wrong = f"a vector of {config.length} coordinates"
        elif not 1 <= config.rounds <= self.max_rounds:
            wrong = f"keys that serve {config.rounds} rounds"
        elif not 1 <= config.attempts <= self.max_attempts:
            wrong = f"{config.attempts} attempts of a round"
        elif self.application is not None and config.application != self.application:
            wrong = "another encoding or privacy than the silo accepted"
        if wrong:
            raise PolicyViolation(f"The server asks for {wrong}; the silo's policy does not allow it.")

    def thresholds(self, config: Config, cohort: int) -> Thresholds:
        """Return the thresholds of a cohort, the stricter of the configuration's and the policy's.

        Raises
        ------
        CohortTooSmall
            If the cohort is smaller than the policy allows, or cannot keep the thresholds.
        """
        if cohort < self.min_cohort:
            raise CohortTooSmall(f"A cohort of {cohort} is smaller than the policy's {self.min_cohort}.")
        return thresholds(cohort, config.colluders, max(config.min_survivors, self.min_survivors))
