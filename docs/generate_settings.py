"""Write docs/settings.md from the schema and the YAML files: ``python docs/generate_settings.py [--check]``."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from omegaconf import OmegaConf  # noqa: E402

from quire.conf.compose import LABEL_WORDS, compose  # noqa: E402
from quire.conf.overrides import MAX_ITEMS, MAX_LENGTH, render  # noqa: E402
from quire.conf.schema import GROUPS, Settings  # noqa: E402

PAGE = ROOT / "docs" / "settings.md"
CONF = ROOT / "conf"

HEAD = f"""# Settings

<!-- Written by docs/generate_settings.py from conf/. Do not edit: change the schema or the YAML files and run it. -->

Every run is described by a handful of groups. `group=option` takes an option of a group, `group.key=value` sets one
value of the option taken:

    quire run task=breast_cancer strategy=fedprox strategy.mu=0.01 training.lr=0.1 seed=7

The same string travels to the silos, which parse it and run nothing of it: no interpolation, no resolver, no
`hydra.*`, `+` or `~`. Values are `null`, `true`, `false`, whole numbers, numbers, words, quoted texts, and lists
such as `[16,8]`. A text with blanks or commas is quoted: `'a, b'`. At most {MAX_ITEMS} overrides and
{MAX_LENGTH} characters are read. A task may set values of other groups; what the user sets has the last word,
in whatever order it is written.

"""

GROUP_WORDS = {
    "task": "What is learned.",
    "data": "Where the rows come from.",
    "partition": "How rows are shared out over simulated silos.",
    "strategy": "What the server does with what the silos send.",
    "training": "How a silo trains.",
    "runtime": "What runs the silos.",
    "privacy": "What is promised about a silo's records.",
    "aggregation": "How updates become one mean.",
    "attack": "What some simulated silos do instead of what they should; see [poisoning](poisoning.md).",
    "suspicion": "Whether updates are compared with one another, and what follows.",
    "compression": "How small a silo's update is sent.",
    "output": "What a run leaves behind and shows.",
    "tracking": "Which tracker is told of the rounds, as they happen, by the launcher.",
}

TYPE_WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text"}
BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}"}


def page() -> str:
    """Return the whole page as Markdown."""
    defaults = compose()
    lines = ["| group | options (default first) | |", "|---|---|---|"]
    for group, options in GROUPS.items():
        first = getattr(defaults, group).name
        names = [first, *(name for name in options if name != first)]
        lines.append(f"| [`{group}`](#{group}) | {', '.join(f'`{name}`' for name in names)} | {GROUP_WORDS[group]} |")
    alone = [field for field in dataclasses.fields(Settings) if field.name in ("seed", "charter")]
    lines += [
        "",
        "Two values stand by themselves.",
        "",
        *_table([_row(field.name, field, getattr(defaults, field.name)) for field in alone]),
    ]
    for group, options in GROUPS.items():
        lines += ["", f"## {group}", "", GROUP_WORDS[group]]
        for option, cls in options.items():
            lines += ["", f"### {group}={option}", "", _paragraph(group, option)]
            values = _defaults(group, option)
            rows = [
                _row(f"{group}.{field.name}", field, values[field.name])
                for field in dataclasses.fields(cls)
                if field.name != "name"
            ]
            lines += ["", *(_table(rows) if rows else ["Nothing more to set."])]
            if group == "task":
                lines += ["", *_company(option)]
    return HEAD + "\n".join(lines) + "\n"


def _table(rows: list[str]) -> list[str]:
    return ["| key | type | default | limits | |", "|---|---|---|---|---|", *rows]


def _row(key: str, field: dataclasses.Field[Any], value: Any) -> str:
    cells = (f"`{key}`", _type(field.type), f"`{_shown(value)}`", _limits(field.metadata), field.metadata["help"])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"list of {TYPE_WORDS[typing.get_args(kind)[0]]}s"
    if isinstance(kind, types.UnionType):
        return " or ".join("null" if arg is types.NoneType else _type(arg) for arg in typing.get_args(kind))
    return TYPE_WORDS[kind]


def _limits(limits: typing.Mapping[str, Any]) -> str:
    words = [BOUNDS[name].format(_number(limits[name])) for name in BOUNDS if name in limits]
    if "choices" in limits:
        words.append("one of " + ", ".join(f"`{choice}`" for choice in limits["choices"]))
    if limits.get("word"):
        words.append(LABEL_WORDS)
    if "max_items" in limits:
        words.append(f"at most {limits['max_items']} entries")
    return ", ".join(words)


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) or limit != int(limit) else str(int(limit))


def _shown(value: Any) -> str:
    return render(tuple(value) if isinstance(value, list) else value)


def _paragraph(group: str, option: str) -> str:
    """Return the comment at the head of an option's YAML file, or else the docstring of its class."""
    lines = (CONF / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
    comments = [line[1:] for line in lines if line.startswith("#") and "@package" not in line]
    words = " ".join(comments) or GROUPS[group][option].__doc__ or ""
    return " ".join(words.replace("``", "`").split())


def _yaml(group: str, option: str) -> dict[str, Any]:
    tree = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{option}.yaml"))
    return {str(key): value for key, value in tree.items()} if isinstance(tree, dict) else {}


def _defaults(group: str, option: str) -> dict[str, Any]:
    """Return the values in an option's own file and in those it builds upon."""
    tree = _yaml(group, option)
    values: dict[str, Any] = {}
    for base in tree.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":
            values |= _defaults(group, base)
    own = tree.get(group, {}) if group == "task" else tree
    return {**values, **own}


def _company(option: str) -> list[str]:
    """Say which options a task takes and which values it lays over other groups."""
    tree = _yaml("task", option)
    taken = [base for base in tree.pop("defaults", []) if isinstance(base, dict)]
    words = [f"{key.split('/')[-1]}={value}" for base in taken for key, value in base.items()]
    words += [
        f"{group}.{key}={_shown(value)}"
        for group, part in tree.items()
        if group != "task"
        for key, value in part.items()
    ]
    return [f"It also sets {', '.join(f'`{word}`' for word in words)}."] if words else []


def main() -> int:
    """Write the page, or with ``--check`` only say whether it is up to date."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
