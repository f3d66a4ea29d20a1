"""``quire run``: Hydra's command line around :func:`quire.simulation.launch.launch`.

Hydra keeps its whole syntax: ``-m`` sweeps, ``hydra.run.dir=...``, ``--cfg job``. The task's own overrides are
checked by our own ``compose`` first, so that a mistake is answered with a sentence before Hydra makes a folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

from quire.conf.compose import compose
from quire.errors import Interrupted, QuireError, SettingsError
from quire.simulation.launch import check_folder, launch

_CONF_DIR = Path(__file__).resolve().parent.parent / "conf"
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
    flags, hydra, overrides = _sorted_out(args)
    sweep = "-m" in flags or "--multirun" in flags
    for combination in _combinations(overrides) if sweep else [overrides]:
        compose(" ".join(combination))
    for setting in hydra:
        key, _, value = setting.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir"):
            check_folder(Path(value.strip("'\"")))
    return _Jobs(sweep).run([*flags, *hydra, *overrides])


class _Jobs:
    """Runs the jobs that Hydra asks for, and remembers how they ended."""

    def __init__(self, sweep: bool) -> None:
        self._sweep = sweep
        self._statuses: list[int] = []
        self._console = Console()

    def run(self, args: list[str]) -> int:
        import hydra
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException

        main = hydra.main(version_base="1.3", config_path=str(_CONF_DIR), config_name="config")(self._job)
        before, sys.argv = sys.argv, ["quire run", *args]
        os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to us, instead of printing a traceback
        try:
            main()
        except (HydraException, OmegaConfBaseException) as error:
            raise SettingsError(
                f"Hydra cannot use these arguments: {str(error).splitlines()[0].rstrip('.')}."
            ) from error
        except OSError as error:
            raise SettingsError(
                f"The run folder cannot be written ({error.strerror}: {error.filename}): choose another with "
                "hydra.run.dir=FOLDER."
            ) from error
        finally:
            sys.argv = before
        failed = [status for status in self._statuses if status]
        if self._sweep and failed:
            sys.stderr.write(f"quire: {len(failed)} of {len(self._statuses)} jobs failed.\n")
        return failed[0] if failed else 0

    def _job(self, _: object) -> None:
        from hydra.core.hydra_config import HydraConfig

        config = HydraConfig.get()
        overrides = " ".join(_quoted(item) for item in config.overrides.task)
        if self._sweep:
            self._console.rule(f"job {config.job.num}: {overrides or 'defaults'}", align="left")
        try:
            launch(compose(overrides), Path(config.runtime.output_dir), self._console)
        except (QuireError, KeyboardInterrupt) as error:
            interrupted = isinstance(error, (Interrupted, KeyboardInterrupt))
            sys.stderr.write(f"quire: {str(error) or 'interrupted.'}\n")
            self._statuses.append(error.exit_code if isinstance(error, QuireError) else Interrupted.exit_code)
            if interrupted:
                raise SystemExit(Interrupted.exit_code) from None
        else:
            self._statuses.append(0)


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
            overrides.append(_quoted(arg))
    return flags, hydra, overrides


def _quoted(override: str) -> str:
    """Put quotes around a value with white space, which the shell has taken off."""
    key, _, value = override.partition("=")
    if any(char.isspace() for char in value) and value[:1] not in ("'", '"', "["):
        return f"{key}='{value}'"
    return override


def _combinations(overrides: list[str]) -> list[list[str]]:
    """Return combinations of a sweep that together show every swept value once."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        swept = [
            [f"{item.get_key_element()}={value}" for value in item.sweep_string_iterator()]
            if item.is_sweep_override() and item.is_discrete_sweep()
            else [str(item.input_line)]
            for item in parsed
        ]
    except HydraException as error:
        raise SettingsError(f"The sweep cannot be read: {str(error).splitlines()[0].rstrip('.')}.") from error
    return [
        [values[min(place, len(values) - 1)] for values in swept] for place in range(max(map(len, swept), default=1))
    ]
