"""The one place that turns committed results into the paper's tables and figures and the README's numbers.

python experiments/collect.py                    write paper/tables, paper/figures and the README block
python experiments/collect.py record RUN_FOLDER  keep a finished run's summary as experiments/results/NAME.json
python experiments/collect.py fidelity FOLDER... keep finished jobs of experiment=fidelity as results/fidelity.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from poa.errors import PoaError
from poa.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NEEDED = ("name", "command", "environment", "seconds", "heldout_nll", "methods", "digests")
# What happens to a fee that no contributor receives, in the words of the tables.
FATES = {"base": "the base model's share", "below_threshold": "below the threshold", "unattributed": "unattributed"}

Result = Mapping[str, Any]
Rows = list[list[str]]


# -- results ----------------------------------------------------------------------------------------------------


def load(path: Path) -> dict[str, Any]:
    """One committed result; raises `PoaError` naming the first missing key."""
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PoaError(f"{path.name} is not a readable result: {error}") from error
    for key in NEEDED:
        if key not in result:
            raise PoaError(
                f"{path.name} has no {key!r}; write it with `python experiments/collect.py record RUN_FOLDER`"
            )
    return result


def kind(path: Path) -> str:
    """What a committed result is of: "run" (a finished `poa run`), or what its `kind` says."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PoaError(f"{path.name} is not a readable result: {error}") from error
    return str(found.get("kind", "run"))


def record(run: Path, name: str | None, command: str | None, results: Path) -> Path:
    """Copy the summary of the run in folder `run`, with the command, library versions and the machine's size."""
    import yaml

    from poa.benchmarks._figures import environment

    if not (run / "summary.json").is_file():
        raise PoaError(f"{run} holds no finished run: it has no summary.json")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    name = name or str(config["name"])
    result = summary | {"name": name, "command": command or command_of(config), "environment": environment()}
    text = json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n"
    for private in {str(Path.home()), str(run.resolve().parent)} - {"/"}:
        if private in text:
            raise PoaError(f"the summary of {run.name} names a folder of this machine ({private})")
    target = results / f"{name}.json"
    write_atomic(target, text.encode())
    return target


