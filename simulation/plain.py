"""The same federation in clear, trained beside a run with privacy, masks or compression: what that cost.

A simulator can, for the silos' rows are at hand: the product's own apps run once more in this process, into a folder
that is thrown away, with the run's settings but for ``privacy`` and ``aggregation``. It trains on the training rows of
the run, so that no model is scored on rows that it has seen. Its model is that of `quire run` with the overrides that
are written down beside it, hash for hash, but where silos set rows of their own files aside, which without privacy goes
class by class.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quire.clients.data.own import set_aside_row_by_row
from quire.conf.compose import compose
from quire.conf.numbers import records_of
from quire.conf.overrides import Override, parse
from quire.conf.schema import NoCompression, NoPrivacy, PlainAggregation, RecordDistributedPrivacy, Settings
from quire.errors import Interrupted, QuireError

LOG = logging.getLogger("quire.simulation")

#: The settings of the run with ``privacy=none aggregation=plain``: what a user who needs neither would have run.
PLAIN = "federated_plain"
#: Beside ``privacy=record_distributed``: one batch a round as there, so that clip and noise are all that differ.
STEPS = "federated_steps"
#: The closest to the run comes first: what privacy cost is told against it.
WAYS = (STEPS, PLAIN)

_LEFT_OUT = ("privacy", "aggregation", "compression", "runtime", "output", "tracking")
#: What is about scores of the rounds alone: nobody is asked for any.
_OF_SCORING = ("strategy.fraction_evaluate", "training.tuning_epochs", "training.tuning_lr")


@dataclass(frozen=True)
class PlainFederation:
    """A federation in clear, or why there is none.

    Attributes
    ----------
    overrides : str
        What `quire run` would be told.
    fingerprint : str or None
        SHA-256 of the model.
    model : dict of str to numpy.ndarray or None
    error : str or None
        One sentence, where it could not be trained: a silo's policy, for example, may accept private runs only.
    """

    overrides: str
    fingerprint: str | None = None
    model: dict[str, np.ndarray] | None = None
    error: str | None = None

    def about(self) -> dict[str, str]:
        """Return what ``comparison.json`` says of it."""
        said = {"overrides": self.overrides, "model": self.fingerprint, "error": self.error}
        return {key: value for key, value in said.items() if value is not None}


def plain_overrides(settings: Settings) -> dict[str, str]:
    """Return the federations in clear that a run is compared with, as overrides.

    Injected faults, trackers and output stay away; so does the runtime, which does not change a model.

    Parameters
    ----------
    settings : Settings
        Of the run.

    Returns
    -------
    dict of str to str
        By :data:`PLAIN` and :data:`STEPS`; empty where the run itself is in clear, its updates whole, or where silos
        keep layers of their own.
    """
    plain = isinstance(settings.privacy, NoPrivacy) and isinstance(settings.aggregation, PlainAggregation)
    if settings.training.local_layers:  # of which nothing but the silos' own contexts would have all layers
        return {}
    if plain and isinstance(settings.compression, NoCompression):
        return {}
    left_out = [group for group in _LEFT_OUT if not (plain and group == "aggregation")]  # a robust rule stays
    kept = [
        item
        for item in parse(settings.overrides)
        if item.key.partition(".")[0] not in left_out or item.key == "runtime.threads"
    ]
    found = {PLAIN: _joined(kept)}
    if isinstance(settings.privacy, RecordDistributedPrivacy):
        records, _ = records_of(settings, settings.privacy)
        batch = max(1, round(settings.privacy.sampling_rate * records / settings.partition.silos))
        others = [item for item in kept if item.key not in ("training.epochs", "training.steps", "training.batch_size")]
        found[STEPS] = _joined([*others, f"training.steps=1 training.batch_size={batch}"])
    return found


def train_plainly(overrides: str, silos: Path | None = None, private: bool = False) -> PlainFederation:
    """Run a federation in clear in this process, and keep nothing but its model.

    Parameters
    ----------
    overrides : str
        As :func:`plain_overrides` returns them.
    silos : pathlib.Path, optional
        Of the silos' files, where they read their own rows.
    private : bool
        Whether the run that it is compared with has privacy: silos then set rows aside as they do there.

    Returns
    -------
    PlainFederation
        With ``error`` where it had to stop: the run that it is compared with is done, and loses nothing by that.

    Raises
    ------
    KeyboardInterrupt
    """
    from safetensors.numpy import load_file

    from quire.simulation.inline import run_inline

    unscored = [item for item in parse(overrides) if item.key not in _OF_SCORING]
    LOG.info("Training a federation in clear, to compare with: quire run %s", overrides)
    split = set_aside_row_by_row() if private else nullcontext()
    try:
        with tempfile.TemporaryDirectory(prefix="quire-plain-") as scratch, quietly(), split:
            settings = compose(_joined([*unscored, "strategy.fraction_evaluate=0"]))
            result = run_inline(settings, Path(scratch) / "run", silos=silos)
            model = dict(load_file(result.folder / "model.safetensors"))
    except Interrupted:
        raise KeyboardInterrupt from None  # its own words name a folder that is gone
    except (QuireError, OSError) as error:
        return PlainFederation(overrides, error=str(error))
    return PlainFederation(overrides, result.model, model)


def _joined(items: Iterable[Override | str]) -> str:
    return " ".join(str(item) for item in items)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the rounds of a federation in clear out of the log of the run beside it."""
    logger = logging.getLogger("quire")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
