"""What tables and the README say of a finished `poa run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collected.text import Rows, latex, latex_text, markdown, percent, ratio, signed

# What happens to a fee that no contributor receives, in the words of the tables.
FATES = {"base": "the base model's share", "below_threshold": "below the threshold", "unattributed": "unattributed"}

Result = Mapping[str, Any]


def method_rows(result: Result) -> Rows:
    """Methods by agreement with retraining, best first: name, agreement, interval, time."""
    truth = truth_seconds(result)
    rows = [["method", "rank correlation", "95 % interval", "time / retraining" if truth else "seconds"]]
    found: Mapping[str, Any] = result["methods"]
    for name in sorted(found, key=lambda name: (-_mean(found[name]), name)):
        measured, seconds = found[name]["spearman_vs_truth"], found[name]["seconds"]
        cost = ratio(seconds / truth) if truth else f"{seconds:.2f}"
        if measured is None:
            rows.append([name, "not measured", "", cost])
        else:
            low, high = found[name]["interval"]
            rows.append([name, signed(measured), f"{signed(low)} to {signed(high)}", cost])
    return rows


def truth_seconds(result: Result) -> float | None:
    """Seconds of the retraining truth; None where it was not run, or came from the cache (then it beats one tune)."""
    seconds = result["seconds"]
    if "truth" not in seconds or seconds["truth"] <= seconds.get("tune", 0):
        return None
    return float(seconds["truth"])


def payout_rows(result: Result) -> Rows:
    """Where the fees of one epoch go under each rule, in percent of all fees."""
    policies: Mapping[str, Any] = result["settlement"]
    payout: Mapping[str, Any] = result["payout"]
    held: Mapping[str, Any] = payout["residuals"]
    rows = [["share of the fees", *(_policy(name, policy) for name, policy in policies.items())]]
    rows.append(
        ["contributors, by score", *(percent(sum(payout[name].values()), p["fee"]) for name, p in policies.items())]
    )
    rows.append(["contributors paid", *(str(len(payout[name])) for name in policies)])
    for key, words in FATES.items():
        rows.append([words, *(percent(held[name].get(key, 0), p["fee"]) for name, p in policies.items())])
    for part in sorted({part for policy in policies.values() for part in policy["parts"]}):
        rows.append([part, *(percent(p["parts"].get(part, 0), p["fee"]) for p in policies.values())])
    return rows


def attack_rows(result: Result) -> Rows:
    """The attacker's share of the contributors' pool, before and after the attack, under each rule."""
    policies: Mapping[str, Any] = result["attacks"]
    rows = [["attack", *(f"{name}: {when}" for name in policies for when in ("honest", "attacking"))]]
    for attack in sorted({attack for attacks in policies.values() for attack in attacks}):
        cells: list[str] = []
        for attacks in policies.values():
            shares = attacks.get(attack)
            cells += ["", ""] if shares is None else [percent(shares["share_before"]), percent(shares["share_after"])]
        rows.append([attack.replace("_", " "), *cells])
    return rows


def facts(result: Result) -> list[str]:
    """One sentence for each single number."""
    nll = result["heldout_nll"]
    out = [f"Held-out loss: {nll['base']:.3f} nats per token before tuning, {nll['tuned']:.3f} after."]
    controls = {
        "placebo": "Placebo: {} responses of random words that nobody trained on drew {:.0%} of the pay of real ones",
        "own_words": "Harder: {} responses of random words of the training texts drew {:.0%} of the pay of real ones",
    }
    for name, sentence in controls.items():
        found = result.get(name)
        if found and found["ratio"] is not None:
            moved = f"; tuning had moved them by {found['moved']:+.1f} nats on average." if "moved" in found else "."
            out.append(sentence.format(found["queries"], found["ratio"]) + moved)
    if ledger := result.get("ledger"):
        verdict = "verified" if ledger["verified"] else "NOT verified"
        out.append(f"Ledger: {ledger['size']} entries, {verdict}, root `{ledger['root'][:16]}`.")
    return out


def provenance(result: Result) -> str:
    """Command, machine and versions in one sentence."""
    here = result["environment"]
    versions = ", ".join(f"{name} {here[name]}" for name in ("torch", "transformers", "numpy") if name in here)
    cores = f"{here['cores']} core{'s' if here['cores'] != 1 else ''}"
    return f"`{result['command']}` with poa {here['poa']}, Python {here['python']}, {versions}, {cores}"


def readme_block(result: Result | None) -> str:
    if result is None:
        return "No result is committed yet: `make demo` makes one, `python experiments/collect.py record` keeps it."
    parts = [
        f"Written by `experiments/collect.py` from `experiments/results/{result['name']}.json`: {provenance(result)}.",
        "Agreement with retraining without each contributor, mean rank correlation per query. The reuse of gradients "
        "makes times depend on which method came first.",
        markdown(method_rows(result)),
    ]
    if result.get("payout"):
        parts += ["Where the fees of the epoch went:", markdown(payout_rows(result))]
    if result.get("attacks"):
        parts += ["The attacker's share of the contributors' pool:", markdown(attack_rows(result))]
    return "\n\n".join([*parts, "\n".join(f"- {fact}" for fact in facts(result))])


def latex_facts(result: Result) -> str:
    """Single numbers and provenance as sentences, code in typewriter."""
    return latex_text(" ".join([*facts(result), f"Made by {provenance(result)}."]))


def tables(result: Result) -> dict[str, str]:
    """File name -> LaTeX for everything that the result holds."""
    name = result["name"]
    out = {f"{name}-methods.tex": latex(method_rows(result)), f"{name}-facts.tex": latex_facts(result)}
    if result.get("payout"):
        out[f"{name}-payout.tex"] = latex(payout_rows(result))
    if result.get("attacks"):
        out[f"{name}-attacks.tex"] = latex(attack_rows(result))
    return out


def _mean(method: Mapping[str, Any]) -> float:
    measured = method["spearman_vs_truth"]
    return float("-inf") if measured is None else float(measured)


def _policy(name: str, policy: Mapping[str, Any]) -> str:
    return name if policy["payable"] else f"{name} (comparison)"