def record_fidelity(folders: Sequence[Path], commands: Sequence[str], results: Path) -> Path:
    """Join the jobs of a sweep (all seeds and methods of some tasks) into one result."""
    from poa.benchmarks._figures import environment
    from poa.fidelity.result import result

    target = results / "fidelity.json"
    told = result(folders, "; ".join(commands), environment())
    told["figures"] |= auto_cells(results)
    write_atomic(target, (json.dumps(told, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    return target


def fidelity_figures(results: Path) -> dict[str, Any]:
    """The figures of fidelity.json, none where it is not there."""
    path = results / "fidelity.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else {}
    return found


def auto_cells(results: Path) -> dict[str, Any]:
    """Of the cells (task, method, draw) of damping.json, those whose default is within .03 of the best damping.

    Wilson's 95 % interval of a proportion. Empty where that result is not there.
    """
    path = results / "damping.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    count, share, z = len(found["cells"]), float(found["figures"]["auto_damping_cells"]), 1.96
    middle, spread = share + z**2 / (2 * count), z * sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((middle + sign * spread) / (1 + z**2 / count) for sign in (-1, 1))
    return {"auto_cells": {"value": share, "low": low, "high": min(1.0, high), "cells": count, "of": path.name}}


def command_of(config: Mapping[str, Any]) -> str:
    """`poa run experiment=NAME`, if the preset alone composes to `config`; refused where overrides changed it."""
    from poa.commands import composition

    preset = config.get("choices", {}).get("experiment")
    if preset is None:
        raise PoaError("this run has no experiment preset; say how it was made with --command")
    with composition.opened(composition.conf_folder()) as app:
        _, (job,) = composition.compose(app, [f"experiment={preset}"], sweep=False)
    told = {key: value for key, value in config.items() if key not in ("out", "name", "job", "choices")}
    plain = {key: value for key, value in job.config.items() if key not in ("out", "name", "job", "choices")}
    if told != plain:
        wrong = sorted(key for key in told.keys() | plain.keys() if told.get(key) != plain.get(key))
        raise PoaError(f"this run differs from experiment={preset} in {', '.join(wrong)}; give the --command")
    return f"poa run experiment={preset}"


# -- rows: plain strings that Markdown and LaTeX share -----------------------------------------------------------


def method_rows(result: Result) -> Rows:
    """Methods by agreement with retraining, best first: name, agreement, interval, time."""
    truth = truth_seconds(result)
    rows = [["method", "rank correlation", "95 % interval", "time / retraining" if truth else "seconds"]]
    found: Mapping[str, Any] = result["methods"]
    for name in sorted(found, key=lambda name: (-_mean(found[name]), name)):
        measured, seconds = found[name]["spearman_vs_truth"], found[name]["seconds"]
        cost = _ratio(seconds / truth) if truth else f"{seconds:.2f}"
        if measured is None:
            rows.append([name, "not measured", "", cost])
        else:
            low, high = found[name]["interval"]
            rows.append([name, _signed(measured), f"{_signed(low)} to {_signed(high)}", cost])
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
        ["contributors, by score", *(_percent(sum(payout[name].values()), p["fee"]) for name, p in policies.items())]
    )
    rows.append(["contributors paid", *(str(len(payout[name])) for name in policies)])
    for key, words in FATES.items():
        rows.append([words, *(_percent(held[name].get(key, 0), p["fee"]) for name, p in policies.items())])
    for part in sorted({part for policy in policies.values() for part in policy["parts"]}):
        rows.append([part, *(_percent(p["parts"].get(part, 0), p["fee"]) for p in policies.values())])
    return rows


def attack_rows(result: Result) -> Rows:
    """The attacker's share of the contributors' pool, before and after the attack, under each rule."""
    policies: Mapping[str, Any] = result["attacks"]
    rows = [["attack", *(f"{name}: {when}" for name in policies for when in ("honest", "attacking"))]]
    for attack in sorted({attack for attacks in policies.values() for attack in attacks}):
        cells: list[str] = []
        for attacks in policies.values():
            shares = attacks.get(attack)
            cells += ["", ""] if shares is None else [_percent(shares["share_before"]), _percent(shares["share_after"])]
        rows.append([attack.replace("_", " "), *cells])
    return rows


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
        row = [name + few, *(_signed(cells[percent]["own_run"]["value"]) for percent in percents)]
        row.append(f"{_signed(own['low'])} to {_signed(own['high'])}")
        if pooled:
            over = cells[last].get("ensemble_over_ceiling")
            row.append(_signed(over["value"]) if over else "")
        if paid:
            row += [_signed(contributors["payout_tv"]["value"]), _signed(contributors["payout_tv_printed"])]
        agreement = contributors["shapley_spearman" if "shapley_spearman" in contributors else "left_out_spearman"]
        rows.append([*row, _signed(agreement["value"]), f"{found[name]['card']['trainings']:.1f}"])
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
        told = [label, "failed" if shipped is None else _signed(shipped), row["best"], _signed(best)]
        rows.append([*told, row["of"], _signed(best + ahead["value"]), margin])
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


def _mean(method: Mapping[str, Any]) -> float:
    measured = method["spearman_vs_truth"]
    return float("-inf") if measured is None else float(measured)


def _policy(name: str, policy: Mapping[str, Any]) -> str:
    return name if policy["payable"] else f"{name} (comparison)"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00")


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def _percent(part: float, whole: float = 1) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0.0 %"


# -- Markdown ---------------------------------------------------------------------------------------------------


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
    "ahead_of_peers_mlp": "LDS ahead of the same method elsewhere at its best setting, least of all peers, digits",
}


def figure_rows(figures: Mapping[str, Any]) -> Rows:
    """Figures in words, with intervals and the method that they are of."""
    rows = [["measured against retraining, on other seeds than chosen by", "value", "95 % interval", "method"]]
    for name, words in FIGURES.items():
        if name in figures:
            found = figures[name]
            interval = f"{found['low']:.3f} to {found['high']:.3f}"
            rows.append([words, f"{found['value']:.3f}", interval, found.get("method", "")])
    return rows


def readme_block(result: Result | None, figures: Mapping[str, Any] | None = None) -> str:
    """What stands between the README's markers: a finished demo, and `figures` of experiments/results/fidelity.json."""
    block = _readme_block(result)
    if not figures:
        return block
    told = "All methods, their truths and the commands behind them: [docs/fidelity.md](docs/fidelity.md)."
    return "\n\n".join([block, markdown(figure_rows(figures)), told])


def _readme_block(result: Result | None) -> str:
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


def markdown(rows: Rows) -> str:
    """A table whose columns after the first are numbers."""
    head, *body = rows
    marks = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *body))


