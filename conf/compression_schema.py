"""The settings of compression: how a silo's update is made smaller before it is sent."""

# No `from __future__ import annotations` here: the types are read at run time, and must not need an eval.
from dataclasses import dataclass

from quire.conf.setting import setting


@dataclass(frozen=True)
class NoCompression:
    """Updates are sent as they are, four bytes for each parameter."""

    name: str


@dataclass(frozen=True)
class EightBitCompression:
    """One byte for each parameter; what rounding takes off is added to the next update (Seide et al. 2014)."""

    name: str


@dataclass(frozen=True)
class TopKCompression:
    """The largest coordinates alone, one byte each and where they are; the rest waits (Stich et al. 2018)."""

    name: str
    kept: float = setting("share of the coordinates that are sent in a round", gt=0.0, le=1.0)
