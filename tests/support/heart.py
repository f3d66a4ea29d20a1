"""Four hospitals with the rows that they have in ``shared/data``, provisioned from nothing by the command line.

Where those rows are not beside the checkout, each hospital gets made-up ones in the same form, and a warning says so.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from running import ROOT, Running

RAW = ROOT.parent / "shared" / "data" / "heart_disease"
#: Rows of each hospital, as the data set's published description has them: the declared records.
RECORDS = {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200}
HOSPITALS = tuple(RECORDS)
#: The one whose requests are recorded, and whose packets are sniffed.
WATCHED = "switzerland"
#: A machine on the same network, and no member's.
STRANGER = "stranger"
RECIPE = ROOT / "recipes" / "heart_disease"
#: The one whose identity has a passphrase.
SECRETIVE = "va"
WORDS = "four hospitals and a kettle"
LIMITS = "modes: [record_distributed], aggregation: [secure], min_cohort: 3, colluders: 1, max_rounds_per_day: 1000"
_PRINT = re.compile(r"^Fingerprint\s+([0-9a-f ]+)$", re.MULTILINE)


def rows(folder: Path) -> Path:
    """Return where the files as published are; made up in ``folder`` if they are not here."""
    if RAW.is_dir():
        return RAW
    warnings.warn(f"{RAW.name} is not beside this checkout: the hospitals' rows are made up", stacklevel=2)
    folder.mkdir(parents=True)
    for place, (name, count) in enumerate(RECORDS.items()):
        rng = np.random.default_rng(place)
        sick = rng.integers(0, 2, count)
        lines = [
            f"{rng.integers(30, 75)},{rng.integers(0, 2)},{rng.integers(1, 5)},{rng.integers(95, 190)},"
            f"{rng.integers(0, 2) * 220},{rng.integers(0, 2)},{rng.integers(0, 3)},{rng.integers(90, 190) - 30 * one},"
            f"{one},{rng.integers(0, 5)},?,?,?,{one}"
            for one in sick
        ]
        (folder / f"processed.{name}.data").write_text("\n".join(lines) + "\n")
    return folder


def lay_out(folder: Path) -> Path:
    """Write the folder that a simulation over the four hospitals reads; no policy, each with its declared records."""
    runpy.run_path(str(RECIPE / "prepare.py"))["main"](rows(folder / "raw"), folder)
    for name, records in RECORDS.items():
        with (folder / f"{name}.yaml").open("a") as file:
            file.write(f"population: {{name: {name}, records: {records}}}\n")
    return folder


def write_silo(folder: Path, name: str, more: str, population: str = "") -> None:
    """Write a hospital's ``silo.yaml`` over its own rows: the recipe's words about them, and a policy.

    Parameters
    ----------
    folder : pathlib.Path
        The silo's, which has joined.
    name : str
    more : str
        Of the policy, beyond :data:`LIMITS`.
    population : str
        Whom the ledger counts; the hospital's name if it is empty.
    """
    file = folder / "silo.yaml"
    (pinned,) = [line for line in file.read_text().splitlines() if line.startswith("roster: ")]
    file.write_text(
        runpy.run_path(str(RECIPE / "prepare.py"))["SILO"].format(name=name)
        + f"population: {{name: {population or name}, records: {RECORDS[name]}}}\n"
        f"identity: identity/silo.key\nstore: store\nwitness: ../{name}.witness\n{pinned}\n"
        f"policy: {{{LIMITS}, {more}}}\n"
    )


def provision(running: Running, server: str) -> None:
    """Found a consortium and bring four hospitals into it, as people would: each command where its person sits.

    Fingerprints are taken from what one side's command shows and given to the other's.
    """
    home, operator = running.home, running.folders["server"]
    words = home / "words"
    words.write_text(WORDS)
    words.chmod(0o600)
    opening = ("--passphrase-file", words)
    said = running.good("consortium", "init", operator, "--name", "hearts", "--server", server, *opening)
    admin = _read_out(said)
    for name in HOSPITALS:
        folder = running.folders[name]
        own = opening if name == SECRETIVE else ()
        running.good("consortium", "invite", operator, name, *opening)
        asked = running.good(
            *("consortium", "request", operator / "invitations" / f"{name}.json", "--folder", folder),
            *("--fingerprint", admin, "--records", str(RECORDS[name]), *own),
            at=name,
        )
        answer = ("consortium", "admit", operator, folder / "request.json", "--fingerprint", _read_out(asked))
        running.good(*answer, *opening)
        running.good("consortium", "join", operator / "members" / name / "admission.json", "--folder", folder, at=name)
        shutil.copy(RECIPE / "schema.yaml", folder / "schema.yaml")
    raw = rows(home / "raw")
    for name in HOSPITALS:
        running.good("consortium", "join", operator / "bulletin.json", "--folder", running.folders[name], at=name)
        shutil.copyfile(raw / f"processed.{name}.data", running.folders[name] / f"processed.{name}.data")
    shutil.copy(RECIPE / "schema.yaml", operator / "schema.yaml")
    running.own[SECRETIVE] = {"QUIRE_PASSPHRASE_FILE": str(words)}


def bundle_of(running: Running) -> Path:
    """Write what the operator's installation ships."""
    place = running.home / "quire.fab"
    running.good("submit", running.folders["server"], "--bundle", place)
    return place


def charges(folder: Path, population: str) -> list[dict[str, Any]]:
    """Return the charges in a hospital's ledger, read from its file."""
    file = folder / "store" / "ledger" / f"{population}.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [entry for entry in map(json.loads, lines) if entry["kind"] == "charge"]


def _read_out(said: str) -> str:
    found = _PRINT.search(said)
    assert found is not None, said
    return found.group(1)
