"""``quire selftest noise``: rounds of nothing but noise on this machine, and what their opened sums show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quire.conf.compose import compose
from quire.conf.overrides import parse
from quire.conf.schema import Settings
from quire.errors import SettingsError
from quire.privacy.dp.selftest import Selftest as Selftest
from quire.simulation.launch import check_folder, log_file, run_at_door
from quire.simulation.promise import judge_anew

#: Rounds, unless said otherwise.
ROUNDS = 3
#: What is set where the user does not set it.
_DEFAULTS = ("privacy=record_distributed", "aggregation=secure", "strategy.fraction_evaluate=0")


def settings_of(overrides: Sequence[str]) -> Settings:
    """Compose the settings of a self-test: those of the run whose noise it is, with rounds of noise in its place.

    Parameters
    ----------
    overrides : sequence of str
        As for ``quire run``. What makes no self-test is added where it is not set.

    Raises
    ------
    SettingsError
        If they are refused, or have no noise that silos share.
    """
    given = {item.key: item.value for item in parse(" ".join(overrides))}
    told = [*overrides, *(one for one in _DEFAULTS if one.partition("=")[0] not in given)]
    shared = str(given.get("privacy", "record_distributed")).endswith("_distributed")
    if not shared or given.get("privacy.selftest") == 0:
        raise SettingsError(
            "A self-test is of noise that silos share: take privacy=record_distributed or privacy=silo_distributed, "
            "and leave privacy.selftest out or above 0."
        )
    if "privacy.selftest" not in given:
        planned = compose(" ".join([*told, "privacy.selftest=1"])).strategy.rounds
        told.append(f"privacy.selftest={min(ROUNDS, planned)}")
    return compose(" ".join(told))


def run_selftest(settings: Settings, folder: Path) -> Selftest:
    """Run a self-test through the door that the settings name, and judge it.

    Parameters
    ----------
    settings : Settings
        From :func:`settings_of`.
    folder : pathlib.Path
        The run folder; must not hold a run.

    Raises
    ------
    QuireError
        If the run had to stop.
    NotAsPromised
        If its silos agreed on another noise than its settings ask for.
    """
    check_folder(folder)
    with log_file(folder / "run.log"):
        run_at_door(settings, folder)
    return judge_anew(folder)
