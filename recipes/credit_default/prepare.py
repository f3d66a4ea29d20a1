"""Lay out banks from UCI Default of Credit Card Clients: ``python prepare.py RAW_FOLDER OUT_FOLDER [--by COLUMN]``.

RAW_FOLDER holds ``UCI_Credit_Card.csv.gz``. Its rows are dealt out over five banks at random (seed 1), or with
``--by EDUCATION`` (or SEX, MARRIAGE) to one bank for each value that has at least a hundred rows, the rest to the last.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
BANKS, FEWEST, SEED = 5, 100, 1

SILO = """\
name: bank-{number}
data:
  connector: csv
  path: bank-{number}.csv
"""


def main(raw: Path, out: Path, by: str | None = None) -> None:
    """Write the silos' folder."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "schema.yaml", out / "schema.yaml")
    rows = pd.read_csv(raw / "UCI_Credit_Card.csv.gz")
    if by is None:
        bank = np.random.default_rng(SEED).permutation(np.arange(len(rows)) % BANKS)
    else:
        counts = rows[by].value_counts()
        large = sorted(counts.index[counts >= FEWEST])
        bank = rows[by].map({value: place for place, value in enumerate(large)}).fillna(len(large) - 1).to_numpy()
    for place in sorted(set(bank.astype(int))):
        rows[bank == place].to_csv(out / f"bank-{place + 1}.csv", index=False)
        (out / f"bank-{place + 1}.yaml").write_text(SILO.format(number=place + 1), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path, metavar="RAW_FOLDER")
    parser.add_argument("out", type=Path, metavar="OUT_FOLDER")
    parser.add_argument("--by", metavar="COLUMN")
    given = parser.parse_args()
    main(given.raw, given.out, given.by)