def between_markers(text: str, block: str) -> str:
    """`text` with `block` between the markers; raises `PoaError` unless each marker is there once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise PoaError(f"the README needs one {BEGIN} and, after it, one {END}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


# -- LaTeX ------------------------------------------------------------------------------------------------------

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "\\": r"\textbackslash{}"})


def latex(rows: Rows) -> str:
    """A booktabs table whose columns after the first are numbers."""
    head, *body = ([cell.translate(_SPECIAL).replace("<", "$<$") for cell in row] for row in rows)
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def latex_facts(result: Result) -> str:
    """Single numbers and provenance as sentences, code in typewriter."""
    parts = " ".join([*facts(result), f"Made by {provenance(result)}."]).split("`")
    escaped = [part.translate(_SPECIAL) for part in parts]
    return "".join(rf"\texttt{{{part}}}" if i % 2 else part for i, part in enumerate(escaped)) + "\n"


def tables(result: Result) -> dict[str, str]:
    """File name -> LaTeX for everything that the result holds."""
    name = result["name"]
    out = {f"{name}-methods.tex": latex(method_rows(result)), f"{name}-facts.tex": latex_facts(result)}
    if result.get("payout"):
        out[f"{name}-payout.tex"] = latex(payout_rows(result))
    if result.get("attacks"):
        out[f"{name}-attacks.tex"] = latex(attack_rows(result))
    return out


# -- figures ----------------------------------------------------------------------------------------------------


def draw(result: Result, folder: Path) -> list[Path]:
    """PDFs without dates, so that the same result gives the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from poa.integrations.plots import Measured, cost_vs_fidelity

    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    measured = {
        # A method that is done within the clock's resolution still needs a place on a logarithmic axis.
        name: Measured(max(row["seconds"], 0.001), truth, *row["interval"])
        for name, row in result["methods"].items()
        if (truth := row["spearman_vs_truth"]) is not None
    }
    if measured:
        made.append(_saved(cost_vs_fidelity(measured), folder / f"{result['name']}-cost-vs-fidelity.pdf"))
    if result.get("attacks"):
        made.append(_saved(_attack_bars(result["attacks"]), folder / f"{result['name']}-attacks.pdf"))
    pyplot.close("all")
    return made


def _attack_bars(policies: Mapping[str, Any]) -> Any:
    from matplotlib import pyplot

    attacks = sorted({attack for rows in policies.values() for attack in rows})
    _, axes = pyplot.subplots(1, len(policies), figsize=(3.4 * len(policies), 2.6), sharey=True, layout="constrained")
    for ax, (policy, rows) in zip([axes] if len(policies) == 1 else axes, policies.items(), strict=True):
        for shift, key, colour, label in (
            (-0.2, "share_before", "#b9c7d6", "honest"),
            (0.2, "share_after", "#b5482f", "attacking"),
        ):
            heights = [100 * rows[attack][key] if attack in rows else 0 for attack in attacks]
            ax.bar([i + shift for i in range(len(attacks))], heights, 0.38, color=colour, label=label)
        ax.set_xticks(range(len(attacks)), [attack.replace("_", "\n") for attack in attacks], fontsize=8)
        ax.set_title(policy, fontsize=9)
    first = axes if len(policies) == 1 else axes[0]
    first.set_ylabel("attacker's share, %")
    first.legend(frameon=False, fontsize=8)
    return first


def _saved(ax: Any, path: Path) -> Path:
    ax.get_figure().savefig(path, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return path


# -- everything -------------------------------------------------------------------------------------------------


def collect(root: Path, *, figures: bool = True) -> list[Path]:
    """Write all that follows from `root`/experiments/results; returns the files whose content is now other."""
    paths = sorted((root / "experiments/results").glob("*.json"))
    results = {path.stem: load(path) for path in paths if kind(path) == "run"}
    texts = {root / "paper/tables" / name: text for result in results.values() for name, text in tables(result).items()}
    for path in paths:
        if kind(path) == "fidelity":
            tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
            for name, task in tasks.items():
                texts[root / "paper/tables" / f"{path.stem}-{name}.tex"] = latex(fidelity_rows(task))
                if task["peers"]:
                    texts[root / "paper/tables" / f"{path.stem}-{name}-peers.tex"] = latex(peer_rows(task))
            page = root / "docs/fidelity.md"
            texts[page] = between_markers(page.read_text(encoding="utf-8"), fidelity_block(path, tasks))
    readme = root / "README.md"
    block = readme_block(results.get("quickstart"), fidelity_figures(root / "experiments/results"))
    texts[readme] = between_markers(readme.read_text(encoding="utf-8"), block)
    changed = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in changed:
        write_atomic(path, texts[path].encode())
    if figures:
        for result in results.values():
            draw(result, root / "paper/figures")
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action")
    keep = actions.add_parser("record", help="keep a finished run's summary")
    keep.add_argument("run", type=Path)
    keep.add_argument("--name", help="name of the result (default: the run's name)")
    keep.add_argument("--command", help="how the run was made, where it was not its preset alone")
    join = actions.add_parser("fidelity", help="join finished jobs of experiment=fidelity")
    join.add_argument("folders", type=Path, nargs="+")
    join.add_argument("--command", action="append", required=True, help="how the jobs were made; once per command")
    told = parser.parse_args(arguments)
    try:
        if told.action == "fidelity":
            _say([record_fidelity(told.folders, told.command, ROOT / "experiments/results")])
        elif told.action == "record":
            _say([record(told.run, told.name, told.command, ROOT / "experiments/results")])
        else:
            _say(collect(ROOT))
    except PoaError as error:
        print(f"collect: error: {error}", file=sys.stderr)
        return 2
    return 0


def _say(paths: Iterable[Path]) -> None:
    for path in paths:
        print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


if __name__ == "__main__":
    sys.exit(main())
