"""All silos of a federation on this machine: simulated ones, or those of a folder that ``silos=FOLDER`` names.

The folder holds ``schema.yaml`` and one YAML file for each silo. It is the launcher's business, like the run folder:
it never becomes part of the settings, which travel.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quire.clients.contract import silo_name
from quire.clients.data.own import Where, load
from quire.clients.data.preprocess import FEDERATED, prepare, preprocessing_of
from quire.clients.data.silo import SiloData
from quire.clients.data.silo_file import SCHEMA_FILE, SILOS_VARIABLE, SiloFile, read_silo, silo_files
from quire.clients.data.simulated import federation
from quire.clients.private.plan import plan_of
from quire.clients.tasks import Task, task_of
from quire.clients.tasks.moments import combine
from quire.conf.schema import FilesData, NoPrivacy, Settings
from quire.errors import DataError, SettingsError
from quire.privacy.dp.contract import PrivacyError
from quire.strategies.checkpoint import replace
from quire.strategies.cohort import natural
from quire.strategies.server_app import SCHEMA_VARIABLE

KEY = "silos"
#: Holds, in the run folder, what rows the silos had when the run began.
ROWS_FILE = "rows.json"
_CHOICES = ("task=tabular", "task=images", "task=plugin", "data=files")


@dataclass(frozen=True)
class LocalSilos:
    """The silos of a federation on this machine, in the order of their partition ids.

    Attributes
    ----------
    names : tuple of str
    where : tuple of int or SiloFile
        Where the rows of each are.
    schema : pathlib.Path or None
        The server's copy of the agreed form of the rows.
    """

    names: tuple[str, ...]
    where: tuple[Where, ...]
    schema: Path | None

    def task(self, settings: Settings) -> Task:
        """Return the task that these silos learn."""
        first = self.where[0]
        return task_of(settings, first.schema, first.plugins) if isinstance(first, SiloFile) else task_of(settings)

    def data(self, settings: Settings) -> tuple[SiloData, ...]:
        """Load the rows of all silos as they are trained on. Only a simulator can."""
        loaded = [load(settings, where, name) for where, name in zip(self.where, self.names, strict=True)]
        how = preprocessing_of(settings)
        statistics = None
        if how == FEDERATED:  # added up in the server's order, that of the roster
            order = sorted(range(len(self.names)), key=lambda place: natural(self.names[place]))
            statistics = combine(loaded[place].moments() for place in order)
        return tuple(prepare(silo, how, statistics) for silo in loaded)


def local_silos(settings: Settings, folder: Path | None = None) -> LocalSilos:
    """Find the silos that the settings speak of.

    Parameters
    ----------
    settings : Settings
    folder : pathlib.Path, optional
        Of the silos' files, for ``data=files``; else what the environment names (``QUIRE_SILOS``).

    Raises
    ------
    DataError
        If the folder is not there, holds another number of silos than the settings, two of the same name, one with
        another schema, one whose policy lets no simulation read its rows, or two with one store or identity, one of
        them with ``consent``.
    """
    if not isinstance(settings.data, FilesData):
        count = settings.partition.silos
        names = tuple(silo_name(settings.task.silo_label, place) for place in range(count))
        return LocalSilos(names, tuple(range(count)), None)
    named = folder or os.environ.get(SILOS_VARIABLE)
    if not named:
        raise DataError(
            f"task={settings.task.name} learns from silos' own rows: name the folder of their files with silos=FOLDER."
        )
    root = Path(named).absolute()
    files = silo_files(root)
    if len(files) != settings.partition.silos:
        raise DataError(
            f"The folder {root} holds {len(files)} silos, but partition.silos={settings.partition.silos}: make them "
            "the same number."
        )
    silos = [read_silo(path) for path in files]
    names = tuple(silo.name or silo_name(settings.task.silo_label, place) for place, silo in enumerate(silos))
    for place, (silo, name) in enumerate(zip(silos, names, strict=True)):
        if name in names[:place]:
            raise DataError(f"{silo.path} has the name '{name}' of another silo: give each its own.")
        if silo.schema.sha256 != silos[0].schema.sha256:
            raise DataError(f"{silo.path} has another schema than {silos[0].path}: all parties need the same.")
        policy = silo.operator.policy
        if policy is not None and not policy.rehearsal and not settings.selftest:
            raise DataError(
                f"{silo.path} has a policy, and a simulation would read its rows without charging their ledger: add "
                "'rehearsal: true' to the policy if these rows may be read so, or run it as a deployment."
            )
    _keep_books_apart(silos)
    return LocalSilos(names, tuple(silos), root / SCHEMA_FILE)


def _keep_books_apart(silos: Sequence[SiloFile]) -> None:
    """Refuse silos that would share requests for erasure, lineage or the key for subjects: their defaults are alike."""
    for place, silo in enumerate(silos):
        for other in silos[:place]:
            if silo.consent is None and other.consent is None:
                continue
            for key in ("store", "identity"):
                if os.path.realpath(getattr(silo.operator, key)) == os.path.realpath(getattr(other.operator, key)):
                    raise DataError(
                        f"{silo.path} and {other.path} have the same '{key}', and with 'consent' requests for erasure "
                        f"of one would be those of the other: give each a '{key}:' of its own."
                    )


def rows_at_hand(settings: Settings) -> bool:
    """Tell whether the silos' rows can be had here: their own files only where ``QUIRE_SILOS`` names the folder."""
    return not isinstance(settings.data, FilesData) or bool(os.environ.get(SILOS_VARIABLE))


