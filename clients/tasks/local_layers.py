"""Layers that stay in their silo: they are trained there, and neither sent nor overwritten.

FedBN keeps normalisation layers local (Li et al. 2021, arXiv 2102.07623), FedPer the last ones (Arivazhagan et al.
2019, arXiv 1912.00818). The model that travels lacks them, so that nobody else has anything of them to see.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from quire.conf.schema import Settings
from quire.errors import SettingsError
from quire.privacy.randomness import stream

if TYPE_CHECKING:
    from quire.clients.tasks.base import Task

Arrays = dict[str, np.ndarray]

NORM, HEAD = "norm", "head"


@lru_cache(maxsize=64)
def local_names(task: Task, words: tuple[str, ...]) -> frozenset[str]:
    """Return the names of the parameters that stay in a silo.

    Parameters
    ----------
    task : Task
    words : tuple of str
        ``training.local_layers``: ``norm`` for GroupNorm and LayerNorm, ``head`` for the last layer that has
        parameters, else the name of a parameter (``3.weight``) or of the layer that it is in (``3``).

    Raises
    ------
    SettingsError
        If one of them is nothing that the model has, or nothing is left to share.
    """
    if not words:
        return frozenset()
    from torch import nn

    model = task.build_model()
    layers = {
        name: (module, [key for key, _ in module.named_parameters(prefix=name, recurse=False)])
        for name, module in model.named_modules()
    }
    layers = {name: found for name, found in layers.items() if found[1]}
    parameters = list(model.state_dict())
    chosen: set[str] = set()
    for word in words:
        if word == NORM:
            kinds = (nn.GroupNorm, nn.LayerNorm)
            found = [key for module, keys in layers.values() if isinstance(module, kinds) for key in keys]
        elif word == HEAD:
            found = list(layers.values())[-1][1]
        else:
            found = [key for key in parameters if key == word or key.startswith(f"{word}.")]
        if not found:
            raise SettingsError(
                f"training.local_layers names '{word}', which task.model={getattr(task, 'model', 'plugin')} does not "
                f"have: take {NORM}, {HEAD}, or some of {', '.join(parameters[:12])}."
            )
        chosen.update(found)
    if chosen >= set(parameters):
        raise SettingsError(
            f"training.local_layers={list(words)} keeps every layer of the model in the silos, and leaves nothing "
            "to learn together: name fewer."
        )
    return frozenset(chosen)


def first_model(task: Task, settings: Settings) -> Arrays:
    """Return the first global model, without the layers that stay in the silos."""
    local = local_names(task, settings.training.local_layers)
    first = task.initial_arrays(stream(settings.seed, "model"))
    return {name: array for name, array in first.items() if name not in local}


def joined(task: Task, settings: Settings, model: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]) -> Arrays:
    """Return the global model with a silo's own layers; before its first round, with those of the first model.

    Parameters
    ----------
    task : Task
    settings : Settings
    model : mapping of str to numpy.ndarray
        What travelled.
    own : mapping of str to numpy.ndarray
        What the silo has kept; empty before its first round.

    Raises
    ------
    ValueError
        If the model that travelled has a layer that stays in the silos.
    """
    local = local_names(task, settings.training.local_layers)
    if not local:
        return dict(model)
    if local & set(model):
        raise ValueError("the model that came holds layers that stay in the silos")
    first = {} if local <= set(own) else task.initial_arrays(stream(settings.seed, "model"))
    return {**model, **{name: own[name] if name in own else first[name] for name in sorted(local)}}
