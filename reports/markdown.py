"""A document as Markdown: every text of others with its marks escaped, so that it can be no heading, link or tag."""

from __future__ import annotations

import re

from quire import __version__
from quire.reports.document import MEANINGS, Document, Group, Item, Standing, Statement, Table
from quire.reports.page import LONGEST
from quire.text import visible

_MARKS = re.compile(r"([\\`*_{}\[\]<>|#~$@!])")
# What begins a list, a quotation or a heading at the beginning of an item.
_FIRST = re.compile(r"^(\s*)([-+=:]|\d+(?=[.)]))")


def escaped(text: str) -> str:
    """Return a text as it is written in Markdown, in which it stands for itself alone."""
    shown = _MARKS.sub(r"\\\1", visible(text, LONGEST)).replace("&", "&amp;")
    shown = shown.replace("://", ":\\//").replace("www.", "www\\.")
    # An entity by its name: one by its number has a mark in it.
    return _FIRST.sub(
        lambda found: f"{found[1]}{'&ZeroWidthSpace;' if found[2].isdigit() else chr(92)}{found[2]}", shown
    )


def markdown(document: Document) -> str:
    """Return a document as Markdown."""
    lines = [f"# {escaped(document.kind)}: {escaped(document.title)}", "", escaped(document.lead), ""]
    lines += [f"Date: {escaped(document.date)}. Made by Quire {__version__}.", ""]
    for notice in document.notices:
        lines += [f"> **{escaped(notice.title)}.** {escaped(notice.text)}", ""]
    if document.gaps:
        lines += ["## Gaps", ""]
        lines += [
            f"{place}. **{escaped(one.title)}.** {escaped(one.closes)}" for place, one in enumerate(document.gaps, 1)
        ]
        lines.append("")
    lines += [
        "## How to read it",
        "",
        "Every statement names the file that it comes from, and how far it was checked.",
        "",
    ]
    lines += [f"- *{standing.value}*: {escaped(meaning)}" for standing, meaning in MEANINGS.items()]
    for place, section in enumerate(document.sections, 1):
        lines += ["", f"## {place}. {escaped(section.title)}", ""]
        lines += [escaped(section.intro), ""] if section.intro else []
        for item in section.items:
            lines += _item(item)
    text = "\n".join(lines)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _item(item: Item) -> list[str]:
    if isinstance(item, Group):
        found = ["", f"### {escaped(item.title)}", "", escaped(item.intro), ""]
        for one in item.statements:
            found += _statement(one)
        return found
    return _table(item) if isinstance(item, Table) else _statement(item)


def _statement(one: Statement) -> list[str]:
    if one.standing is Standing.GAP:
        return [f"- **GAP: {escaped(one.title)}.** {escaped(one.says[0])} *Closed by:* {escaped(one.closes)}"]
    first, *others = one.says or ("",)
    mark = f"*({one.standing.value}; {escaped(one.source)})*"
    if not others:
        return [f"- **{escaped(one.title)}.** {escaped(first)} {mark}"]
    return [f"- **{escaped(one.title)}.** {mark}", *(f"  - {escaped(text)}" for text in one.says)]


def _table(one: Table) -> list[str]:
    found = ["", f"**{escaped(one.title)}** *({one.standing.value}; {escaped(one.source)})*", ""]
    found.append("| " + " | ".join(escaped(cell) for cell in one.head) + " |")
    found.append("|" + " --- |" * len(one.head))
    found += ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in one.rows]
    return [*found, *(["", f"And {one.left_out} more."] if one.left_out else []), ""]
