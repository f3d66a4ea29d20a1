"""What a silo accepts of a session, whatever the server says: limits of its own, checked before it answers."""

from __future__ import annotations

from dataclasses import dataclass

from quire.privacy.secagg.errors import CohortTooSmall, PolicyViolation
from quire.privacy.secagg.messages import Config
from quire.privacy.secagg.params import BITS, MAX_LENGTH, Thresholds, thresholds


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A silo's limits. A server may ask for something stricter, never for something weaker.

    What protects the silo has no default: whoever builds a policy has to say it.

    Attributes
    ----------
    members : int
        How many members the pinned roster lists, or the silo's group of it, whether their keys count at the moment or
        not: a number that no server has a say in, and the same for every silo there. The thresholds are counted from
        it.
    min_cohort : int
        The smallest cohort to take part in.
    colluders : int
        The number of members that the silo wants to be protected against, beside the server.
    application : bytes
        What the configuration has to say for the layers above, byte by byte, computed by the silo from the settings
        that it accepted.
    min_survivors : int
        The fewest survivors whose sum may be opened, beyond what the protocol itself asks for.
    max_rounds : int
        The most rounds of one session, after which its keys are made anew.
    max_attempts : int
        The most attempts of one round.
    """

    members: int
    min_cohort: int
    colluders: int
    application: bytes
    min_survivors: int = 0
    max_rounds: int = 50
    max_attempts: int = 8

    def check(self, config: Config) -> None:
        """Accept a session's configuration.

        Raises
        ------
        PolicyViolation
            Naming the first item that is outside of the limits.
        """
        wrong = None
        if config.members != self.members:
            wrong = f"thresholds for a roster of {config.members} members, where the pinned one has {self.members}"
        elif config.colluders < self.colluders:
            wrong = f"protection against {config.colluders} colluders, less than {self.colluders}"
        elif config.bits not in BITS:
            wrong = f"{config.bits} bits a coordinate"
        elif not 1 <= config.length <= MAX_LENGTH:
            wrong = f"a vector of {config.length} coordinates"
        elif not 1 <= config.rounds <= self.max_rounds:
            wrong = f"keys that serve {config.rounds} rounds"
        elif not 1 <= config.attempts <= self.max_attempts:
            wrong = f"{config.attempts} attempts of a round"
        elif config.application != self.application:
            wrong = "another encoding or privacy than the silo accepted"
        if wrong:
            raise PolicyViolation(f"The server asks for {wrong}; the silo's policy does not allow it.")

    def thresholds(self, config: Config, cohort: int) -> Thresholds:
        """Return the thresholds that bind a session or cohort, the stricter of configuration's and policy's.

        Every stage after the first asks for them, so that a session stops once its configuration is no longer within
        the policy, as after the operator has changed it.

        Parameters
        ----------
        config : Config
            Of the session.
        cohort : int
            How many members the session or cohort has.

        Raises
        ------
        PolicyViolation
            If the configuration is outside of the limits.
        CohortTooSmall
            If the cohort is smaller than the policy allows, or cannot keep the thresholds.
        """
        self.check(config)
        if cohort < self.min_cohort:
            raise CohortTooSmall(f"A cohort of {cohort} is smaller than the policy's {self.min_cohort}.")
        limits = thresholds(self.members, config.colluders, max(config.min_survivors, self.min_survivors))
        limits.admit(cohort)
        return limits
