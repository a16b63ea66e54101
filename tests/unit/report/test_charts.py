"""Marks stand where the numbers say."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from poa.report import charts
from poa.report.scales import Scale


def _all(made: str, tag: str, kind: str) -> list[dict[str, str]]:
    tree = ElementTree.fromstring(f"<x>{made.replace('<wbr>', '')}</x>")
    return [node.attrib for node in tree.iter(tag) if kind in node.attrib.get("class", "").split()]


def _pc(attributes: dict[str, str], *names: str) -> list[float]:
    return [float(attributes[name].removesuffix("%")) for name in names]


def test_bars_start_at_zero_and_point_to_their_side() -> None:
    made = charts.bars([charts.Bar("a", 3.0, "+3"), charts.Bar("b", -1.0, "−1")], "t", Scale(-1, 3))
    assert _pc(_all(made, "rect", "helped")[0], "x", "width") == [25, 75]
    assert _pc(_all(made, "rect", "hurt")[0], "x", "width") == [0, 25]
    assert {line["x1"] for line in _all(made, "line", "zero")} == {"25.00%"}
    assert [re.sub("<.*?>", " ", made).split()] == [["t", "a", "+3", "b", "−1"]]


def test_a_neutral_bar_has_no_sign() -> None:
    made = charts.bars([charts.Bar("a", 3.0, "3")], "t", neutral=True)
    assert not _all(made, "rect", "helped")
    assert len(_all(made, "rect", "plain")) == 1


def test_intervals_span_low_to_high() -> None:
    row = charts.Interval("a", 0.5, 0.25, 0.75, "x", "A")
    made = charts.intervals([row], "t", Scale(0, 1), reference=0.9)
    assert _pc(_all(made, "line", "whisker")[0], "x1", "x2") == [25, 75]
    assert _pc(_all(made, "circle", "dot")[0], "cx") == [50]
    assert _pc(_all(made, "line", "reference")[0], "x1") == [90]
    assert not _all(charts.intervals([charts.Interval("a", 0.5, None, None, "x")], "t"), "line", "whisker")


def test_dumbbells_run_from_before_to_after() -> None:
    made = charts.dumbbells([charts.Change("a", 0.1, 0.5, "x"), charts.Change("b", 0.1, 0.0, "y")], "t", Scale(0, 1))
    assert [_pc(line, "x1", "x2") for line in _all(made, "line", "bond")] == [[10, 50], [10, 0]]
    assert _pc(_all(made, "circle", "gain")[0], "cx") == [50]
    assert _pc(_all(made, "circle", "loss")[0], "cx") == [0]


def test_a_stack_fills_the_whole_in_order() -> None:
    parts = [charts.Part("a", 1, "fixed"), charts.Part("b", 3, "paid")]
    made = charts.stacked(parts, "t")
    assert [_pc(*(_all(made, "rect", kind)), "x", "width") for kind in ("fixed", "paid")] == [[0, 25], [25, 75]]


def test_scatter_puts_larger_values_right_and_up() -> None:
    points = [charts.Point("A", "a", 1, 1, 0.5), charts.Point("B", "b", 2, 3)]
    made = charts.scatter(points, "t", "x", "y")
    (ax, ay), (bx, by) = (_pc(dot, "cx", "cy") for dot in _all(made, "circle", "dot"))
    assert ax < bx
    assert ay > by
    (whisker,) = _all(made, "line", "whisker")
    top, foot = _pc(whisker, "y1", "y2")
    assert (top + foot) / 2 == pytest.approx(ay, abs=0.01)
    assert (foot - top) / (ay - by) == pytest.approx(0.5, abs=0.01)


def test_a_line_falls_when_its_values_fall() -> None:
    made = charts.line([(0, 4.0), (1, 3.0), (2, 3.5)], "t", "x", "y")
    (curve,) = _all(made, "polyline", "curve")
    heights = [float(pair.split(",")[1]) for pair in curve["points"].split()]
    assert heights[0] < heights[2] < heights[1]


def test_a_matrix_shades_by_sign_and_writes_the_number() -> None:
    made = charts.matrix(["a", "b"], [[1, -0.9], [None, 1]], "t")
    assert '<td class="n4">−0.90</td>' in made
    assert '<td class="z">–</td>' in made
