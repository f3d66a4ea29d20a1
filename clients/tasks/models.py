"""Models by name, their first parameters drawn from an explicit generator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from quire.errors import DataError

ImageForm = tuple[int, int, int]


@dataclass(frozen=True)
class Model:
    """A model of one's own: what a plug-in in the group ``quire.models`` leads to.

    Attributes
    ----------
    name : str
        Also the name of the entry point.
    build : callable
        From the number of features, of outputs, and the form of an image (None for columns) to a ``torch.nn.Module``
        of linear, convolutional and GroupNorm or LayerNorm layers. Rows of images come flattened.
    """

    name: str
    build: Callable[[int, int, ImageForm | None], nn.Module]


_CHANNELS = (16, 32)
_GROUPS = 4


def build(
    name: str,
    inputs: int,
    hidden: tuple[int, ...],
    outputs: int,
    image: ImageForm | None = None,
    plugin: Model | None = None,
) -> nn.Module:
    """Build a model.

    Parameters
    ----------
    name : str
        ``logistic`` or ``linear`` (one linear layer), ``mlp``, ``cnn``, ``plugin``.
    inputs : int
        Features of a row.
    hidden : tuple of int
        Widths of hidden layers: all of an mlp, the dense ones after the convolutions of a cnn.
    outputs : int
    image : tuple of int, optional
        Channels, height and width of an image, whose rows are flattened; a cnn needs it.

    plugin : Model, optional
        A model of one's own.

    Returns
    -------
    torch.nn.Module
        Its parameters are not initialised: they come from the server.

    Raises
    ------
    ValueError
        If a cnn is asked for where there are no images.
    """
    if plugin is not None:
        return plugin.build(inputs, outputs, image)
    if name == "cnn":
        if image is None:
            raise ValueError("a cnn needs images")
        return cnn(image, hidden, outputs)
    return mlp(inputs, hidden if name == "mlp" else (), outputs)


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Build a multi-layer perceptron with ReLU; without hidden layers it is a linear model.

    The parameters are not initialised: they come from the server.
    """
    return nn.Sequential(*_dense(inputs, hidden, outputs))


def cnn(image: ImageForm, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Build a small convolutional network: two convolutions of 5 x 5, each with GroupNorm, ReLU and pooling.

    GroupNorm (Wu & He 2018, arXiv 1803.08494) in the place of BatchNorm: it keeps no running statistics of a silo's
    rows, and no row has a say in how another one is seen.
    """
    channels, height, width = image
    layers: list[nn.Module] = [nn.Unflatten(1, image)]
    for wide in _CHANNELS:
        layers += [
            _undrawn(nn.Conv2d(channels, wide, 5, padding=2, device="meta")),
            nn.GroupNorm(_GROUPS, wide),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
        ]
        channels, height, width = wide, math.ceil(height / 2), math.ceil(width / 2)
    layers += [nn.Flatten(), *_dense(channels * height * width, hidden, outputs)]
    return nn.Sequential(*layers)


def _dense(inputs: int, hidden: tuple[int, ...], outputs: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for place, (fan_in, fan_out) in enumerate(itertools.pairwise((inputs, *hidden, outputs))):
        if place:
            layers.append(nn.ReLU())
        layers.append(_undrawn(nn.Linear(fan_in, fan_out, device="meta")))
    return layers


def _undrawn(layer: nn.Module) -> nn.Module:
    """Give a layer without storage parameters that are not drawn.

    As ``torch.nn.utils.skip_init``, which comes to it by way of modules that take half a second to import, in the
    process of every message that trains.
    """
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, nn.Parameter(torch.empty(parameter.shape)))
    return layer


def initial_arrays(model: nn.Module, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw parameters as torch does by default: uniform in +-1/sqrt(fan_in), for weights and biases alike.

    A normalisation begins as the identity. Torch's own initialisation draws from its global generator; this one draws
    from ``rng``, so that nothing else that uses random numbers can change the first model.

    Raises
    ------
    DataError
        If the model has parameters in a layer of another kind, or buffers: what is in those would depend on the rows
        that a silo happens to see. Or a layer that behaves otherwise in training than in scoring, such as dropout.
    """
    arrays: dict[str, np.ndarray] = {}
    two_faced = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase, nn.RReLU)
    for name, module in model.named_modules():
        if isinstance(module, two_faced):
            raise DataError(
                f"The model cannot be trained here: its layer '{name}' ({type(module).__name__}) does not do the same "
                "in training and in scoring; GroupNorm and weight decay are the usual ways without it."
            )
    for prefix, module in model.named_modules():
        own = dict(module.named_parameters(prefix=prefix, recurse=False))
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            arrays |= {
                name: np.full(tuple(parameter.shape), float(name.endswith("weight")), np.float32)
                for name, parameter in own.items()
            }
        elif isinstance(module, nn.Linear | nn.Conv2d):
            bound = 1.0 / np.sqrt(np.prod(module.weight.shape[1:]))
            arrays |= {
                name: rng.uniform(-bound, bound, tuple(parameter.shape)).astype(np.float32)
                for name, parameter in own.items()
            }
    missing = [name for name in model.state_dict() if name not in arrays]
    if missing:
        raise DataError(f"The model cannot be trained here: there is no rule for the first value of '{missing[0]}'.")
    return {name: arrays[name] for name in model.state_dict()}
