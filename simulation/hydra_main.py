"""Hydra's own command line, called from inside: its errors become sentences, its traces do not show."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quire.errors import SettingsError

_CONF_DIR = Path(__file__).resolve().parent.parent / "conf"


def call_hydra(args: list[str], job: Callable[[Any], Any]) -> None:
    """Have Hydra run a job, or several, as the arguments say.

    Parameters
    ----------
    args : list of str
        Flags and overrides, as on the command line.
    job : callable
        Called for each job, inside its Hydra configuration. To run in other processes it must be importable.

    Raises
    ------
    SettingsError
        If Hydra refuses the arguments, or the output folder cannot be written.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    main = hydra.main(version_base="1.3", config_path=str(_CONF_DIR), config_name="config")(job)
    before, sys.argv = sys.argv, ["quire run", *args]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to us, instead of printing a traceback
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(f"Hydra cannot use these arguments: {str(error).splitlines()[0].rstrip('.')}.") from error
    except ValueError as error:  # of two flags that exclude each other
        if not str(error).startswith("Only one of --run"):
            raise
        raise SettingsError(f"Hydra cannot use these arguments: {str(error).rstrip('.')}.") from error
    except OSError as error:
        raise SettingsError(
            f"The run folder cannot be written ({error.strerror}: {error.filename}): choose another with "
            "hydra.run.dir=FOLDER."
        ) from error
    finally:
        sys.argv = before


def quoted(override: str) -> str:
    """Put quotes around a value with white space, which the shell has taken off."""
    key, _, value = override.partition("=")
    if any(char.isspace() for char in value) and value[:1] not in ("'", '"', "["):
        return f"{key}='{value}'"
    return override
