"""From what columns seem to be to a ``columns:`` block that a person can paste, look at, change and confirm."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence

from quire.clients.data.rules.classify import KINDS, Proposal
from quire.clients.data.rules.words import DATE, DIRECT, GEOGRAPHIC, PLAIN, QUASI, TECHNICAL, TEXT, words_of

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_TEXTS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_AGES = frozenset({"age", "alter"})
_POSTAL = frozenset({"zip", "zipcode", "postcode", "postal", "plz", "postleitzahl"})
#: Rows that leave a column of the schema out have to be agreed on with everybody else.
_LEAVES = (DIRECT, TEXT, TECHNICAL)


def proposed(found: Sequence[Proposal], wanted: Collection[str] | None) -> str:
    """Return a block for ``silo.yaml``.

    Parameters
    ----------
    found : sequence of Proposal
    wanted : collection of str or None
        The columns that the schema asks for, the only ones that are let out; None: there is none.

    Returns
    -------
    str
        YAML, marked as not confirmed; no values in it.
    """
    out = [one for one in found if (one.kind not in _LEAVES if wanted is None else one.column in wanted)]
    lines = [
        "# proposed, not confirmed: look at every column, change what is wrong, and say who did and when",
        "columns:",
    ]
    lines.append(f"  allow: [{', '.join(spelled(one.column) for one in out)}]")
    rules = [line for one in found for line in _rules(one, one in out, asked=wanted is not None)]
    lines += ["  rules:", *rules] if any(not line.lstrip().startswith("#") for line in rules) else rules
    lines.append('  # confirmed: "NAME, YYYY-MM-DD"')
    return "\n".join(lines) + "\n"


def spelled(name: str) -> str:
    """Return a name as a key of YAML, in quotes where it needs them."""
    plain = _PLAIN_KEY.fullmatch(name) and name.casefold() not in _NOT_TEXTS
    return name if plain else json.dumps(name)


def _rules(one: Proposal, let: bool, asked: bool) -> list[str]:
    """Return the lines for one column: a rule, or a remark on what a person has to decide."""
    key, kind = spelled(one.column), KINDS[one.kind]
    if not let:
        return [f"    {key}: drop  # {kind}"]
    if one.kind in _LEAVES:
        return [f"    # {key}: {kind}, and the schema asks for it: should it?"]
    if one.kind == PLAIN:
        return []
    rule = _rule_of(one)
    if rule is None:
        return [f"    # {key}: {kind}; think of a rule"]
    line = f"{key}: {rule}  # {kind}"
    # Where a schema says what a column is like, a rule that changes that has to be agreed on first.
    return [f"    # {line}; the schema has to fit"] if asked else [f"    {line}"]


def _rule_of(one: Proposal) -> str | None:
    words = set(words_of(one.column))
    if one.kind == DATE and one.form is not None:
        form = f", format: {json.dumps(one.form)}" if one.form else ""
        return f"{{generalise: {{date: year{form}}}}}"
    if one.kind == QUASI and one.numeric and words & _AGES:
        return "{bucket: {width: 5}}"
    if one.kind == GEOGRAPHIC and words & _POSTAL:
        return "{generalise: {keep: 2}}"
    return None
