"""What a sweep is about to do: which launcher and sweeper, how many jobs, side by side how many; refused if it cannot.

Everything here is decided before the first job, so that a mistake costs no run.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from math import prod
from typing import Any

from quire.conf.compose import compose
from quire.conf.schema import GROUPS, FlowerRuntime, InlineRuntime, Settings
from quire.errors import SettingsError

_DEFAULT_TRIALS = 20
_EXTRA = "pip install 'quire[sweep]'"


@dataclass(frozen=True)
class Swept:
    """The overrides of a sweep, taken apart.

    Attributes
    ----------
    combinations : list of list of str
        Combinations that together show every swept value once; of an interval, its ends.
    jobs : int
        How many combinations there are in all, intervals left aside.
    keys : tuple of str
        Keys with more than one value.
    intervals : tuple of str
        Those of them that are searched in an interval.
    """

    combinations: list[list[str]]
    jobs: int
    keys: tuple[str, ...]
    intervals: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Which of Hydra's launchers and sweepers run a sweep.

    Attributes
    ----------
    launcher, sweeper : str
    extra : tuple of str
        What Hydra is told besides what the user wrote.
    jobs : int or None
        How many jobs there will be, if that is known.
    keys : tuple of str
        What is swept.
    """

    launcher: str
    sweeper: str
    extra: tuple[str, ...]
    jobs: int | None
    keys: tuple[str, ...]


