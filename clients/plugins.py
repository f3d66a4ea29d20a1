"""What a silo's operator has installed beside Quire: found by entry point, used only if approved by name.

A plug-in is a Python package with an entry point in the group ``quire.connectors``, ``quire.models`` or
``quire.tasks``. Installing it is one half of the approval, naming it in the ``plugins:`` of ``silo.yaml`` the other;
where there is no such file, at the server and in a simulation, the environment names them (``QUIRE_PLUGINS=a,b``).
Settings can choose among what is approved; they can never bring code.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import entry_points
from typing import TypeVar

from quire.errors import DataError

Kind = TypeVar("Kind")

CONNECTORS, MODELS, TASKS = "quire.connectors", "quire.models", "quire.tasks"
#: Names what is approved where there is no silo.yaml, with commas between.
PLUGINS_VARIABLE = "QUIRE_PLUGINS"


def load_plugin(group: str, name: str, kind: type[Kind], approved: Collection[str]) -> Kind:
    """Load the plug-in of this name.

    Parameters
    ----------
    group : str
        Of the entry point.
    name : str
        Of the entry point, and of what it loads.
    kind : type
        What it must be an instance of.
    approved : collection of str
        Names that the operator approves.

    Raises
    ------
    DataError
        If it is not approved, not installed, installed twice, cannot be loaded, is of another kind, or calls itself
        by another name.
    """
    what = f"The plug-in '{name}' ({group})"
    if name not in approved:
        raise DataError(
            f"{what} is not approved: the operator adds it to 'plugins' in silo.yaml, at a server to QUIRE_PLUGINS."
        )
    found = list({entry.value: entry for entry in entry_points(group=group, name=name)}.values())
    if not found:
        raise DataError(f"{what} is not installed here.")
    if len(found) > 1:
        raise DataError(f"{what} is installed by more than one package: remove all but one.")
    try:
        loaded = found[0].load()
    except Exception as error:
        raise DataError(f"{what} cannot be loaded ({type(error).__name__}).") from error
    if not isinstance(loaded, kind):
        raise DataError(f"{what} is not a {kind.__name__}.")
    called = getattr(loaded, "name", None)
    if called != name:
        raise DataError(
            f"{what} calls itself '{str(called)[:60]}': a plug-in must bear the name it is installed under."
        )
    return loaded
