"""How a setting is declared: a dataclass field with one line of help and its limits."""

import dataclasses
from typing import Any


def setting(help_text: str, **limits: Any) -> Any:
    """Declare a field with its one-line help and its limits.

    Limits are ``ge``, ``gt``, ``le``, ``lt`` and ``choices``, for a list of each of its entries; ``max_items``
    of a list; ``word=True`` for a text that names something and may become part of a name; ``digest=True``
    for a SHA-256 in hex; ``inf=True`` for a number that may be infinite.
    """
    return dataclasses.field(metadata={"help": help_text, **limits})
