"""HTML as values: `el` builds an element, and every string that is not already `Html` is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

VOID = frozenset({"br", "input", "meta", "wbr"})

# Control characters are shown as their pictures and lone surrogates as the replacement character, one for one, so
# that a page always encodes to UTF-8 and offsets into a text stay what they were.
_SHOWN = (
    {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"}
    | {0x7F: 0x2421}
    | {code: 0xFFFD for code in range(0xD800, 0xE000)}
)


class Html(str):
    """Markup that is safe to place in a page. Only `el`, `join` and `trusted` make it."""

    __slots__ = ()


Attribute: TypeAlias = str | int | float | bool | None


def escape(text: str) -> Html:
    """Text as HTML character data, also safe inside a double-quoted attribute."""
    return Html(html.escape(text.translate(_SHOWN), quote=True))


def trusted(markup: str) -> Html:
    """Markup written in this package (style sheet, script); never for anything that came from a document."""
    return Html(markup)


def join(parts: Iterable[str], between: str = "") -> Html:
    """Parts one after another; plain strings (and `between`) are escaped, `Html` is kept."""
    return Html(_safe(between).join(_safe(part) for part in parts))


def el(tag: str, /, *children: str | None, **attributes: Attribute) -> Html:
    """One element. `class_` becomes class, `aria_label` aria-label; None and False leave an attribute out."""
    named = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Html(f"<{tag}{named}>")
    return Html(f"<{tag}{named}>{join(child for child in children if child is not None)}</{tag}>")


def breakable(name: str) -> Html:
    """A dotted or underscored name with break opportunities after its separators, for narrow columns."""
    pieces = re.findall(r"[^._/-]*[._/-]*", name)
    return join((piece for piece in pieces if piece), el("wbr"))


def _safe(text: str) -> str:
    return str(text) if isinstance(text, Html) else str(escape(text))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(shown)}"'
