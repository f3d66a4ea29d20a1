"""Lay out post offices from MNIST: ``python prepare.py RAW_FOLDER OUT_FOLDER [--silos 10] [--alpha 0.5] [--seed 1]``.

RAW_FOLDER holds the four original files, gzipped. The 60,000 training images are shared out by a Dirichlet draw over
the classes (``--alpha 0``: at random), the 10,000 test images at random in equal parts: the mean accuracy over the
silos, weighted by rows, is that on the original test set. ``--rows N`` keeps the first N training images only.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np

from quire.clients.data.connectors.idx import read_idx, write_idx
from quire.clients.data.partition import partition
from quire.conf.schema import DirichletPartition, IidPartition

HERE = Path(__file__).resolve().parent

SILO = """\
name: office-{number}
data: {{connector: idx, images: office-{number}-train-images, labels: office-{number}-train-labels}}
test: {{connector: idx, images: office-{number}-test-images, labels: office-{number}-test-labels}}
"""


def main(raw: Path, out: Path, silos: int = 10, alpha: float = 0.5, seed: int = 1, rows: int | None = None) -> None:
    """Write the silos' folder."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "schema.yaml", out / "schema.yaml")
    for kind, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(raw / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(raw / f"{prefix}-labels-idx1-ubyte.gz")
        if kind == "train":
            images, labels = images[:rows], labels[:rows]
        dirichlet = kind == "train" and alpha > 0
        how = DirichletPartition("dirichlet", silos, alpha, 10) if dirichlet else IidPartition("iid", silos)
        for place, part in enumerate(partition(labels.astype(np.int64), how, seed)):
            write_idx(out / f"office-{place + 1}-{kind}-images", images[part])
            write_idx(out / f"office-{place + 1}-{kind}-labels", labels[part])
    for number in range(1, silos + 1):
        (out / f"office-{number}.yaml").write_text(SILO.format(number=number), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, metavar="RAW_FOLDER")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    parser.add_argument("--silos", type=int, default=10)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int)
    given = parser.parse_args()
    main(given.raw, given.out, given.silos, given.alpha, given.seed, given.rows)
