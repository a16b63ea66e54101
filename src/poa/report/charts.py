"""Charts: rows of a table with an inline SVG mark each, and free-standing plots.

Marks use percent coordinates and no viewBox, so a chart is as wide as its column and its lettering keeps its size on
a phone. Positive marks are blue and point right, negative ones orange and point left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poa.report import numerals
from poa.report.markup import Html, breakable, el, join
from poa.report.scales import Scale, covering, shade


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: `shown` is the value as text, `note` stands small under the label."""

    label: str
    value: float
    shown: str
    note: str = ""


@dataclass(frozen=True)
class Interval:
    """One row of an interval chart; `low` and `high` are None where the uncertainty is unknown."""

    label: str
    value: float
    low: float | None
    high: float | None
    shown: str
    mark: str = ""
    note: str = ""


@dataclass(frozen=True)
class Change:
    """One row of a before/after chart."""

    label: str
    before: float
    after: float
    shown: str


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot: `mark` is the letter drawn in it, `error` half the height of its bar."""

    mark: str
    label: str
    x: float
    y: float
    error: float | None = None


@dataclass(frozen=True)
class Part:
    """A part of a stacked bar; `kind` names its fill in the style sheet."""

    label: str
    value: int
    kind: str


def bars(rows: Sequence[Bar], title: str, scale: Scale | None = None, neutral: bool = False) -> Html:
    """A table with one bar a row; its own table, so it needs none behind it. `neutral`: no sign in the colours."""
    scale = scale or covering(row.value for row in rows)
    body = [_row(row.label, row.note, _bar(row.value, scale, neutral), row.shown) for row in rows]
    return _rows(body, title)


def intervals(rows: Sequence[Interval], title: str, scale: Scale | None = None, reference: float | None = None) -> Html:
    """A table with one dot and whiskers a row; `reference` draws a dashed line through all rows."""
    ends = [end for row in rows for end in (row.low, row.high, row.value) if end is not None]
    scale = scale or covering([*ends, *([] if reference is None else [reference])], margin=0.04)
    body = [_row(row.label, row.note, _interval(row, scale, reference), row.shown) for row in rows]
    return _rows(body, title)


def dumbbells(rows: Sequence[Change], title: str, scale: Scale) -> Html:
    """A table with one line from a hollow dot (before) to a full dot (after) a row."""
    return _rows([_row(row.label, "", _dumbbell(row, scale), row.shown) for row in rows], title)


def stacked(parts: Sequence[Part], title: str) -> Html:
    """One bar that is the whole, cut into its parts in order. Labels and numbers belong beside it."""
    total, start, drawn = sum(part.value for part in parts) or 1, 0.0, list[Html]()
    for part in parts:
        width = 100 * part.value / total
        drawn.append(
            el(
                "rect",
                el("title", part.label),
                class_=f"part {part.kind}",
                x=_pc(start),
                y=0,
                width=_pc(width),
                height=30,
            )
        )
        start += width
    return _svg(*drawn, height=30, class_="stack", role="img", aria_label=title)


def scatter(points: Sequence[Point], title: str, across: str, up: str) -> Html:
    """Points with vertical error bars, zero lines and a few ticks. Axis names stand outside the drawing."""
    tall, wide = [p.y + side * (p.error or 0) for p in points for side in (-1, 1)], [p.x for p in points]
    horizontal, vertical = covering(wide, margin=0.1), covering(tall, margin=0.08)
    axes = [*_upright_ticks(vertical), *_level_ticks(horizontal)]
    marks = [_point(point, horizontal, vertical) for point in points]
    plot = el("svg", *axes, *marks, x="15%", y=8, width="82%", height=196, class_="plot")
    drawing = _svg(plot, height=230, class_="scatter", role="img", aria_label=title)
    return join([el("p", f"↑ {up}", class_="axis"), drawing, el("p", f"{across} →", class_="axis across")])


def line(points: Sequence[tuple[float, float]], title: str, across: str, up: str) -> Html:
    """A polyline through (x, y) with ticks on both axes."""
    horizontal, vertical = covering((x for x, _ in points), zero=False), covering((y for _, y in points), False, 0.06)
    place = " ".join(f"{horizontal.at(x):.2f},{100 - vertical.at(y):.2f}" for x, y in points)
    curve = el("polyline", class_="curve", points=place)
    stretched = el("svg", curve, viewBox="0 0 100 100", preserveAspectRatio="none", width="100%", height="100%")
    axes = [*_upright_ticks(vertical), *_level_ticks(horizontal)]
    plot = el("svg", *axes, stretched, x="11%", y=8, width="86%", height=176, class_="plot")
    drawing = _svg(plot, height=210, class_="line", role="img", aria_label=title)
    return join([el("p", f"↑ {up}", class_="axis"), drawing, el("p", f"{across} →", class_="axis across")])


def matrix(names: Sequence[str], values: Sequence[Sequence[float | None]], title: str) -> Html:
    """A square table of correlations, shaded by sign and size; columns are numbered as the rows are."""
    head = el("tr", el("td"), *(el("th", str(i + 1), scope="col", title=name) for i, name in enumerate(names)))
    body = [
        el(
            "tr",
            el("th", el("i", str(i + 1)), " ", names[i], scope="row"),
            *(_cell(value, i == j) for j, value in enumerate(row)),
        )
        for i, row in enumerate(values)
    ]
    table = el(
        "table",
        el("caption", el("span", title, class_="unseen")),
        el("thead", head),
        el("tbody", *body),
        class_="matrix",
    )
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label=title)


def _cell(value: float | None, same: bool) -> Html:
    if same:
        return el("td", "1", class_="same")
    return el("td", numerals.correlation(value), class_="z" if value is None else shade(value, 1.0))


def _rows(body: Sequence[Html], title: str) -> Html:
    return el("table", el("caption", el("span", title, class_="unseen")), el("tbody", *body), class_="chart")


def _row(label: str, note: str, mark: Html, shown: str) -> Html:
    name = el("th", breakable(label), el("small", note) if note else None, scope="row")
    return el("tr", name, el("td", mark, class_="mark"), el("td", shown, class_="value"))


def _bar(value: float, scale: Scale, neutral: bool) -> Html:
    start, end = sorted((scale.at(0), scale.at(value)))
    kind = "plain" if neutral else "helped" if value >= 0 else "hurt"
    drawn = el("rect", class_=kind, x=_pc(start), y=4, width=_pc(max(end - start, 0.3 if value else 0)), height=14)
    return _svg(drawn, _zero(scale, 22), height=22, aria_hidden="true")


def _interval(row: Interval, scale: Scale, reference: float | None) -> Html:
    kind = "helped" if row.value >= 0 else "hurt"
    place = scale.at(row.value)
    drawn = [_zero(scale, 24)]
    if reference is not None:
        at = _pc(scale.at(reference))
        drawn.append(el("line", class_="reference", x1=at, x2=at, y1=0, y2=24))
    if row.low is not None and row.high is not None:
        left, right = _pc(scale.at(row.low)), _pc(scale.at(row.high))
        drawn.append(el("line", class_=f"whisker {kind}", x1=left, x2=right, y1=12, y2=12))
    drawn.append(_dot(place, "12", row.mark, kind))
    return _svg(*drawn, height=24, aria_hidden="true")


def _dumbbell(row: Change, scale: Scale) -> Html:
    left, right = _pc(scale.at(row.before)), _pc(scale.at(row.after))
    kind = "gain" if row.after > row.before else "loss"
    return _svg(
        _zero(scale, 24),
        el("line", class_=f"bond {kind}", x1=left, x2=right, y1=12, y2=12),
        el("circle", class_="before", cx=left, cy=12, r=5),
        el("circle", class_=f"after {kind}", cx=right, cy=12, r=6),
        height=24,
        aria_hidden="true",
    )


def _point(point: Point, horizontal: Scale, vertical: Scale) -> Html:
    at = horizontal.at(point.x)
    kind = "helped" if point.y >= 0 else "hurt"
    drawn: list[Html] = [el("title", point.label)]
    if point.error is not None:
        top, foot = (_pc(100 - vertical.at(point.y + side * point.error)) for side in (1, -1))
        drawn.append(el("line", class_=f"whisker {kind}", x1=_pc(at), x2=_pc(at), y1=top, y2=foot))
    drawn.append(_dot(at, _pc(100 - vertical.at(point.y)), point.mark, kind))
    return el("g", *drawn)


def _dot(across: float, down: str, mark: str, kind: str) -> Html:
    circle = el("circle", class_=f"dot {kind}", cx=_pc(across), cy=down, r=8 if mark else 5)
    letter = el("text", mark, class_="letter", x=_pc(across), y=down, dy="0.35em") if mark else None
    return el("g", circle, letter)


def _upright_ticks(scale: Scale) -> list[Html]:
    return [
        el(
            "g",
            el("line", class_="zero" if abs(tick) < 1e-12 else "grid", x1="0%", x2="100%", y1=at, y2=at),
            el("text", numerals.tick(tick), class_="tick end", x="-6", y=at, dy="0.35em"),
        )
        for tick in scale.ticks(4)
        for at in [_pc(100 - scale.at(tick))]
    ]


def _level_ticks(scale: Scale) -> list[Html]:
    return [
        el(
            "g",
            el("line", class_="zero" if abs(tick) < 1e-12 else "grid", x1=at, x2=at, y1="0%", y2="100%"),
            el("text", numerals.tick(tick), class_="tick middle", x=at, y="100%", dy="1.5em"),
        )
        for tick in scale.ticks(5)
        for at in [_pc(scale.at(tick))]
    ]


def _zero(scale: Scale, height: int) -> Html:
    at = _pc(scale.at(0))
    return el("line", class_="zero", x1=at, x2=at, y1=0, y2=height)


def _svg(*children: Html, height: int, **attributes: str) -> Html:
    return el("svg", *children, width="100%", height=height, **attributes)


def _pc(value: float) -> str:
    return f"{value:.2f}%"
