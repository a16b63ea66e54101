"""The benchmark of queries, on a store small enough for a test."""

from __future__ import annotations

from poa.benchmarks import queries


def test_it_measures_what_it_names() -> None:
    result = queries.run(rows=300, width=256, rounds=3)
    assert {name.removeprefix("queries.") for name in result.figures} == {
        "query1_over_read",
        "query64_over_gemm",
        "compact_speedup",
        "compact_recall10",
        "compact_bytes",
        "compact_p50_ms",
    }
    assert result.figures["queries.compact_bytes"] == 0.25
    assert result.figures["queries.compact_recall10"] > 0.9
