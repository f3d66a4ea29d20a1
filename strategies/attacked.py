"""A run that is attacked on purpose says so, and only the simulation that carries the attack out can have one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from flwr.serverapp import Grid

from quire.conf.asked import attack_on
from quire.conf.schema import Attack, Settings
from quire.errors import RunFailed
from quire.strategies.secure_words import about_masks
from quire.strategies.told import settings_told


class Holds(Protocol):
    """Keeps what a run began with, and refuses to go on where it has become something else."""

    def hold_to(self, what: str, value: Any) -> None:
        """Note it, or refuse."""


@runtime_checkable
class Attacks(Protocol):
    """A grid that carries an attack out."""

    def about(self) -> dict[str, Any]:
        """Return the attack's name, and who colludes."""


def about_run(settings: Settings) -> dict[str, Any]:
    """Return what ``run.json`` says of a run that is not what its numbers look like: no masks, or an attack on it."""
    attack = settings.attack
    if not isinstance(attack, Attack):
        return about_masks(settings)
    words = f"This run was attacked on purpose: a simulation of attack={attack.name}. Its model is no result."
    return {**about_masks(settings), "attacked": {"words": words, **dataclasses.asdict(attack)}}


def attack_told(folder: Path, about: Mapping[str, Any]) -> str:
    """Return the attack that a run's folder tells of, by its settings or by ``run.json``; empty where by neither.

    Parameters
    ----------
    folder : pathlib.Path
    about : mapping
        Its ``run.json``.
    """
    return attack_on(settings_told(folder)) or ("" if about.get("attacked") is None else "unknown")


def check_attack(settings: Settings, grid: Grid, simulated: bool) -> None:
    """Refuse an attack that nobody here carries out, and the vote of silos on one another where they are real ones.

    Raises
    ------
    RunFailed
    """
    attack = settings.attack
    found = grid.about() if isinstance(grid, Attacks) else {}
    if isinstance(attack, Attack) and found.get("name") != attack.name:
        raise RunFailed(
            f"attack={attack.name} is for the in-process simulation (`quire run`), which alone carries attacks out, "
            "and real silos refuse it: leave it out here."
        )
    if not simulated and getattr(settings.suspicion, "vote", False):
        raise RunFailed(
            "suspicion.vote=true has silos score models beyond those that their policies count, so it is for "
            "simulations: leave it out here."
        )


def note_attack(grid: Grid, folder: Holds) -> None:
    """Write down who attacks, if anybody does.

    Raises
    ------
    RunFailed
        If a resumed run had other colluders.
    """
    if isinstance(grid, Attacks):
        folder.hold_to("attack", grid.about())
