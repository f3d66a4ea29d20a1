"""What can be set of training inside a silo: one frozen dataclass for each option of the group ``training``."""

# No `from __future__ import annotations` here: the types are read at run time, and must not need an eval.
from dataclasses import dataclass

from quire.conf.setting import setting


@dataclass(frozen=True)
class SgdTraining:
    """Mini-batch stochastic gradient descent inside a silo."""

    name: str
    epochs: int = setting("passes over the silo's training rows in one round", ge=1, le=1_000_000)
    steps: int = setting(
        "batches that every silo trains on in one round, whatever its number of rows; 0: as epochs says",
        ge=0,
        le=1_000_000,
    )
    batch_size: int = setting("rows in a batch", ge=1, le=100_000_000)
    lr: float = setting("learning rate", gt=0.0)
    momentum: float = setting("momentum (reset at the start of each round)", ge=0.0, lt=1.0)
    weight_decay: float = setting("L2 penalty", ge=0.0)
    local_layers: tuple[str, ...] = setting(
        "layers that stay in the silo, neither sent nor overwritten: norm, head, or names such as 0 or 0.weight",
        max_items=64,
    )
    tuning_epochs: int = setting(
        "passes over its own rows by which a silo tunes a copy of the model, to score it beside the model; 0: none",
        ge=0,
        le=1000,
    )
    tuning_lr: float | None = setting("learning rate of tuning; null: training.lr", gt=0.0)
