"""The network of Opacus' MNIST example, as a plug-in: for ``privacy_mnist.py``.

Two convolutions and two dense layers, 26,010 parameters, as in Opacus' ``examples/mnist.py`` and in the tutorial of
TensorFlow Privacy before it; but tanh in the place of ReLU (Papernot et al. 2021, arXiv 2007.14191): clipped gradients
and noise hurt less where activations are bounded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness  # noqa: F401 - a checkout that is not installed becomes importable

from quire.clients.tasks.models import ImageForm, Model

NAME = "opacus-example"


def build(inputs: int, outputs: int, image: ImageForm | None) -> Any:
    """Build the network for images of 28 x 28 points."""
    from torch import nn

    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 8, 2, padding=3),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, 2),
        nn.Tanh(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.Tanh(),
        nn.Linear(32, outputs),
    )


network = Model(NAME, build)


def install(site: Path) -> None:
    """Lay the plug-in out in a folder as pip would; the folder has to be on the path, as this file is."""
    info = site / f"{__name__}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {__name__}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[quire.models]\n{NAME} = {__name__}:network\n", encoding="utf-8")
