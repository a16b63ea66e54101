"""What tables, docs/fidelity.md and the README say of `experiment=fidelity`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collected.runs import provenance
from collected.text import Rows, markdown, signed

# Figures of fidelity.json that the README repeats, in words.
FIGURES = {
    "magic_mlp_5": "MAGIC, digits network, removal of 5 %: LDS",
    "magic_lora_5": "MAGIC, LoRA on text, removal of 5 %: LDS",
    "best_over_magic_mlp": "best method of one checkpoint, of that, digits",
    "best_over_magic_lora": "the same, LoRA on text",
    "mlp_half_1": "best method of one checkpoint, digits, half of the records: LDS",
    "mlp_half_10": "mean over ten runs of other seeds, the same: LDS",
    "contributor_spearman_lora": "contributors in order of their exact Shapley values, LoRA on text: rank correlation",
    "payout_tv_lora": "part of a pool that goes to others than by Shapley values, LoRA on text",
    "payout_tv_digits": "the same, digits",
    "ahead_of_peers_mlp_as_shipped": "LDS ahead of the same method elsewhere, both as shipped, least of all, digits",
    "ahead_of_peers_mlp": "LDS ahead of the same method elsewhere at its best setting, least of all peers, digits",
}


def fidelity_rows(task: Mapping[str, Any]) -> Rows:
    """Methods of one task by their LDS at the largest fraction removed, best first."""
    percents = sorted(task["truth"]["subsets"], key=float)
    last = percents[-1]
    found: Mapping[str, Any] = task["methods"]
    pooled = any("ensemble_over_ceiling" in row["lds"][last] for row in found.values())
    paid = any("payout_tv" in row["contributors"] for row in found.values())
    head = ["method", *(f"LDS {percent} %" for percent in percents), f"95 % interval at {last} %"]
    head += ["ensemble / ceiling"] if pooled else []
    head += ["payout error", "printed rule"] if paid else []
    rows = [[*head, "contributors", "trainings"]]
    for name in sorted(found, key=lambda name: -found[name]["lds"][last]["own_run"]["value"]):
        cells, contributors = found[name]["lds"], found[name]["contributors"]
        own = cells[last]["own_run"]
        few = "" if found[name]["seeds"] == task["seeds"] else f" (seeds {', '.join(map(str, found[name]['seeds']))})"
        row = [name + few, *(signed(cells[percent]["own_run"]["value"]) for percent in percents)]
        row.append(f"{signed(own['low'])} to {signed(own['high'])}")
        if pooled:
            over = cells[last].get("ensemble_over_ceiling")
            row.append(signed(over["value"]) if over else "")
        if paid:
            row += [signed(contributors["payout_tv"]["value"]), signed(contributors["payout_tv_printed"])]
        agreement = contributors["shapley_spearman" if "shapley_spearman" in contributors else "left_out_spearman"]
        rows.append([*row, signed(agreement["value"]), f"{found[name]['card']['trainings']:.1f}"])
    return rows


def peer_rows(task: Mapping[str, Any]) -> Rows:
    """Peers' methods by the LDS of their best setting at the largest fraction removed, beside poa's default."""
    last = max(task["truth"]["subsets"], key=float)
    rows = [["peer", "as shipped", "best setting", "its LDS", "poa's", "LDS", "poa ahead by"]]
    found = {label: row for label, row in task["peers"].items() if "best" in row}

    for label in sorted(found, key=lambda label: -found[label]["settings"][found[label]["best"]]):
        row = found[label]
        shipped = row["settings"].get("as shipped")
        best, ahead = row["lds"][last]["own_run"]["value"], row["lds"][last]["ahead"]
        margin = f"{ahead['value']:.3f} ({ahead['low']:.3f} to {ahead['high']:.3f})"
        told = [label, "failed" if shipped is None else signed(shipped), row["best"], signed(best)]
        rows.append([*told, row["of"], signed(best + ahead["value"]), margin])
    return rows


def figure_rows(figures: Mapping[str, Any]) -> Rows:
    """Figures in words, with intervals and the method that they are of."""
    rows = [["measured against retraining, on other seeds than chosen by", "value", "95 % interval", "method"]]
    for name, words in FIGURES.items():
        if name in figures:
            found = figures[name]
            interval = f"{found['low']:.3f} to {found['high']:.3f}"
            rows.append([words, f"{found['value']:.3f}", interval, found.get("method", "")])
    return rows


def fidelity_block(path: Path, tasks: Mapping[str, Any]) -> str:
    """What stands between the markers of docs/fidelity.md: figures, then a table a task."""
    result = json.loads(path.read_text(encoding="utf-8"))
    figures = [["figure", "value", "95 % interval", "method"]]
    for name, found in sorted(result["figures"].items()):
        interval = f"{found['low']:.3f} to {found['high']:.3f}" if "low" in found else ""
        figures.append([name, f"{found['value']:.3f}", interval, found.get("method", "")])
    parts = [
        f"Written by `experiments/collect.py` from `experiments/results/{path.name}`: {provenance(result)}.",
        markdown(figures),
    ]
    for name, task in tasks.items():
        told = (
            f"{task['records']} records of {task['contributors']} contributors, {task['queries']} queries, seeds "
            f"{', '.join(map(str, task['seeds']))}; masked removal."
        )
        parts += [f"### {name}", f"{told} {_ceilings(task['truth'])}", markdown(fidelity_rows(task)), _noise(task)]
        if any("best" in row for row in task["peers"].values()):
            last = max(task["truth"]["subsets"], key=float)
            told = f"Peers on the same runs and truth, LDS at {last} %; a peer's best setting is chosen by this truth:"
            parts += [told, markdown(peer_rows(task))]
            whole = {label: row for label, row in task["peers"].items() if not row["settings"] and row["failed"]}
            broken = [f"{label}: {next(iter(row['failed'].values()))}" for label, row in whole.items()]
            parts += ["Failed in every setting: " + "; ".join(broken) + "."] if broken else []
        if task["refused"]:
            parts.append("Do not apply: " + ", ".join(sorted(task["refused"])) + ".")
    return "\n\n".join(part for part in parts if part)


def _noise(task: Mapping[str, Any]) -> str:
    """What the LDS of the best ensemble would move by, and how many retrainings settle it."""
    told: list[str] = []
    for percent, found in sorted(task["noise"].items(), key=lambda item: float(item[0])):
        spread = ", ".join(f"{name} {value:.3f}" for name, value in found["spread"].items())
        count = found["subsets_for_0.02"]
        enough = "no number of subsets" if count is None else f"{count} subsets"
        told.append(f"{percent} % ({found['method']}): {spread}; {enough} for +- 0.02 with these queries")
    return f"Standard deviation of an ensemble's LDS with other {'; '.join(told)}." if told else ""


def _ceilings(truth: Mapping[str, Any]) -> str:
    told = [
        f"{percent} %: {found['subsets']} subsets, seed against seed {found['reliability']:.2f}, "
        f"ceiling {found['ceiling']:.2f}"
        for percent, found in sorted(truth["subsets"].items(), key=lambda item: float(item[0]))
        if "ceiling" in found
    ]
    if "payout_tv_between_seeds" in truth.get("shapley", {}):
        shapley = truth["shapley"]
        told.append(
            f"exact Shapley: seed against seed {shapley['seed_against_seed']:.2f}, payout error between seeds "
            f"{shapley['payout_tv_between_seeds']:.3f}"
        )
    return f"Truth: {'; '.join(told)}." if told else ""
