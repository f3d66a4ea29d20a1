"""Which settings cannot stand together, and why.

Each rule looks at complete, typed settings and refuses with one sentence. They run at the end of every compose,
at the launcher, the server and each silo alike.
"""

from __future__ import annotations

import re
from math import isqrt

from quire.conf.asked import silos_asked
from quire.conf.attack_rules import check_attack, check_suspicion
from quire.conf.compression_rules import check_compression
from quire.conf.device import check_device
from quire.conf.fair_rules import check_fair
from quire.conf.numbers import rows_of
from quire.conf.overrides import parse, shown
from quire.conf.privacy_rules import check_privacy
from quire.conf.robust_rules import check_robust
from quire.conf.schema import (
    DirichletPartition,
    FilesData,
    InlineRuntime,
    MlflowTracking,
    NaturalPartition,
    ScaffoldStrategy,
    Settings,
    SklearnData,
    SyntheticData,
)
from quire.conf.secure_rules import check_secure
from quire.errors import SettingsError

FAULT_KINDS = ("drop", "delay", "error")
FAULT_STAGES = ("query", "train", "evaluate", "open", "pairs", "ready", "shares", "mask", "confirm", "unmask")
#: Exchanges that can have a deadline of their own; who joins has runtime.join_timeout.
DEADLINE_STAGES = ("approval", "moments", *FAULT_STAGES[1:])
MAX_DELAY, MAX_DEADLINE = 86_400, 1e7
MAX_CELLS = 200_000_000
# What each task learns from; for data=sklearn the data set of the same name.
_HOMES = {"synthetic": SyntheticData, "tabular": FilesData, "images": FilesData, "plugin": FilesData}

_ROUND = re.compile(r"\*|[0-9]{1,9}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}")


def check(settings: Settings) -> None:
    """Refuse settings that contradict each other.

    Raises
    ------
    SettingsError
        With the first contradiction found.
    """
    _task_fits_data(settings)
    _enough_silos(settings)
    _scaffold_is_plain(settings)
    _steps_or_epochs(settings)
    _enough_rows(settings)
    _uri_holds_no_password(settings)
    check_privacy(settings, None if isinstance(settings.data, FilesData) else rows_of(settings.data))
    check_secure(settings)
    check_robust(settings)
    check_attack(settings)
    check_suspicion(settings)
    check_compression(settings)
    check_device(settings)
    check_fair(settings)
    _deadlines_are_readable(settings)
    if isinstance(settings.runtime, InlineRuntime):
        for fault in settings.runtime.faults:
            _fault_is_readable(fault)
        _workers_have_a_thread_each(settings.runtime)


def _workers_have_a_thread_each(runtime: InlineRuntime) -> None:
    # A process that is forked from one with several threads of OpenMP may wait for them for ever; and one for each core
    # is the faster anyway.
    if runtime.workers != 1 and runtime.threads != 1:
        raise SettingsError(
            f"runtime.workers={runtime.workers} takes processes that have one thread each, not runtime.threads="
            f"{runtime.threads}: set one of them to 1."
        )


def _task_fits_data(settings: Settings) -> None:
    task, data, partition = settings.task, settings.data, settings.partition
    if not isinstance(data, _HOMES.get(task.name, SklearnData)):
        raise SettingsError(f"task={task.name} cannot be learned from data={data.name}.")
    if isinstance(data, SklearnData) and data.dataset != task.name:
        raise SettingsError(f"task={task.name} cannot be learned from data.dataset={data.dataset}.")
    if isinstance(data, FilesData) != isinstance(partition, NaturalPartition):
        raise SettingsError(f"data={data.name} cannot be shared out by partition={partition.name}.")
    if task.name == "diabetes" and isinstance(partition, DirichletPartition):
        raise SettingsError("partition=dirichlet shares rows by class, and task=diabetes has none: take iid or shards.")
    if task.name == "images" and isinstance(data, FilesData) and data.preprocessing != "public":
        raise SettingsError(
            f"data.preprocessing={data.preprocessing} is for columns: images are scaled by the bounds of a pixel."
        )
    _task_fits_model(settings)


def _task_fits_model(settings: Settings) -> None:
    task = settings.task
    if task.model == "mlp" and not task.hidden:
        raise SettingsError("task.model=mlp needs at least one width in task.hidden.")
    if task.name == "plugin" and (task.model != "plugin" or task.plugin == "none"):
        raise SettingsError(
            "task=plugin takes model, loss and metrics from a plug-in that every party has approved: name it with "
            "task.plugin=NAME, and leave task.model out."
        )
    if (task.model == "plugin") != (task.plugin != "none"):
        raise SettingsError("task.model=plugin and task.plugin=NAME go together: set both or neither.")
    if task.model == "cnn" and task.name not in ("digits", "images", "synthetic"):
        raise SettingsError(f"task.model=cnn is for images, which task={task.name} does not have.")
    if (
        task.model == "cnn"
        and isinstance(data := settings.data, SyntheticData)
        and isqrt(data.features) ** 2 != data.features
    ):
        raise SettingsError(
            f"task.model=cnn takes the made-up rows for square images, and data.features={data.features} is no square."
        )
    if task.model == "logistic" and task.name == "diabetes":
        raise SettingsError("task.model=logistic tells classes apart, and task=diabetes has none: take linear or mlp.")