def check_rows(settings: Settings, silos: LocalSilos) -> None:
    """Load all rows once, so that what cannot be learned from is refused in words before anything is started.

    Raises
    ------
    DataError
    """
    if settings.selftest:
        return  # it reads none
    if not isinstance(settings.data, FilesData):
        _check_privacy(settings, silos, [len(silo.train) for silo in federation(settings)])
        return
    task = silos.task(settings)
    rows = [load(settings, where, name).data.train for where, name in zip(silos.where, silos.names, strict=True)]
    _check_privacy(settings, silos, [len(part) for part in rows])
    if task.classes and len(np.unique(np.concatenate([part.y for part in rows]))) < 2:
        raise DataError("The training rows of all silos are of one class: there is nothing to tell apart.")


def hold_to_rows(settings: Settings, silos: LocalSilos, folder: Path, resume: bool) -> None:
    """Note in the run folder what rows the silos have as a run begins, or refuse to go on with others.

    Only a simulator can: a silo elsewhere tells nobody what its rows are, and notices by itself while it is up.
    Simulated rows follow from the settings, to which a resumed run is held anyway.

    Parameters
    ----------
    settings : Settings
    silos : LocalSilos
    folder : pathlib.Path
        The run folder; ``rows.json`` in it names a hash (hex) of each silo's rows, before any preprocessing.
    resume : bool
        Go on with the run in the folder.

    Raises
    ------
    DataError
        If a silo has other rows than when the run to resume began.
    SettingsError
        If the folder cannot be written.
    """
    if not isinstance(settings.data, FilesData) or settings.selftest:
        return
    path = folder / ROWS_FILE
    now = {name: load(settings, where, name).digest for where, name in zip(silos.where, silos.names, strict=True)}
    if not resume:
        _note(path, now)
        return
    if not path.exists():  # the run came through another door
        return
    try:
        began = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"'{path}' cannot be read, so nobody can tell whether rows have changed: start anew."
        ) from error
    for name in silos.names:  # that they are the same silos is seen to by the server
        if name in began and began[name] != now[name]:
            raise DataError(f"The rows of {name} are not those that this run began with: put them back or start anew.")


def _note(path: Path, digests: dict[str, str]) -> None:
    if (path.parent / "run.json").exists():  # it holds a run, and whoever opens it next says so
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, json.dumps(digests, indent=1).encode())
    except OSError as error:
        raise SettingsError(
            f"The folder '{path.parent}' cannot be written ({error.strerror}): choose another."
        ) from error


def _check_privacy(settings: Settings, silos: LocalSilos, rows: Sequence[int]) -> None:
    """Let every silo's noise be calibrated once, so that a target out of reach is refused before anything starts."""
    if isinstance(settings.privacy, NoPrivacy):
        return
    for name, where, count in zip(silos.names, silos.where, rows, strict=True):
        declared = where.operator.population if isinstance(where, SiloFile) else None
        try:
            plan_of(settings, declared.records if declared is not None else count)
        except PrivacyError as error:
            raise SettingsError(f"{name} cannot take part: {error}") from error


def take_silos(args: list[str]) -> list[str]:
    """Take ``silos=FOLDER`` out of the arguments of ``quire run``, and remember it for the runs of this process.

    The number of silos is added to the overrides where it is not given.

    Raises
    ------
    SettingsError
        If it is there twice, or with a task whose silos do not read their own rows.
    DataError
        If the folder holds no silos.
    """
    given = [arg for arg in args if arg.split("=")[0] == KEY]
    if not given:
        return args
    others = [arg for arg in args if arg not in given]
    folder = given[0].partition("=")[2].strip("'\"")
    if len(given) > 1 or not folder:
        raise SettingsError("Name one folder of silos: quire run task=tabular silos=FOLDER.")
    resumed = any(arg.startswith("resume=") for arg in others)
    if not resumed and not any(arg in _CHOICES for arg in others):
        raise SettingsError("silos=FOLDER is for silos that read their own rows: add task=tabular or task=images.")
    root = Path(folder).absolute()
    count = len(silo_files(root))
    os.environ[SILOS_VARIABLE], os.environ[SCHEMA_VARIABLE] = str(root), str(root / SCHEMA_FILE)
    if resumed or any(arg.startswith("partition.silos=") for arg in others):
        return others
    return [*others, f"partition.silos={count}"]
