"""What can be wrong with an enclave: its settings, its manifest, its signature, its quotes."""

from __future__ import annotations

from quire.errors import QuireError


class EnclaveError(QuireError):
    """Settings, files or programs of an enclave cannot be used."""

    exit_code = 2


class QuoteRefused(QuireError):
    """A quote does not prove what it should.

    Attributes
    ----------
    reason : str
        One of the fixed words of :mod:`quire.enclave.policy`, for programs.
    """

    exit_code = 1

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
