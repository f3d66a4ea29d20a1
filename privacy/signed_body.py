"""JSON that one party signs, as it travels: ``{"body": ..., "signature": hex, "signer": fingerprint}``.

In one spelling: keys in ascending order, no white space, floats by their shortest exact form, ASCII. What is signed is
the body in that spelling, under a tag of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.keys import PublicIdentity, verify


def canonical(value: Any) -> bytes:
    """Write a JSON value in its one spelling.

    Raises
    ------
    ValueError
        For NaN or infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode("ascii")


@dataclass(frozen=True)
class SignedBody:
    """A body with the signature that came with it. Having one says nothing yet; :meth:`check` does.

    Attributes
    ----------
    body : mapping
    signature : bytes
    signer : str
        Fingerprint of who is said to have signed.
    """

    #: Under which tag it is signed, and what is raised where it is not signed as it has to be.
    TAG: ClassVar[str]
    ERROR: ClassVar[type[PrivacyError]]

    body: Mapping[str, Any]
    signature: bytes
    signer: str

    def encode(self) -> bytes:
        """Return the bytes that travel."""
        return canonical({"body": self.body, "signature": self.signature.hex(), "signer": self.signer})

    def check(self, public: PublicIdentity) -> None:
        """Check who signed; return nothing if it is as it should be.

        Raises
        ------
        PrivacyError
            Of the kind that belongs to what is signed.
        """
        if self.signer != public.fingerprint:
            raise self.ERROR(f"it is signed by {self.signer[:16]}, and the roster has {public.fingerprint[:16]}")
        try:
            verify(public, self.TAG, (canonical(self.body),), self.signature)
        except IdentityError:
            raise self.ERROR("its signature does not verify: it was changed after it was signed") from None
