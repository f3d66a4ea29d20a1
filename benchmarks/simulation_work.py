"""The work that all contenders of ``simulation.py`` do, and the bare loop, the plainest way to do it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

BATCH, LR = 20, 0.1


def mlp() -> nn.Module:
    """About 100,000 parameters."""
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn() -> nn.Module:
    """About 1.2 million parameters: the layers of ``task.model=cnn`` with ``task.hidden=[768]`` on 28 x 28."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 28, 28))]
    for channels, wide in ((1, 16), (16, 32)):
        layers += [nn.Conv2d(channels, wide, 5, padding=2), nn.GroupNorm(4, wide), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1568, 768), nn.ReLU(), nn.Linear(768, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "cnn": cnn}


@dataclass
class Measured:
    """What a run of some rounds did."""

    seconds: float
    steps: int
    loss: float


def bare_loop(
    data: Sequence[tuple[Any, Any]], cohorts: Sequence[Sequence[int]], build: Callable[[], nn.Module] = mlp
) -> Measured:
    """Train by federated averaging in the plainest way: one model, one optimiser, one silo after another."""
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    started = time.perf_counter()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps, loss_sum, rows = 0, 0.0, 0
    for cohort in cohorts:
        total = sum(len(data[silo][1]) for silo in cohort)
        average = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        loss_sum, rows = 0.0, 0
        for silo in cohort:
            x, y = data[silo]
            model.load_state_dict(weights)
            order = torch.randperm(len(y))
            for start in range(0, len(y), BATCH):
                batch = order[start : start + BATCH]
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
                loss.backward()
                optimizer.step()
                steps += 1
                loss_sum += loss.item() * len(batch)
            rows += len(y)
            for name, tensor in model.state_dict().items():
                average[name] += tensor * (len(y) / total)
        weights = average
    return Measured(time.perf_counter() - started, steps, loss_sum / rows)
