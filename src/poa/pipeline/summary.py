"""The summary as it is written to `summary.json`: flat numbers under the names that readers look for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def published(found: Mapping[str, Any]) -> dict[str, Any]:
    """`found` without what only the report reads.

    methods: {name: {seconds, spearman_vs_truth (mean over queries or null), interval, identity}}. payout: {policy:
    {contributor: micro-credits}} and residuals {policy: {account: micro-credits}}; what else a settlement holds is
    under settlement.
    """
    out = {key: value for key, value in found.items() if not key.startswith("_")}
    out["methods"] = {name: _method(row) for name, row in found["methods"].items()}
    if settled := found.get("payout"):
        held = {name: policy["residuals"] for name, policy in settled.items()}
        out["payout"] = {name: policy["payees"] for name, policy in settled.items()} | {"residuals": held}
        rest = ("fee", "parts", "carry", "payable")
        out["settlement"] = {name: {key: policy[key] for key in rest} for name, policy in settled.items()}
    return out


def _method(row: Mapping[str, Any]) -> dict[str, Any]:
    measured = row["spearman_vs_truth"]
    return dict(row) | {
        "spearman_vs_truth": None if measured is None else measured["mean"],
        "interval": None if measured is None else [measured["low"], measured["high"]],
    }
