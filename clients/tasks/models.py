"""Models by name, their first parameters drawn from an explicit generator."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import nn


def mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Build a multi-layer perceptron with ReLU; without hidden layers it is a linear model.

    The parameters are not initialised: they come from the server.
    """
    widths = (inputs, *hidden, outputs)
    layers: list[nn.Module] = []
    for place, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        if place:
            layers.append(nn.ReLU())
        layers.append(torch.nn.utils.skip_init(nn.Linear, fan_in, fan_out))  # type: ignore[no-untyped-call]
    return nn.Sequential(*layers)


def initial_arrays(model: nn.Module, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw parameters as torch does by default: uniform in +-1/sqrt(fan_in), for weights and biases alike.

    Torch's own initialisation draws from its global generator; this one draws from ``rng``, so that nothing else
    that uses random numbers can change the first model.
    """
    arrays: dict[str, np.ndarray] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Linear):
            bound = 1.0 / np.sqrt(module.in_features)
            for name, parameter in module.named_parameters(prefix=prefix):
                arrays[name] = rng.uniform(-bound, bound, tuple(parameter.shape)).astype(np.float32)
    return {name: arrays[name] for name in model.state_dict()}
