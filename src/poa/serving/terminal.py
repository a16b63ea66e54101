"""A trace as text for people: the answer with its spans marked, top records, shares side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence

from poa.serving.document import Evidence, Trace, VerbatimSpan

_UNDERLINE, _BOLD, _OFF = "\x1b[4m", "\x1b[1m", "\x1b[0m"
_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR = 8
_UNIT = 10**9


def page(trace: Trace, width: int = 100, color: bool = False, contributors: int = 12) -> str:
    """The whole trace. `color` underlines by ANSI codes, otherwise spans stand in [brackets]."""
    parts = [
        _titled("question", _printable(trace.input.text), color),
        _titled(f"answer ({trace.output.finish_reason})", marked(trace, color), color),
        _titled("word for word in the training records", _spans(trace.spans, width), color),
        _titled("top records (positive = helped)", _records(trace.methods, width), color),
        _titled("contributor shares (signed, of all contributors' absolute sums)", _shares(trace, contributors), color),
        "\n".join(f"{name:<9} {value}" for name, value in _identity(trace)),
    ]
    return "\n\n".join(parts) + "\n"


def marked(trace: Trace, color: bool) -> str:
    """The answer with every stretch that some span covers underlined or bracketed; overlapping spans are joined."""
    text, out, done = trace.output.text, "", 0
    opening, closing = (_UNDERLINE, _OFF) if color else ("[", "]")
    for start, end in joined([(span.start, span.end) for span in trace.spans]):
        out += f"{_printable(text[done:start])}{opening}{_printable(text[start:end])}{closing}"
        done = end
    return out + _printable(text[done:])


def joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Disjoint ascending ranges with the same union."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


def bar(parts: int) -> str:
    """A bar of 8 columns for billionths, in eighths of a column."""
    eighths = round(parts * _BAR * 8 / _UNIT)
    return ("█" * (eighths // 8) + _BLOCKS[eighths % 8]).strip().ljust(_BAR)


def _titled(title: str, body: str, color: bool) -> str:
    return f"{_BOLD}{title}{_OFF}\n{body}" if color else f"{title}\n{body}"


def _spans(spans: Sequence[VerbatimSpan], width: int) -> str:
    # A degenerate answer repeats itself; each match is told once.
    lines = dict.fromkeys(
        f'  "{_short(span.text, width // 2)}"  {span.count}x: '
        + ", ".join(f"{document.contributor} ({document.record_id})" for document in span.documents[:3])
        for span in spans
    )
    return "\n".join(lines) or "  nothing long enough"


def _records(methods: Sequence[Evidence], width: int) -> str:
    lines: list[str] = []
    for one in methods:
        lines.append(f"  {one.id} ({one.channel}, {one.unit}): {one.method}")
        for row in one.records:
            source = ", ".join(filter(None, (row.contributor, row.datanet, row.licence)))
            lines.append(f"  {row.rank:>3}  {float(row.score):>+11.4g}  {source}: {row.record_id}")
            lines.append(f"{'':20}{_short(row.snippet, max(20, width - 20))}")
    return "\n".join(lines) or "  no method was asked"


def _shares(trace: Trace, most: int) -> str:
    tables = [{share.contributor: share for share in one.shares} for one in trace.methods]
    largest = {name: max(table[name].parts for table in tables) for table in tables for name in table}
    names = sorted(largest, key=lambda name: (-largest[name], name))
    if not names:
        return "  nobody"
    column = max(map(len, names[:most]))
    width = max(_BAR + 8, *(len(one.id) + 2 for one in trace.methods))
    lines = [f"  {'':<{column}}  " + "".join(f"{one.id:<{width}}" for one in trace.methods)]
    for name in names[:most]:
        cells = [
            f"{bar(table[name].parts)} {'-' if table[name].sum.startswith('-') else '+'}{table[name].parts / 1e7:.1f}%"
            for table in tables
        ]
        lines.append((f"  {name:<{column}}  " + "".join(f"{cell:<{width}}" for cell in cells)).rstrip())
    if len(names) > most:
        lines.append(f"  and {len(names) - most} more")
    return "\n".join(lines)


def _identity(trace: Trace) -> list[tuple[str, str]]:
    digests = trace.digests
    shown = [("adapter", digests.adapter), ("base", digests.base), ("run", digests.run), ("index", digests.index)]
    return [(name, value[:16]) for name, value in shown] + ([("receipt", trace.receipt_id)] if trace.receipt_id else [])


def _short(text: str, most: int) -> str:
    line = " ".join(_printable(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _printable(text: str) -> str:
    """Text without terminal control: a record must not move the cursor or change colours."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)
