"""``quire run resume=FOLDER``: go on with a run that was killed, failed or was interrupted."""

from __future__ import annotations

import sys
from pathlib import Path

from quire.conf.compose import compose
from quire.conf.overrides import parse
from quire.conf.schema import Settings
from quire.errors import QuireError, SettingsError
from quire.simulation.launch import launch
from quire.strategies.folder import read_overrides

KEY = "resume"


def is_resume(args: list[str]) -> bool:
    """Tell whether arguments of ``quire run`` ask to resume a run."""
    return any(arg.split("=")[0] == KEY for arg in args)


def resume_command(args: list[str]) -> int:
    """Resume the run that ``resume=FOLDER`` names; the run ends with the model of one that was never interrupted.

    Parameters
    ----------
    args : list of str
        Overrides may be given again; one that says something else than the run was started with is refused.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    SettingsError
        If the folder holds no run that can go on, or with other arguments than overrides.
    """
    folders = [arg.partition("=")[2] for arg in args if arg.split("=")[0] == KEY]
    others = [arg for arg in args if arg.split("=")[0] != KEY]
    if len(folders) != 1 or not folders[0]:
        raise SettingsError("Name the folder of one run to go on with: quire run resume=FOLDER.")
    for arg in others:
        if arg.startswith("-") or arg.startswith("hydra"):
            raise SettingsError(f"'{arg}' cannot be used with resume=FOLDER: a run goes on where it was, as it was.")
    folder = Path(folders[0].strip("'\""))
    settings = settings_of(folder, others)
    try:
        launch(settings, folder, resume=True)
    except QuireError as error:
        sys.stderr.write(f"quire: {error}\n")
        return error.exit_code
    return 0


def settings_of(folder: Path, args: list[str]) -> Settings:
    """Return the settings with which the run in a folder was started.

    Parameters
    ----------
    folder : pathlib.Path
    args : list of str
        Overrides that were given again.

    Raises
    ------
    SettingsError
        If one of them says something else, or the folder holds no readable settings.
    """
    settings = compose(read_overrides(folder))
    _check_repeated(args, settings, folder)
    return settings


def _check_repeated(args: list[str], settings: Settings, folder: Path) -> None:
    """Refuse overrides that say something else than the run was started with."""
    compose(" ".join(args))
    tree = settings.as_dict()
    for item in parse(" ".join(args)):
        group, _, field = item.key.partition(".")
        known = tree[group]
        if isinstance(known, dict) and (field or "name") not in known:
            raise SettingsError(
                f"The run in '{folder}' was started with {group}={known['name']}, which has no {item.key}: it can only "
                "go on with that."
            )
        value = known[field or "name"] if isinstance(known, dict) else known
        given = list(item.value) if isinstance(item.value, tuple) else item.value
        if given != value:
            raise SettingsError(
                f"The run in '{folder}' was started with {item.key}={value}, not {given}: it can only go on with that."
            )
