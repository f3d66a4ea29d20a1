"""A silo's own rows, wherever they are: a part of a simulated data set, or what its ``silo.yaml`` names."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

import numpy as np

from quire.clients.arrays import fingerprint
from quire.clients.data.consent.sieve import Sieve, Standing, standing, subjects_in
from quire.clients.data.preprocess import Loaded
from quire.clients.data.rules.redact import redacted
from quire.clients.data.silo import Rows, SiloData, hold_out, split, split_each
from quire.clients.data.silo_file import Section, SiloFile
from quire.clients.data.simulated import federation
from quire.clients.data.table import to_rows
from quire.clients.tasks.schema import Numeric, Schema
from quire.conf.schema import FilesData, NoPrivacy, Settings
from quire.errors import DataError
from quire.privacy.randomness import key, stream

LOG = logging.getLogger("quire.clients")

Where = int | SiloFile
Signature = tuple[tuple[str, int, int], ...]

_KEPT = 1024
# Of this process and thread, and never part of the settings, which travel.
_ROW_BY_ROW: ContextVar[bool] = ContextVar("quire-row-by-row", default=False)
_CACHE: OrderedDict[Path, tuple[tuple[float, float, int, str, bool, Signature, bytes], Loaded]] = OrderedDict()


@contextmanager
def set_aside_row_by_row() -> Iterator[None]:
    """Set rows aside as under privacy, whatever the settings say, for as long as the context lasts.

    For a simulator that trains a federation in clear beside a run with privacy: a split of its own would let it train
    on rows that the run keeps for testing, on which both are scored. Only loading in the same process and thread sees
    it, so nobody can ask a silo elsewhere for it.
    """
    token = _ROW_BY_ROW.set(True)
    try:
        yield
    finally:
        _ROW_BY_ROW.reset(token)


def load(settings: Settings, where: Where, name: str) -> Loaded:
    """Load a silo's rows; once in a process, and again only when a file has changed, or consent to use them.

    Parameters
    ----------
    settings : Settings
    where : int or SiloFile
        The silo's place in the simulated partition, or its own file.
    name : str
        The silo's name, which with the seed decides which rows are kept for testing.

    Raises
    ------
    DataError
        If the rows cannot be had, or changed while they were read.
    """
    if isinstance(where, int):
        return _simulated(federation(settings))[where]
    data = settings.data
    if not isinstance(data, FilesData):
        raise DataError(f"data={data.name} does not read a silo's own files.")
    files = _signature(where)
    row_by_row = not isinstance(settings.privacy, NoPrivacy) or _ROW_BY_ROW.get()
    consent = standing(where.consent, where.operator)
    mark = b"" if consent is None else consent.mark
    now = (data.test_fraction, data.validation_fraction, settings.seed, name, row_by_row, files, mark)
    if where.path in _CACHE and _CACHE[where.path][0] == now:
        _CACHE.move_to_end(where.path)
        return _CACHE[where.path][1]
    loaded = _read(where, data, settings.seed, name, row_by_row, consent)
    if _signature(where) != files:
        raise DataError(f"A file of {where.path} changed while it was read.")
    _CACHE[where.path] = (now, loaded)  # one for each silo: a sweep over seeds must not pile up copies
    while len(_CACHE) > _KEPT:
        _CACHE.popitem(last=False)
    return loaded


def count_rows(silo: SiloFile) -> int:
    """Count the rows of a silo's tables that consent lets in, to train on and to test on, as they stand now.

    A row more or less in the tables moves the number by at most one. It is for the silo's operator alone.

    Raises
    ------
    DataError
        If the rows cannot be had, or are not such as the schema has it.
    """
    sieve = Sieve(standing(silo.consent, silo.operator))
    return sum(len(_rows(section, sieve)) for section in (silo.data, silo.test) if section is not None) - sieve.left_out


def rows_about(silo: SiloFile, subject: str) -> int:
    """Count the rows of a silo's tables that are about a subject, as they stand now; for its operator alone.

    Parameters
    ----------
    silo : SiloFile
        With ``consent``.
    subject : str
        The id.

    Raises
    ------
    DataError
        If the tables cannot be read, or have no column of subjects.
    """
    found = 0
    for section in (silo.data, silo.test):
        if section is not None and silo.consent is not None:
            where = f"{section.source.entry.file} ({section.source.entry.key})"
            found += subjects_in(section.connector.read(section.source), silo.consent, section.missing, where).count(
                subject
            )
    return found


@lru_cache(maxsize=2)  # a sweep over seeds must not pile up data sets
def _simulated(federated: tuple[SiloData, ...]) -> tuple[Loaded, ...]:
    features = federated[0].train.x.shape[1]
    return tuple(
        Loaded(data, np.ones(features, dtype=bool), np.zeros(features, dtype=np.float32)) for data in federated
    )


def _signature(silo: SiloFile) -> Signature:
    files = [silo.path, silo.schema_path]
    for section in (silo.data, silo.test):
        if section is not None:
            files += section.connector.files(section.source)
            files += section.columns.files if section.columns is not None else ()
    try:
        stats = [(str(path), path.stat()) for path in files]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in stats)


def _read(silo: SiloFile, how: FilesData, seed: int, name: str, row_by_row: bool, consent: Standing | None) -> Loaded:
    sieve = Sieve(consent)
    rows = _rows(silo.data, sieve)
    if row_by_row:
        data = _apart(silo, rows, how, seed, name, sieve)
    elif silo.test is not None:
        data = SiloData(rows, _rows(silo.test, sieve))
    elif len(rows) < 2:
        raise DataError(f"{silo.path} names 1 row; at least two are needed, one to train on and one to test.")
    else:
        data = split(rows, how.test_fraction, stream(seed, "split", name))
    if not row_by_row:
        data = hold_out(data, how.validation_fraction, stream(seed, "validation", name))
    if silo.schema.target.kind == "classification" and len(np.unique(rows.y)) == 1:
        LOG.warning("%s: all rows are of one class; the silo can take part, but learns little by itself", silo.path)
    every = {"train": data.train, "test": data.test, "validation": data.validation}
    arrays = {f"{part}/{side}": getattr(rows, side) for part, rows in every.items() if rows for side in ("x", "y")}
    digest = fingerprint(arrays)  # of all rows: who withdraws in the middle of a run does not end it
    data, sifted = sieve.sift(data, row_by_row, silo.path)
    return Loaded(data, silo.schema.numeric, _impute(silo.schema), digest, sifted=sifted)


def _apart(silo: SiloFile, rows: Rows, how: FilesData, seed: int, name: str, sieve: Sieve) -> SiloData:
    """Set rows aside one by one, so that a record more or less changes nothing about the others."""
    if silo.test is not None:
        train, test = rows, _rows(silo.test, sieve)
    else:
        train, test = split_each(rows, how.test_fraction, key(seed, "split", name))
    if not how.validation_fraction:
        return SiloData(train, test)
    train, validation = split_each(train, how.validation_fraction, key(seed, "validation", name))
    return SiloData(train, test, validation)


def _rows(section: Section, sieve: Sieve) -> Rows:
    where = f"{section.source.entry.file} ({section.source.entry.key})"
    raw = sieve.look(section.connector.read(section.source), section.missing, where)
    raw = redacted(raw, section.columns, section.missing, section.missing_in, where)
    return sieve.number(to_rows(raw, section.source.schema, section.missing, section.missing_in, where))


def _impute(schema: Schema) -> np.ndarray:
    """Return the public constants for missing values, scaled as the columns are; categories have zeros."""
    if schema.image is not None:
        return np.zeros(schema.features, dtype=np.float32)
    parts = [
        [2.0 * (column.impute - column.low) / (column.high - column.low) - 1.0]
        if isinstance(column, Numeric)
        else [0.0] * len(column.categories)
        for column in schema.columns
    ]
    return np.concatenate(parts).astype(np.float32)