def _enough_silos(settings: Settings) -> None:
    strategy, silos = settings.strategy, settings.partition.silos
    if silos < strategy.min_silos:
        raise SettingsError(
            f"partition.silos={silos} is fewer than strategy.min_silos={strategy.min_silos}: "
            "add silos or lower the minimum."
        )
    cohort = silos_asked(strategy.fraction, silos, 0)
    if cohort < strategy.min_silos:
        raise SettingsError(
            f"strategy.fraction={strategy.fraction:g} of {silos} silos asks {cohort} to train, fewer than "
            f"strategy.min_silos={strategy.min_silos}: raise the fraction or lower the minimum."
        )


def _scaffold_is_plain(settings: Settings) -> None:
    if isinstance(settings.strategy, ScaffoldStrategy) and settings.training.momentum:
        raise SettingsError(
            f"strategy=scaffold reads a silo's drift off plain SGD steps, which training.momentum="
            f"{settings.training.momentum:g} are not: set training.momentum=0."
        )


def _steps_or_epochs(settings: Settings) -> None:
    plan = settings.training
    if not plan.steps or plan.epochs == 1:
        return
    # What a task chose for epochs gives way to steps; what the user chose does not do so silently.
    if any(item.key == "training.epochs" for item in parse(settings.overrides)):
        raise SettingsError(
            f"training.epochs={plan.epochs} and training.steps={plan.steps} both say how long a silo trains in a "
            "round: set one of them."
        )


def _enough_rows(settings: Settings) -> None:
    data, partition = settings.data, settings.partition
    if isinstance(data, FilesData):
        return
    rows = rows_of(data)
    fewest = partition.min_rows if isinstance(partition, DirichletPartition) else 2
    if rows < fewest * partition.silos:
        raise SettingsError(
            f"data={data.name} has {rows} rows, too few to give {fewest} to each of partition.silos={partition.silos}: "
            "take fewer silos."
        )
    if isinstance(data, SyntheticData) and data.classes > data.rows:
        raise SettingsError(f"data.classes={data.classes} is more than data.rows={data.rows}: lower it.")
    # There are no more classes than rows, so that this bounds their centres, classes times features, as well.
    if isinstance(data, SyntheticData) and data.rows * data.features > MAX_CELLS:
        raise SettingsError(
            f"data.rows={data.rows} times data.features={data.features} is more than {MAX_CELLS} numbers: lower one."
        )


def _uri_holds_no_password(settings: Settings) -> None:
    tracking = settings.tracking
    if isinstance(tracking, MlflowTracking) and "@" in tracking.uri.partition("://")[2].partition("/")[0]:
        raise SettingsError(
            "tracking.uri names a user or a password, and settings travel to every silo: put them into "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )


def _deadlines_are_readable(settings: Settings) -> None:
    seen: set[str] = set()
    for item in settings.strategy.deadlines:
        where = f"strategy.deadlines: '{shown(item)}'"
        stage, colon, seconds = item.partition(":")
        if not colon or stage not in DEADLINE_STAGES:
            raise SettingsError(f"{where} must be stage:seconds, the stage one of {', '.join(DEADLINE_STAGES)}.")
        if not _SECONDS.fullmatch(seconds) or not 0.0 < float(seconds) <= MAX_DEADLINE:
            raise SettingsError(f"{where}: the seconds must be a number above 0, at most {MAX_DEADLINE:g}.")
        if stage in seen:
            raise SettingsError(f"{where}: the stage has two deadlines.")
        seen.add(stage)


def _fault_is_readable(fault: str) -> None:
    where = f"runtime.faults: '{shown(fault)}'"
    parts = fault.split(":")
    kind, delayed = parts[0], parts[0] == "delay"
    if kind not in FAULT_KINDS or len(parts) != (5 if delayed else 4) or not all(parts):
        raise SettingsError(
            f"{where} is not a fault; write drop:STAGE:ROUND:SILO, error:STAGE:ROUND:SILO or "
            "delay:STAGE:ROUND:SILO:SECONDS, with * for any."
        )
    if parts[1] not in (*FAULT_STAGES, "*"):
        raise SettingsError(f"{where} names the stage '{shown(parts[1])}'; stages are {', '.join(FAULT_STAGES)}.")
    if not _ROUND.fullmatch(parts[2]):
        raise SettingsError(f"{where} names the round '{shown(parts[2])}'; write a whole number or *.")
    if delayed and not (_SECONDS.fullmatch(parts[4]) and float(parts[4]) <= MAX_DELAY):
        raise SettingsError(f"{where} delays by '{shown(parts[4])}'; write seconds, at most {MAX_DELAY}.")
