"""Keeps results and writes the tables of docs/peers.md between its markers.

    python experiments/peers/page.py [--check]

needs no peer: the tables come from experiments/results/peers/*.json and experiments/benchmarks/peers.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results" / "peers"
PAGE = ROOT / "docs" / "peers.md"


def keep(name: str, result: Mapping[str, Any]) -> None:
    """One result as a committed file, and the page that shows it."""
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def written(page: str) -> str:
    """The page with every table as the results have it; tables without a result stay."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        path = PLACES.get(name, RESULTS / f"{name}.json")
        if path.is_file():
            before, rest = page.split(begin)
            after = rest.split(end)[1]
            page = f"{before}{begin}\n{table(json.loads(path.read_text(encoding='utf-8')))}\n{end}{after}"
    return page


def _rows(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def versions(result: Mapping[str, Any]) -> str:
    found = result["environment"]
    names = ("captum", "dattri", "kronfluence", "traker", "bergson", "torch", "transformers", "python")
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)


def parity(result: Mapping[str, Any]) -> str:
    rows: list[list[str]] = []
    for row in result["parity"]:
        if "skipped" in row:
            found = ["", "", f"not compared: {row['skipped']}"]
        elif not row.get("finite", True):
            found = ["", "", f"not finite; {row['note']}".rstrip("; ")]
        else:
            found = [f"{row['rank']:.4f}", f"{row['difference']:.1e}", row["note"]]
        rows.append([row["peer"], row["poa"], row["subject"], *found])
    table = _rows(["peer", "poa", "run", "rank agreement", "relative difference", "why not equal"], rows)
    return f"`{result['command']}` ({versions(result)})\n\n{table}"


def faults(result: Mapping[str, Any]) -> str:
    rows = [
        [
            row["peer"],
            row["fault"],
            "there" if row["there"] else "not found",
            "; ".join(f"{name} {value}" for name, value in row["figures"].items()),
        ]
        for row in result["faults"]
    ]
    table = _rows(["peer", "fault", "installed version", "figures"], rows)
    return f"`{result['command']}` ({versions(result)})\n\n{table}"


MARKS = {"pass": "pass", "fail": "**fail**", "last digits": "last digits", "unsupported": "refused", "exempt": "exempt"}


def conformance(result: Mapping[str, Any]) -> str:
    """One row per peer and run, one column per law that is judged; reasons below."""
    outcomes = result["outcomes"]
    names = [name for name in result["laws"] if name not in result["not applicable"]]
    order = [law for law in ORDER if law in names] + [law for law in names if law not in ORDER]
    rows: list[list[str]] = []
    reasons: list[str] = []
    for peer, run in dict.fromkeys((row["peer"], row["run"]) for row in outcomes):
        found = {row["law"]: row for row in outcomes if (row["peer"], row["run"]) == (peer, run)}
        if "all" in found:
            rows.append([peer, run, f"does not run: {found['all']['detail']}", *[""] * (len(order) - 1)])
            continue
        rows.append([peer, run, *(MARKS.get(found[law]["verdict"], "n/a") for law in order)])
        reasons += [
            f"- {peer}, {run}, {law}: {found[law]['detail']}" for law in order if found[law]["verdict"] == "fail"
        ]
    apart = ", ".join(f"{law} ({why})" for law, why in result["not applicable"].items())
    failed = "\n".join(reasons) or "None."
    return (
        f"`{result['command']}` ({versions(result)})\n\n{_rows(['peer', 'run', *order], rows)}\n\n"
        f"Not judged, as the adapter would pass or fail by itself: {apart}.\n\nEvery failure:\n\n{failed}"
    )


ORDER = (
    "shape",
    "untouched",
    "determinism",
    "query batching",
    "query permutation",
    "train permutation",
    "duplicates",
    "sign",
    "self-influence",
)


def speed(result: Mapping[str, Any]) -> str:
    rows = [
        [name, f"{value:.2f}", " to ".join(f"{edge:.2f}" for edge in result["ranges"].get(name, ())) or "-"]
        for name, value in sorted(result["figures"].items())
    ]
    return _rows(["figure", "median", "interval"], rows)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "parity": parity,
    "conformance": conformance,
    "faults": faults,
    "speed": speed,
}
PLACES = {"speed": ROOT / "experiments" / "benchmarks" / "peers.json"}


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        sys.exit(0 if written(page) == page else f"{PAGE.name} and the results differ: run experiments/peers/page.py")
    PAGE.write_text(written(page), encoding="utf-8")


if __name__ == "__main__":
    main()
