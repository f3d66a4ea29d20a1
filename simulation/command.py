"""``quire run``: Hydra's command line around :func:`quire.simulation.launch.launch`.

Hydra keeps its whole syntax: ``-m`` sweeps, ``hydra.run.dir=...``, ``--cfg job``. The task's own overrides are
checked by our own ``compose`` first, so that a mistake is answered with a sentence before Hydra makes a folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

from quire.conf.compose import compose
from quire.errors import Interrupted, QuireError, SettingsError
from quire.simulation.hydra_main import call_hydra, quoted
from quire.simulation.launch import check_folder, launch
from quire.simulation.resume import is_resume, resume_command
from quire.simulation.silos import take_silos
from quire.simulation.sweep import check_sweep_folder, run_sweep
from quire.simulation.sweep_plan import Swept, check_search, for_hydra, plan, take_apart
from quire.simulation.tracking import check_tracker

_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i")


def run_command(args: list[str]) -> int:
    """Run, or sweep, as the arguments say.

    Parameters
    ----------
    args : list of str
        Overrides and Hydra's own flags.

    Returns
    -------
    int
        The exit status: 0 when all went well, else that of the first error.

    Raises
    ------
    QuireError
        If the arguments are refused before anything is started.
    """
    written, args = args, take_silos(args)
    if is_resume(args):
        return resume_command(args)
    flags, hydra, overrides = _sorted_out(args)
    sweep = "-m" in flags or "--multirun" in flags or "hydra.mode=MULTIRUN" in hydra
    swept = take_apart(overrides) if sweep else Swept([overrides], 1, (), ())
    if sweep and swept.intervals:
        check_search(hydra, swept)
    settings = [compose(" ".join(combination)) for combination in swept.combinations]
    for one in settings:
        check_tracker(one)
        if sweep and one.selftest:
            raise SettingsError("A self-test of the noise has no scores to sweep over: leave out privacy.selftest.")
    for setting in hydra:
        key, _, value = setting.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir"):
            check_folder(Path(value.strip("'\"")))
        if key == "hydra.sweep.dir":
            check_sweep_folder(Path(value.strip("'\"")))
    if not sweep:
        return _run_one([*flags, *hydra, *overrides])
    told = [*flags, *hydra, *for_hydra(overrides, swept)]
    return run_sweep(told, written, plan(hydra, swept, settings), settings)


def _run_one(args: list[str]) -> int:
    status = 0

    def job(_: object) -> None:
        nonlocal status
        config = HydraConfig.get()
        try:
            launch(compose(" ".join(quoted(item) for item in config.overrides.task)), Path(config.runtime.output_dir))
        except (QuireError, KeyboardInterrupt) as error:
            sys.stderr.write(f"quire: {str(error) or 'interrupted.'}\n")
            status = error.exit_code if isinstance(error, QuireError) else Interrupted.exit_code

    from hydra.core.hydra_config import HydraConfig

    call_hydra(args, job)
    return status


def _sorted_out(args: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Tell Hydra's flags, Hydra's own settings and the task's overrides apart."""
    flags: list[str] = []
    hydra: list[str] = []
    overrides: list[str] = []
    rest = iter(args)
    for arg in rest:
        if arg.startswith("-"):
            flags.append(arg)
            if arg in _FLAGS_WITH_VALUE:
                flags.append(next(rest, ""))
        elif arg.split("=")[0].split(".")[0].split("/")[0].lstrip("+~") == "hydra":
            hydra.append(arg)
        elif "=" not in arg:
            raise SettingsError(f"'{arg}' is not an override: write key=value, as in task=breast_cancer.")
        else:
            overrides.append(quoted(arg))
    return flags, hydra, overrides