def take_apart(overrides: list[str]) -> Swept:
    """Read the overrides of a sweep as Hydra does.

    Raises
    ------
    SettingsError
        If they cannot be read.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        values = [(item.get_key_element(), _values(item)) for item in parsed]
        intervals = tuple(item.get_key_element() for item in parsed if _is_interval(item))
    except HydraException as error:
        raise SettingsError(f"The sweep cannot be read: {str(error).splitlines()[0].rstrip('.')}.") from error
    most = max((len(options) for _, options in values), default=1)
    return Swept(
        combinations=[[options[min(place, len(options) - 1)] for _, options in values] for place in range(most)],
        jobs=prod(len(options) for key, options in values if key not in intervals),
        keys=tuple(key for key, options in values if len(options) > 1),
        intervals=intervals,
    )


def for_hydra(overrides: list[str], swept: Swept) -> list[str]:
    """Return the overrides as Hydra can take them.

    A setting of a group whose options are swept must wait until each job has its option: ``privacy=record,silo
    privacy.delta=1e-4`` is refused by Hydra, for the option that a group has by default has no delta. As a choice of
    one value it waits.
    """
    groups = [key for key in swept.keys if key in GROUPS]
    if not groups:
        return overrides
    chosen = [item for item in overrides if item.partition("=")[0] in GROUPS and item.partition("=")[0] not in groups]
    try:
        tree = compose(" ".join(chosen)).as_dict()
    except SettingsError:  # these choices need settings beside them: nobody can tell what is there by default
        tree = {}
    told = []
    for item in overrides:
        key, _, value = item.partition("=")
        group, _, name = key.partition(".")
        waits = group in groups and name and key not in swept.keys and name not in tree.get(group, {})
        told.append(f"{key}=choice({value})" if waits else item)
    return told


def _is_interval(item: Any) -> bool:
    from hydra.core.override_parser.types import IntervalSweep

    return item.is_sweep_override() and isinstance(item.value(), IntervalSweep)


def _values(item: Any) -> list[str]:
    from hydra.core.override_parser.types import Glob

    key = item.get_key_element()
    if item.is_sweep_override() and isinstance(item.value(), Glob):
        return _options(key, item)
    if _is_interval(item):
        sweep = item.value()
        return [f"{key}={sweep.start}", f"{key}={sweep.end}"]
    if item.is_sweep_override() and item.is_discrete_sweep():
        return [f"{key}={value}" for value in item.sweep_string_iterator()]
    return [str(item.input_line)]


def _options(key: str, item: Any) -> list[str]:
    """Return the options of a group that a glob names, as Hydra will."""
    if key not in GROUPS:
        raise SettingsError(f"{item.input_line}: glob names options of a group, and {key} has none; list the values.")
    names = item.value().filter(sorted(GROUPS[key]))
    if not names:
        raise SettingsError(f"{item.input_line} names no option of {key}: choose from {', '.join(GROUPS[key])}.")
    return [f"{key}={name}" for name in names]


def check_search(hydra: list[str], swept: Swept) -> None:
    """Refuse an interval where nothing searches it.

    Raises
    ------
    SettingsError
    """
    if not any(item.startswith("hydra/sweeper=") for item in hydra):
        raise SettingsError(
            f"{swept.intervals[0]} is to be searched in an interval, which needs a sweeper that can: add "
            "hydra/sweeper=optuna, or list the values."
        )


def plan(hydra: list[str], swept: Swept, settings: list[Settings]) -> Plan:
    """Decide how a sweep is run.

    Parameters
    ----------
    hydra : list of str
        The user's overrides of Hydra's own settings.
    swept : Swept
    settings : list of Settings
        Of the combinations.

    Raises
    ------
    SettingsError
        If a plug-in is missing, or the launcher or the sweeper cannot do what is asked.
    """
    given = dict(item.partition("=")[::2] for item in hydra)
    launcher, sweeper = (given.get(f"hydra/{kind}", "basic") for kind in ("launcher", "sweeper"))
    for name, kind in ((launcher, "launcher"), (sweeper, "sweeper")):
        if name in ("joblib", "optuna") and not _installed(f"hydra_{name}_{kind}"):
            raise SettingsError(f"hydra/{kind}={name} needs the package hydra-{name}-{kind}: {_EXTRA}.")
    extra: list[str] = []
    side_by_side = 1
    if launcher == "joblib":
        side_by_side = _side_by_side(given, settings)
        extra.append(f"hydra.launcher.n_jobs={side_by_side}")
    jobs: int | None = swept.jobs if sweeper == "basic" else None
    if sweeper == "optuna":
        if "seed" in swept.keys:
            raise SettingsError(
                "hydra/sweeper=optuna would look for the luckiest seed: give it one seed, and sweep over seeds once "
                "the other settings are chosen."
            )
        extra += _search(given, settings, side_by_side)
        trials = given.get("hydra.sweeper.n_trials", str(_DEFAULT_TRIALS))
        jobs = int(trials) if trials.isdigit() else None
    told = tuple(item for item in extra if item.partition("=")[0] not in given)
    return Plan(launcher, sweeper, told, jobs, swept.keys)


def _installed(plugin: str) -> bool:
    try:
        return importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:
        return False


def _side_by_side(given: dict[str, str], settings: list[Settings]) -> int:
    """Return how many jobs run at a time: as many as the cores can bear, if the user does not say."""
    from joblib import cpu_count

    if any(isinstance(one.runtime, FlowerRuntime) for one in settings):
        raise SettingsError(
            "hydra/launcher=joblib cannot run jobs of runtime=flower side by side, for Ray shares out the cores by "
            "itself: leave the launcher out, or take runtime=inline."
        )
    cores = int(cpu_count())
    asked = given.get("hydra.launcher.n_jobs")
    workers = max(one.runtime.workers or cores for one in settings if isinstance(one.runtime, InlineRuntime))
    if asked is None:
        return max(1, cores // (workers * max(one.runtime.threads for one in settings)))
    if asked != "-1" and not (asked.isdigit() and int(asked) >= 1):
        raise SettingsError(f"hydra.launcher.n_jobs must be at least 1, or -1 for all cores, not '{asked}'.")
    jobs = cores if asked == "-1" else int(asked)
    if workers > 1 and jobs > 1 and jobs * workers > cores:
        raise SettingsError(
            f"{jobs} jobs side by side with runtime.workers of {workers} are more processes than the {cores} cores of "
            "this machine: leave hydra.launcher.n_jobs out, or take runtime.workers=1, which serves a sweep best."
        )
    return jobs


def _search(given: dict[str, str], settings: list[Settings], side_by_side: int) -> list[str]:
    """Tell Optuna what to look for, after making sure that there is something to look at."""
    for one in settings:
        if not one.data.validation_fraction:
            raise SettingsError(
                "hydra/sweeper=optuna chooses by the score on validation rows, and there are none: add "
                "data.validation_fraction=0.2."
            )
        if not one.strategy.fraction_evaluate:
            raise SettingsError(
                "hydra/sweeper=optuna chooses by the score on validation rows, and strategy.fraction_evaluate=0 asks "
                "no silo to score: raise it."
            )
    if given.get("hydra.sweeper.direction", "maximize") != "maximize":
        raise SettingsError(
            "hydra.sweeper.direction must be maximize: what Quire hands to Optuna is better if greater."
        )
    extra = ["hydra.sweeper.direction=maximize", f"hydra.sweeper.n_jobs={side_by_side}"]
    if given.get("hydra/sweeper/sampler") != "grid":
        extra.append(f"hydra.sweeper.sampler.seed={settings[0].seed}")
    return extra
