"""Lay out the four hospitals of UCI Heart Disease: ``python prepare.py RAW_FOLDER OUT_FOLDER``.

RAW_FOLDER holds the four files ``processed.*.data`` as their authors published them; OUT_FOLDER receives
``schema.yaml``, one YAML file for each hospital, and a copy of its rows. Nothing in the rows is changed: that ``?``
and a cholesterol or blood pressure of 0 mean "missing" is said in the hospitals' files.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
HERE = Path(__file__).resolve().parent

SILO = """\
name: {name}
data:
  connector: csv
  path: processed.{name}.data
  names: [age, sex, cp, trestbps, chol, fbs, restecg, thalach, exang, oldpeak, slope, ca, thal, num]
  missing: ["?"]
  missing_in: {{chol: [0], trestbps: [0]}}
"""


def main(raw: Path, out: Path) -> None:
    """Write the silos' folder."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "schema.yaml", out / "schema.yaml")
    for name in HOSPITALS:
        shutil.copyfile(raw / f"processed.{name}.data", out / f"processed.{name}.data")
        (out / f"{name}.yaml").write_text(SILO.format(name=name), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python prepare.py RAW_FOLDER OUT_FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
