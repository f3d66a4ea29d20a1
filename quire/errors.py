"""What can go wrong, in sentences that a person can act on.

Every error that Quire raises on purpose is a :class:`QuireError`: its text is one clear sentence (what, where,
what to do) and its ``exit_code`` is what the command line ends with. Anything else that escapes is a bug.
"""

from __future__ import annotations


class QuireError(Exception):
    """Base of all errors that are addressed to a person.

    Attributes
    ----------
    exit_code : int
        The process exit status that the command line ends with.
    """

    exit_code = 1


class SettingsError(QuireError):
    """The settings ask for something that does not exist or cannot be."""

    exit_code = 2


class DataError(QuireError):
    """The data that a silo or the simulator was pointed at cannot be used."""

    exit_code = 2


class RunFailed(QuireError):
    """A run had to stop; what it had reached is kept in its folder."""

    exit_code = 1


class Interrupted(QuireError):
    """The operator stopped the run (Ctrl-C)."""

    exit_code = 130
