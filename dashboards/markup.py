"""HTML that is safe to show: whatever comes from a repository, a scanner or a log is escaped unless it is `Html`."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import attrs

_ESCAPE_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Content = str | int | float | None


def tag(name: str, *children: Content, **attributes: str | None) -> Html:
    """An element. Attributes that are None are left out; `class_` is `class`, `data_x` is `data-x`."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    written = "".join(f' {key}="{html.escape(value)}"' for key, value in named.items())
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Content], separator: str = "") -> Html:
    """Several pieces as one, each escaped unless it is markup."""
    return Html(separator.join(_escaped(child) for child in children if child is not None))


def _escaped(child: Content) -> str:
    return child if isinstance(child, Html) else html.escape(printable(str(child)))


def printable(text: str) -> str:
    """`text` without terminal colours, control characters and marks that turn the direction of writing."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", _ESCAPE_SEQUENCES.sub("", text))


def page_link(page: str, label: Content, **parameters: str | None) -> Html:
    """A link to a page of the dashboards, in the same tab. `page`: its path, without a slash."""
    named = {key: value for key, value in parameters.items() if value is not None}
    return tag("a", label, href=f"{page}?{urlencode(named)}" if named else page)


def web_link(url: str | None, label: Content) -> Html | Content:
    """A link to elsewhere in a new tab; only the label where `url` is no web address."""
    if not url or not re.match(r"https?://[^\s\"'<>]+$", url):
        return label
    return tag("a", label, href=url, target="_blank", rel="noopener noreferrer")


@attrs.frozen
class Column:
    """A column of a table. kind: "", "number", "wide" (takes the room that is left), "name" (may break)."""

    title: str
    kind: str = ""


def table(columns: Sequence[Column], rows: Iterable[Sequence[Content]], *, caption: str, brief: bool = False) -> Html:
    """
    A table that becomes one card per row on a narrow screen. A cell that is empty is left out there.

    caption: says what it lists, to those who do not see it. brief: its cards need no names beside the values.
    """
    head = tag("tr", *(tag("th", column.title, scope="col", class_=column.kind or None) for column in columns))
    body = join(tag("tr", *(_cell(*pair) for pair in zip(columns, row, strict=True))) for row in rows)
    parts = (tag("caption", caption), tag("thead", head), tag("tbody", body))
    return tag("div", tag("table", *parts, class_="ps-table ps-brief" if brief else "ps-table"), class_="ps-scroll")


def _cell(column: Column, content: Content) -> Html:
    empty = "ps-empty" if content is None or content == "" else ""
    classes = " ".join(filter(None, (column.kind, empty)))
    return tag("td", tag("span", content), class_=classes or None, data_label=column.title or None)


def facts(named: Mapping[str, Any]) -> Html:
    """Names with values, side by side; what is None or empty is left out."""
    shown = ((name, value) for name, value in named.items() if value is not None and value != "")
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in shown), class_="ps-facts")


def tiles(figures: Iterable[tuple[str, Content, str]]) -> Html:
    """Figures to see at a glance: (name, figure, tone); tone: "", "bad" or "good"."""
    each = (
        tag("div", tag("strong", value), tag("span", name), class_=f"ps-tile {tone}".strip())
        for name, value, tone in figures
    )
    return tag("div", *each, class_="ps-tiles")
