"""From a string of overrides to typed settings: ``compose(overrides) -> Settings``.

Hydra composes the YAML groups; it is only ever told which option of which group to take, from the closed
registry of :mod:`quire.conf.schema`. The values are laid over its result here, checked against the types and
limits of the schema. So a hostile string reaches neither Hydra's grammar nor an OmegaConf resolver.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import threading
import types
import typing
from functools import lru_cache
from pathlib import Path
from typing import Any

from quire.conf import rules
from quire.conf.overrides import MAX_LENGTH, Override, Value, parse, render, shown
from quire.conf.schema import GROUPS, Settings
from quire.errors import SettingsError

_CONF_DIR = Path(__file__).resolve().parent
_LOCK = threading.RLock()
_TOP_LEVEL = ("seed", "charter")


def compose(overrides: str = "") -> Settings:
    """Compose the settings that a string of overrides stands for.

    Safe to call from any thread, and inside ``@hydra.main``; results are cached by string.

    Parameters
    ----------
    overrides : str
        Overrides separated by white space; see :mod:`quire.conf.overrides` for the grammar.

    Returns
    -------
    Settings
        Frozen, checked settings.

    Raises
    ------
    SettingsError
        If a key, an option or a value does not exist, has the wrong type, lies outside its limits, or if the
        settings contradict each other. The message is one sentence.
    """
    if not isinstance(overrides, str):  # Flower's run config may hold a number or a truth value
        raise SettingsError(f"The overrides must be one string of key=value, not {shown(repr(overrides))}.")
    with _LOCK:
        return _compose(overrides)


@lru_cache(maxsize=64)
def _compose(overrides: str) -> Settings:
    parsed = parse(overrides)
    choices: list[tuple[str, str]] = []
    values: list[Override] = []
    for item in parsed:
        if item.key in GROUPS:
            choices.append((item.key, _option(item)))
        else:
            values.append(item)
    order = list(GROUPS)
    choices.sort(key=lambda choice: order.index(choice[0]))
    values.sort(key=lambda item: item.key)
    canonical = " ".join([*(f"{group}={option}" for group, option in choices), *map(str, values)])
    if len(canonical) > MAX_LENGTH:  # a number may be written longer than it was read
        raise SettingsError(f"The overrides are {len(canonical)} characters long; at most {MAX_LENGTH} are read.")
    tree = {key: dict(part) if isinstance(part, dict) else part for key, part in _load(tuple(choices)).items()}
    for item in values:
        _lay(tree, item)
    settings = _build(tree, canonical)
    rules.check(settings)
    return settings


def _option(item: Override) -> str:
    options = GROUPS[item.key]
    if isinstance(item.value, str) and item.value in options:
        return item.value
    raise SettingsError(f"{item.key}={shown(render(item.value))} does not exist: choose one of {_listed(options)}.")


@lru_cache(maxsize=256)
def _load(choices: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Let Hydra compose the YAML files for these options, and nothing else."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import CachingConfigRepository
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra._internal.defaults_list import create_defaults_list
    from hydra.core.default_element import GroupDefault
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.plugins import Plugins
    from omegaconf import OmegaConf

    Plugins.instance()  # registers Hydra's readers of files
    search_path = ConfigSearchPathImpl()  # made by hand: what is installed beside Quire has no say in it
    search_path.append("main", str(_CONF_DIR))
    search_path.append("schema", "structured://")
    loader = ConfigLoaderImpl(search_path)
    files = CachingConfigRepository(loader.repository)
    main = files.load_config("config")
    if main is None or main.defaults_list is None:
        raise SettingsError(f"{_CONF_DIR} has no config.yaml with the settings to begin with: install Quire anew.")
    # Hydra's own settings (how a program logs, where it runs) took four fifths of the time, and are not asked for here.
    main.defaults_list = [
        one for one in main.defaults_list if not (isinstance(one, GroupDefault) and str(one.group).startswith("hydra/"))
    ]
    chosen = OverridesParser.create().parse_overrides([f"{group}={option}" for group, option in choices])
    listed = create_defaults_list(files, "config", chosen, prepend_hydra=False, skip_missing=False)
    config = loader._compose_config_from_defaults_list(defaults=listed.defaults, repo=files)
    tree = {str(key): config[key] for key in config if key != "hydra"}
    return {key: OmegaConf.to_container(part) if OmegaConf.is_config(part) else part for key, part in tree.items()}


def _lay(tree: dict[str, Any], item: Override) -> None:
    """Put one value where its key says, if the chosen options have such a key."""
    group, _, field = item.key.partition(".")
    if not field and group in _TOP_LEVEL:
        tree[group] = item.value
        return
    if group not in GROUPS:
        raise SettingsError(f"There is no setting '{item.key}'{_elsewhere(item.key)}.")
    option = str(tree[group]["name"])
    fields = _fields(GROUPS[group][option])
    if field == "name":
        raise SettingsError(f"'{item.key}' is not set by itself: choose an option with {group}=NAME.")
    if field not in fields:
        having = [name for name, cls in GROUPS[group].items() if field in _fields(cls)]
        known = {name: f"{group}.{name}" for name in fields if name != "name"}
        if having:
            advice = f"; {_all_of([f'{group}={name}' for name in having])} would have it"
        else:
            advice = _hint(field, known) or (f"; there are {_listed(known.values())}" if known else ", which has none")
        raise SettingsError(f"There is no setting '{item.key}' with {group}={option}{advice}.")
    tree[group][field] = item.value


def _all_of(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _build(tree: dict[str, Any], canonical: str) -> Settings:
    parts: dict[str, Any] = {}
    for group, options in GROUPS.items():
        part = tree[group]
        cls = options[str(part["name"])]
        fields = _fields(cls)
        unknown = sorted(set(part) - set(fields))
        if unknown:
            raise SettingsError(
                f"{group}={part['name']} has no setting '{unknown[0]}': task={tree['task']['name']} cannot be "
                f"combined with {group}={part['name']}."
            )
        parts[group] = cls(**{name: _checked(f"{group}.{name}", field, part[name]) for name, field in fields.items()})
    top = {field.name: field for field in dataclasses.fields(Settings)}
    for key in _TOP_LEVEL:
        parts[key] = _checked(key, _Typed(top[key].type, top[key].metadata), tree[key])
    return Settings(**parts, overrides=canonical)


@dataclasses.dataclass(frozen=True)
class _Typed:
    type: Any
    metadata: typing.Mapping[str, Any]


@lru_cache(maxsize=256)
def _fields(cls: type) -> dict[str, _Typed]:
    return {field.name: _Typed(field.type, field.metadata) for field in dataclasses.fields(cls)}


def _checked(key: str, field: _Typed, value: Any) -> Any:
    """Return the value as the field's type, or refuse it."""
    expected = field.type
    if typing.get_origin(expected) is tuple:
        if not isinstance(value, (list, tuple)):
            raise SettingsError(f"{key} must be a list, as in {key}=[1,2], not {_quoted(value)}.")
        if len(value) > field.metadata.get("max_items", math.inf):
            raise SettingsError(f"{key} must have at most {field.metadata['max_items']} entries, not {len(value)}.")
        inner = _Typed(typing.get_args(expected)[0], field.metadata)
        return tuple(_checked(f"an entry of {key}", inner, item) for item in value)
    if isinstance(expected, types.UnionType):
        if value is None:
            return None
        expected = next(arg for arg in typing.get_args(expected) if arg is not type(None))
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not expected:
        raise SettingsError(f"{key} must be {_TYPE_NAMES[expected]}, not {_quoted(value)}.")
    _check_limits(key, value, field.metadata)
    return value


