"""Which settings cannot stand together, and why.

Each rule looks at complete, typed settings and refuses with one sentence. They run at the end of every compose,
at the launcher, the server and each silo alike.
"""

from __future__ import annotations

import re

from quire.conf.overrides import shown
from quire.conf.schema import DirichletPartition, InlineRuntime, ScaffoldStrategy, Settings, SklearnData, SyntheticData
from quire.errors import SettingsError

FAULT_KINDS = ("drop", "delay", "error")
FAULT_STAGES = ("query", "train", "evaluate")
MAX_DELAY = 86_400
MAX_CELLS = 2_000_000_000
ROWS = {"breast_cancer": 569}

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
    _enough_rows(settings)
    if isinstance(settings.runtime, InlineRuntime):
        for fault in settings.runtime.faults:
            _fault_is_readable(fault)


def _task_fits_data(settings: Settings) -> None:
    needed = {"breast_cancer": SklearnData, "synthetic": SyntheticData}[settings.task.name]
    if not isinstance(settings.data, needed):
        raise SettingsError(f"task={settings.task.name} cannot be learned from data={settings.data.name}.")
    if settings.task.model == "mlp" and not settings.task.hidden:
        raise SettingsError("task.model=mlp needs at least one width in task.hidden.")


def _enough_silos(settings: Settings) -> None:
    strategy, silos = settings.strategy, settings.partition.silos
    if silos < strategy.min_silos:
        raise SettingsError(
            f"partition.silos={silos} is fewer than strategy.min_silos={strategy.min_silos}: "
            "add silos or lower the minimum."
        )
    cohort = int(strategy.fraction * silos + 1e-9)  # as Roster.sample rounds
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


def _enough_rows(settings: Settings) -> None:
    data, partition = settings.data, settings.partition
    rows = data.rows if isinstance(data, SyntheticData) else ROWS[data.dataset]
    fewest = partition.min_rows if isinstance(partition, DirichletPartition) else 2
    if rows < fewest * partition.silos:
        raise SettingsError(
            f"data={data.name} has {rows} rows, too few to give {fewest} to each of partition.silos={partition.silos}: "
            "take fewer silos."
        )
    if isinstance(data, SyntheticData) and data.rows * data.features > MAX_CELLS:
        raise SettingsError(
            f"data.rows={data.rows} times data.features={data.features} is more than {MAX_CELLS} numbers: lower one."
        )


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
        raise SettingsError(f"{where} names the stage '{shown(parts[1])}'; stages are query, train, evaluate.")
    if not _ROUND.fullmatch(parts[2]):
        raise SettingsError(f"{where} names the round '{shown(parts[2])}'; write a whole number or *.")
    if delayed and not (_SECONDS.fullmatch(parts[4]) and float(parts[4]) <= MAX_DELAY):
        raise SettingsError(f"{where} delays by '{shown(parts[4])}'; write seconds, at most {MAX_DELAY}.")
