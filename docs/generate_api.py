"""Write ``docs/api.md``: the public names with their signatures, from their docstrings.

``python docs/generate_api.py`` writes the page; ``--check`` only says whether it is up to date.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PAGE = ROOT / "docs" / "api.md"

#: What is documented, by chapter. A class is shown with the public methods that it defines itself.
CHAPTERS: dict[str, list[str]] = {
    "Running": ["quire.simulation.inline.run", "quire.conf.compose.compose", "quire.conf.schema.Settings"],
    "Strategies, for any Flower app": [
        "quire.strategies.strategy.FederatedStrategy",
        "quire.strategies.fedavg.FedAvg",
        "quire.strategies.fedprox.FedProx",
        "quire.strategies.fednova.FedNova",
        "quire.strategies.scaffold.Scaffold",
        "quire.strategies.qfedavg.QFedAvg",
        "quire.strategies.fedopt.FedAvgM",
        "quire.strategies.fedopt.FedAdagrad",
        "quire.strategies.fedopt.FedAdam",
        "quire.strategies.fedopt.FedYogi",
    ],
    "The round core": [
        "quire.strategies.rounds.RoundState",
        "quire.strategies.rounds.Update",
        "quire.strategies.rounds.Algorithm",
        "quire.strategies.rounds.Aggregator",
        "quire.strategies.rounds.advance",
        "quire.strategies.aggregators.PlainMean",
        "quire.strategies.cohort.Roster",
    ],
    "In-process runtime": ["quire.simulation.grid.InlineGrid", "quire.simulation.faults.Fault"],
    "What a silo answers": [
        "quire.clients.contract.Code",
        "quire.clients.arrays.encode",
        "quire.clients.arrays.decode",
    ],
    "Random numbers": [
        "quire.privacy.randomness.stream",
        "quire.privacy.randomness.derive_seed",
        "quire.privacy.randomness.key",
        "quire.privacy.csprng.Csprng",
    ],
    "Noise and encoding": [
        "quire.privacy.dp.discrete_gaussian.sample",
        "quire.privacy.dp.discrete_gaussian.tv_bound",
        "quire.privacy.dp.rounding.clipped_sum",
        "quire.privacy.dp.rounding.delta2_squared",
        "quire.privacy.dp.lattice.Release",
        "quire.privacy.dp.lattice.noisy_sum",
        "quire.privacy.dp.lattice.noisy_sum_gaussian",
        "quire.privacy.dp.encoding.Encoding",
        "quire.privacy.dp.probes.ProbeTest",
    ],
    "Privacy cards": [
        "quire.privacy.receipts.Receipt",
        "quire.strategies.card.run_card",
        "quire.simulation.verify.verify_run",
        "quire.simulation.verify.Verification",
    ],
    "Errors": [
        f"quire.errors.{name}" for name in ("QuireError", "SettingsError", "DataError", "RunFailed", "Interrupted")
    ],
}

_SECTION = re.compile(r"^(?P<title>[A-Z][A-Za-z ]+)\n-{3,}$", re.MULTILINE)


def page() -> str:
    """Return the whole page."""
    parts = [
        "# API reference\n",
        "Generated from the docstrings by `python docs/generate_api.py`; not edited by hand. What `quire` exports can\n"
        "be imported from it directly: `from quire import FedProx`.\n",
    ]
    for chapter, names in CHAPTERS.items():
        parts.append(f"## {chapter}\n")
        parts += [_entry(name) for name in names]
    return "\n".join(parts)


def _entry(name: str) -> str:
    module, _, attribute = name.rpartition(".")
    thing = getattr(import_module(module), attribute)
    parts = [f"### `{name}`\n", _described(attribute, thing)]
    if inspect.isclass(thing):
        for key, member in vars(thing).items():
            if not key.startswith("_") and inspect.isfunction(member) and member.__doc__:
                parts.append(f"#### `{attribute}.{key}`\n")
                parts.append(_described(key, member))
    return "\n".join(parts)


def _described(name: str, thing: Any) -> str:
    return f"```python\n{name}{_signature(thing)}\n```\n\n{_markdown(inspect.getdoc(thing) or '')}\n"


def _signature(thing: Any) -> str:
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    text = re.sub(r"<factory>|<object object at 0x[0-9a-f]+>", "...", str(signature))
    # Annotations are strings where their evaluation is postponed; the modules of types only lengthen the line.
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)
    return re.sub(r"\b(quire|flwr|typing|collections|pathlib)(\.\w+)*\.(?=[A-Z])", "", text)


def _markdown(text: str) -> str:
    """Turn numpydoc's underlined sections into bold titles, its entries into a list, and its roles into code."""
    text = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    pieces = _SECTION.split(text)
    shown = [pieces[0].strip()]
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        shown.append(f"**{title}**\n\n{_entries(body)}")
    return "\n\n".join(shown)


def _entries(body: str) -> str:
    lines: list[str] = []
    for line in body.strip("\n").splitlines():
        if not line.strip():
            lines.append("")
        elif line.startswith("    "):
            lines.append(f"  {line.strip()}")
        else:
            lines.append(f"- `{line.strip()}`" if not line.startswith("-") else line)
    return "\n".join(lines)


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    text = page()
    if parser.parse_args().check:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
