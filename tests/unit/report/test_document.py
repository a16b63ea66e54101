"""A wrong value is refused with the path that leads to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from poa.errors import PoaError
from poa.report import render
from poa.report.document import Node


def test_absent_and_null_read_alike() -> None:
    for node in (Node({}), Node({"k": None})):
        assert (node.part("k"), node.number("k"), node.integer("k"), node.flag("k"), node.amount("k")) == (None,) * 5
        assert (node.rows("k"), node.numbers("k"), node.pairs("k"), node.text("k", "x")) == ([], {}, [], "x")


def test_a_size_is_a_number_or_a_list() -> None:
    assert Node({"seeds": 5}).size("seeds") == Node({"seeds": [3, 1, 4, 1, 5]}).size("seeds") == 5


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    *way, last, value = path

    def change(document: dict[str, Any]) -> None:
        place: Any = document
        for step in way:
            place = place[step]
        place[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("answers", 2, "spans", 0, "start", "4"), r"answers\[2\]\.spans\[0\]\.start must be a whole number"),
        (_set("answers", {}), r"answers must be a list"),
        (_set("truth", "effect", "scipy.stats", math.nan), r"truth\.effect\.scipy\.stats must be a finite number"),
        (_set("truth", "ceiling", math.inf), r"truth\.ceiling must be a finite number"),
        (_set("methods", []), r"methods must be an object"),
        (_set("model", "loss", 3, [1]), r"model\.loss\[3\] must be a pair"),
        (_set("model", "parameters", 1.5), r"model\.parameters must be a whole number"),
        (_set("ledger", "verified", "yes"), r"ledger\.verified must be true or false"),
        (_set("title", ["x"]), r"title must be a string"),
        (_set("intake", "datanets", 0, "records", True), r"intake\.datanets\[0\]\.records must be a whole number"),
        (_set("agreement", "spearman", [[1.0]]), r"agreement\.spearman must be 6 x 6"),
        (_set("truth", "contributors", ["nobody"]), r"truth\.effect has no number for contributor 'nobody'"),
        (_set("payout", "policies", "net-epoch", "payees", "scipy.stats", -1), r"payees\.scipy\.stats .*0 or more"),
        (_set("payout", "policies", "net-epoch", "carry", 3.0), r"carry must be .*money is integers"),
        (_set("payout", "fee", True), r"payout\.fee must be .*money is integers"),
    ],
)
def test_the_message_names_the_place(
    document: dict[str, Any], change: Callable[[dict[str, Any]], None], message: str
) -> None:
    render(document)
    change(document)
    with pytest.raises(PoaError, match=message) as caught:
        render(document)
    assert "\n" not in str(caught.value)