LABEL_WORDS = "a word of at most 32 lower-case letters, digits and dashes that begins with a letter"
_LABEL = re.compile(r"[a-z][a-z0-9-]{0,31}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
_LIMITS: dict[str, tuple[str, typing.Callable[[Any, Any], bool]]] = {
    "ge": ("at least", lambda value, limit: value >= limit),
    "gt": ("greater than", lambda value, limit: value > limit),
    "le": ("at most", lambda value, limit: value <= limit),
    "lt": ("less than", lambda value, limit: value < limit),
}


def _check_limits(key: str, value: Any, limits: typing.Mapping[str, Any]) -> None:
    if value == math.inf and limits.get("inf"):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{key} must be a finite number, not {_quoted(value)}.")
    if "choices" in limits and value not in limits["choices"]:
        raise SettingsError(f"{key} must be one of {_listed(limits['choices'])}, not {_quoted(value)}.")
    if limits.get("word") and not _LABEL.fullmatch(value):
        raise SettingsError(f"{key} must be {LABEL_WORDS}, not {_quoted(value)}.")
    if limits.get("digest") and not _DIGEST.fullmatch(value):
        raise SettingsError(f"{key} must be a hash, 64 digits 0-9 and letters a-f, not {_quoted(value)}.")
    bounds = [name for name in _LIMITS if name in limits]
    if any(not _LIMITS[name][1](value, limits[name]) for name in bounds):
        wanted = " and ".join(f"{_LIMITS[name][0]} {_number(limits[name])}" for name in bounds)
        raise SettingsError(f"{key} must be {wanted}, not {_quoted(value)}.")


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _quoted(value: Value | list[Any]) -> str:
    text = shown(render(tuple(value) if isinstance(value, list) else value))
    return text if text.startswith("'") else f"'{text}'"


def _listed(names: typing.Iterable[str]) -> str:
    return ", ".join(str(name) for name in names)


def _hint(wrong: str, known: typing.Mapping[str, str]) -> str:
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"; perhaps {known[close[0]]} is meant" if close else ""


def _elsewhere(key: str) -> str:
    """Say which setting may have been meant by a key whose group does not exist."""
    every = {
        f"{group}.{name}" for group, options in GROUPS.items() for cls in options.values() for name in _fields(cls)
    }
    last = key.rpartition(".")[2]
    meant = sorted(name for name in every if name.partition(".")[2] == last and last != "name")
    if meant:
        return f"; perhaps {' or '.join(meant)} is meant"
    tops = [*GROUPS, *_TOP_LEVEL]
    return _hint(key.partition(".")[0], {name: name for name in tops}) or f"; settings begin with {_listed(tops)}"
