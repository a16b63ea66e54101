"""The numbers by which fidelity is judged, from the tasks of a result; the best of several methods is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# Whole trainings are walked through: the oracle, not what it is to judge.
EXACT = ("magic",)
# What trains again on coalitions: dearer than any other, and no judge of gradients.
RETRAINING = ("kernel_shap",)
# What reads more than the final weights.
TRAJECTORY = (
    *EXACT, *RETRAINING, "adamw_influence", "captum", "dvemb", "in_run", "less", "random", "source", "tracin",
    "tracin_last", "tracin_projection",
)  # fmt: skip
# Averages over checkpoints unless told otherwise; as "..., checkpoints=last" they are of one.
AVERAGED = ("influence", "trak")
Rows = Mapping[str, Any]


def figures(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by id; those of tasks that were not run are left out."""
    out: dict[str, Any] = {}
    for task, short in (("digits_mlp", "mlp"), ("installed_docs_lora", "lora")):
        if task in tasks:
            out |= _exact(tasks[task]["methods"], short)
            out |= _ahead(tasks[task].get("peers", {}), short)
    if "digits_mlp" in tasks:
        rows = tasks["digits_mlp"]["methods"]
        out |= _best("mlp_half_1", _only(rows, single), lambda row: row["lds"]["50"].get("own_run"))
        out |= _best("mlp_half_10", _only(rows, cheap), lambda row: row["lds"]["50"].get("ensemble_one_seed"))
        out |= _payouts("digits", rows)
    if "installed_docs_lora" in tasks:
        rows = tasks["installed_docs_lora"]["methods"]
        out |= _payouts("lora", rows)
        out |= _best(
            "contributor_spearman_lora", _only(rows, cheap), lambda row: row["contributors"].get("shapley_spearman")
        )
    return out


def single(label: str, row: Mapping[str, Any]) -> bool:
    """Whether a method reads one checkpoint alone."""
    if row["method"] in AVERAGED:
        return "checkpoints=last" in label
    return row["method"] not in TRAJECTORY


def cheap(label: str, row: Mapping[str, Any]) -> bool:
    """Whether a method is no oracle."""
    return row["method"] not in EXACT


def _payouts(short: str, rows: Rows) -> dict[str, Any]:
    """The least payout error, and the least without any retraining."""
    kept = _only(rows, cheap)
    without = {label: row for label, row in kept.items() if row["method"] not in RETRAINING}
    found = _best(f"payout_tv_{short}", kept, _payout, least=True)
    return found | _best(f"payout_tv_{short}_without_retraining", without, _payout, least=True)


def _payout(row: Mapping[str, Any]) -> Any:
    return row["contributors"].get("payout_tv")


def _ahead(peers: Rows, short: str) -> dict[str, Any]:
    """poa's LDS minus that of a peer's same method, at half of the records, the least of all.

    As both ship, and with the peer in its best setting by this very truth.
    """
    out: dict[str, Any] = {}
    for name, setting in ((f"ahead_of_peers_{short}_as_shipped", "shipped"), (f"ahead_of_peers_{short}", "lds")):
        out |= _best(name, peers, lambda row, at=setting: row.get(at, {}).get("50", {}).get("ahead"), least=True)
    return out


def _exact(rows: Rows, short: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    found = next((label for label, row in rows.items() if row["method"] in EXACT), None)
    if found is None:
        return out
    for percent, cell in rows[found]["lds"].items():
        out[f"magic_{short}_{percent}"] = cell["own_run"] | {"method": found}
        if "ensemble_over_ceiling" in cell:
            out[f"magic_{short}_over_ceiling_{percent}"] = cell["ensemble_over_ceiling"]
    for percent, cell in rows[found]["lds"].items():
        best = _best("", _only(rows, single), lambda row, at=percent: row["lds"].get(at, {}).get("own_run")).get("")
        if best:
            # As if both errors went against each other: wider than the ratio's own interval.
            whole = cell["own_run"]
            divided = {at: best[at] / whole[by] for at, by in (("value", "value"), ("low", "high"), ("high", "low"))}
            # At 5 % the derivative is nearly exact: the strictest of these, and the one without a suffix.
            suffix = "" if percent == "5" else f"_{percent}"
            out[f"best_over_magic_{short}{suffix}"] = divided | {"method": best["method"]}
    return out


def _only(rows: Rows, wanted: Callable[[str, Mapping[str, Any]], bool]) -> Rows:
    return {label: row for label, row in rows.items() if wanted(label, row)}


def _best(name: str, rows: Rows, read: Callable[[Any], Any], *, least: bool = False) -> dict[str, Any]:
    """{name: the best of what `read` finds, with the method's label}; empty where nothing is found."""
    found = {label: value for label, row in rows.items() if (value := read(row)) is not None}
    if not found:
        return {}
    label = (min if least else max)(found, key=lambda key: found[key]["value"])
    return {name: found[label] | {"method": label}}
