"""Share one data set out over simulated silos, as the partitioners of ``flwr-datasets`` do.

The even draw is worked out here, to the very rows that ``IidPartitioner`` gives: importing that takes longer than all
else that comes before a first round.
"""

from __future__ import annotations

import warnings

import numpy as np

from quire.conf.schema import DirichletPartition, IidPartition, NaturalPartition, ShardsPartition
from quire.errors import DataError
from quire.privacy.randomness import derive_seed

Partition = IidPartition | DirichletPartition | ShardsPartition | NaturalPartition


def partition(labels: np.ndarray, settings: Partition, seed: int) -> list[np.ndarray]:
    """Decide which rows each silo holds.

    Parameters
    ----------
    labels : numpy.ndarray of int64, shape (n,)
        Or of floats, where a number is learned: shards are then of neighbouring values.
    settings : IidPartition, DirichletPartition or ShardsPartition
    seed : int
        The run's seed: the same seed gives the same partition.

    Returns
    -------
    list of numpy.ndarray of int64
        For each silo the places of its rows. Every row belongs to exactly one silo.

    Raises
    ------
    DataError
        If there are too few rows, or no draw gives every silo its fewest rows.
    """
    if len(labels) < 2 * settings.silos:
        raise DataError(
            f"{len(labels)} rows cannot be shared out over {settings.silos} silos with two rows each: "
            "lower partition.silos."
        )
    drawn = derive_seed(seed, "partition") % 2**32
    if isinstance(settings, IidPartition):
        return _even(len(labels), settings.silos, drawn)
    places = _with_flwr_datasets(labels, settings, drawn)
    parts = [np.sort(np.asarray(part, dtype=np.int64)) for part in places]
    return _complete(parts, len(labels))


def _even(rows: int, silos: int, seed: int) -> list[np.ndarray]:
    """Cut a shuffled row of places into contiguous parts, the first ones longer by a row where they do not divide."""
    return [np.sort(part) for part in np.array_split(np.random.default_rng(seed).permutation(rows), silos)]


def _complete(parts: list[np.ndarray], rows: int) -> list[np.ndarray]:
    """Deal out what shards of equal size have left over, one row each to the first silos."""
    held = np.zeros(rows, dtype=bool)
    held[np.concatenate(parts)] = True
    for turn, place in enumerate(np.flatnonzero(~held)):
        silo = turn % len(parts)
        parts[silo] = np.sort(np.append(parts[silo], place))
    return parts


def _with_flwr_datasets(
    labels: np.ndarray, settings: DirichletPartition | ShardsPartition | NaturalPartition, seed: int
) -> list[list[int]]:
    # Imported here: it brings the whole `datasets` library, seconds that a help text should not cost.
    from datasets import Dataset, disable_progress_bars
    from flwr_datasets.partitioner import DirichletPartitioner, ShardPartitioner

    disable_progress_bars()
    rows = Dataset.from_dict({"label": labels.tolist(), "place": list(range(len(labels)))})
    if isinstance(settings, ShardsPartition):
        partitioner = ShardPartitioner(
            num_partitions=settings.silos,
            partition_by="label",
            num_shards_per_partition=settings.shards_per_silo,
            seed=seed,
        )
        partitioner.dataset = rows
    elif isinstance(settings, NaturalPartition):
        raise DataError("partition=natural shares nothing out: every silo has its own rows.")
    else:
        partitioner = DirichletPartitioner(
            num_partitions=settings.silos,
            partition_by="label",
            alpha=settings.alpha,
            min_partition_size=settings.min_rows,
            seed=seed,
        )
        partitioner.dataset = rows
    if isinstance(settings, ShardsPartition) and len(labels) < settings.silos * settings.shards_per_silo:
        raise DataError(
            f"{len(labels)} rows do not make {settings.shards_per_silo} shards for each of {settings.silos} silos: "
            "lower partition.shards_per_silo."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns at each draw that it repeats
            return [list(partitioner.load_partition(silo)["place"]) for silo in range(settings.silos)]
    except ValueError as error:
        raise DataError(
            f"No Dirichlet draw gave each of {settings.silos} silos {getattr(settings, 'min_rows', 2)} rows: raise "
            "partition.alpha, or lower partition.min_rows or partition.silos."
        ) from error
