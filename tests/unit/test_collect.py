"""Committed results become tables, figures and the README's numbers, the same every time."""

from __future__ import annotations

import copy
import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from poa.errors import PoaError
from poa.fidelity.job import JOB

ROOT = Path(__file__).parents[2]

RESULT: dict[str, Any] = {
    "name": "quickstart",
    "command": "poa run experiment=quickstart",
    "environment": {"poa": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6", "cores": 2},
    "seconds": {"tune": 10.0, "truth": 100.0, "total": 140.0},
    "heldout_nll": {"base": 4.5, "tuned": 4.25},
    "methods": {
        "bm25": {
            "seconds": 0.01,
            "spearman_vs_truth": 0.25,
            "interval": [-0.004, 0.5],
            "identity": "BM25(k1=1.2, b=0.75)",
        },
        "influence": {
            "seconds": 8.0,
            "spearman_vs_truth": 0.75,
            "interval": [0.5, 0.875],
            "identity": "Influence(damping=0.1, checkpoints='all')",
        },
        "random": {"seconds": 0.0, "spearman_vs_truth": None, "interval": None, "identity": "Random(seed=0)"},
    },
    "payout": {
        "net-epoch": {"a": 40, "b": 10},
        "openledger-printed": {"a": 300, "b": 200, "c": 300},
        "residuals": {
            "net-epoch": {"base": 700, "below_threshold": 30, "unattributed": 19},
            "openledger-printed": {"base": 0, "below_threshold": 0, "unattributed": 0},
        },
    },
    "settlement": {
        "net-epoch": {"fee": 1000, "parts": {"model": 200}, "carry": 1, "payable": True},
        "openledger-printed": {"fee": 1000, "parts": {"model": 200}, "carry": 0, "payable": False},
    },
    "placebo": {"queries": 20, "paid": 5, "real_paid": 50, "ratio": 0.1},
    "attacks": {
        "net-epoch": {"noise_farm": {"share_before": 0.125, "share_after": 0.0}},
        "openledger-printed": {
            "copier": {"share_before": 0.25, "share_after": 0.5},
            "noise_farm": {"share_before": 0.25, "share_after": 0.75},
        },
    },
    "ledger": {"size": 74, "root": "ab" * 32, "verified": True},
    "digests": {"snapshot": "s", "adapter": "a", "scores": "c"},
}


def imported(name: str) -> ModuleType:
    """A module of experiments/, as `python experiments/collect.py` finds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "experiments")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    return imported("collect")


as_text, of_runs, of_fidelity, committed = (
    imported(f"collected.{name}") for name in ("text", "runs", "fidelity", "results")
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository that holds a README with markers and one result."""
    (tmp_path / "experiments/results").mkdir(parents=True)
    (tmp_path / "experiments/results/quickstart.json").write_text(json.dumps(RESULT))
    text = "before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n"
    (tmp_path / "README.md").write_text(text)
    return tmp_path


def test_the_readme_and_the_tables_say_what_the_committed_results_say(collect: ModuleType) -> None:
    paths = (ROOT / "experiments/results").glob("*.json")
    results = {path.stem: committed.load(path) for path in paths if committed.kind(path) == "run"}
    readme = (ROOT / "README.md").read_text()
    figures = committed.fidelity_figures(ROOT / "experiments/results")
    assert as_text.between_markers(readme, collect.readme_block(results.get("quickstart"), figures)) == readme
    for result in results.values():
        for name, text in of_runs.tables(result).items():
            assert (ROOT / "paper/tables" / name).read_text() == text, f"{name}: run experiments/collect.py"


def test_methods_stand_best_first_with_time_as_a_fraction_of_retraining(collect: ModuleType) -> None:
    assert of_runs.method_rows(RESULT) == [
        ["method", "rank correlation", "95 % interval", "time / retraining"],
        ["influence", "0.75", "0.50 to 0.88", "0.080"],
        ["bm25", "0.25", "0.00 to 0.50", "< 0.001"],
        ["random", "not measured", "", "< 0.001"],
    ]


def test_times_of_a_cached_truth_are_no_measure(collect: ModuleType) -> None:
    cached = RESULT | {"seconds": {"tune": 0.4, "truth": 0.3}}
    assert of_runs.method_rows(cached)[:2] == [
        ["method", "rank correlation", "95 % interval", "seconds"],
        ["influence", "0.75", "0.50 to 0.88", "8.00"],
    ]
    assert of_runs.truth_seconds(RESULT | {"seconds": {"tune": 1.0}}) is None


def test_fees_and_attacks_are_percentages_per_rule(collect: ModuleType) -> None:
    assert of_runs.payout_rows(RESULT) == [
        ["share of the fees", "net-epoch", "openledger-printed (comparison)"],
        ["contributors, by score", "5.0 %", "80.0 %"],
        ["contributors paid", "2", "3"],
        ["the base model's share", "70.0 %", "0.0 %"],
        ["below the threshold", "3.0 %", "0.0 %"],
        ["unattributed", "1.9 %", "0.0 %"],
        ["model", "20.0 %", "20.0 %"],
    ]
    assert of_runs.attack_rows(RESULT)[1:] == [
        ["copier", "", "", "25.0 %", "50.0 %"],
        ["noise farm", "12.5 %", "0.0 %", "25.0 %", "75.0 %"],
    ]


def test_a_ledger_that_does_not_verify_is_not_hidden(collect: ModuleType) -> None:
    broken = RESULT | {"ledger": RESULT["ledger"] | {"verified": False}}
    assert "74 entries, NOT verified" in collect.readme_block(broken)


def test_a_run_without_money_gives_the_tables_that_it_can(collect: ModuleType) -> None:
    bare = {key: RESULT[key] for key in committed.NEEDED}
    assert sorted(of_runs.tables(bare)) == ["quickstart-facts.tex", "quickstart-methods.tex"]
    assert "fees" not in collect.readme_block(bare)


def test_latex_is_escaped(collect: ModuleType) -> None:
    text = as_text.latex([["a_b", "50 %"], ["x & y", "< 0.001"]])
    assert r"a\_b & 50 \%" in text
    assert r"x \& y & $<$ 0.001" in text
    facts = of_runs.latex_facts(RESULT)
    assert r"\texttt{poa run experiment=quickstart}" in facts
    assert "`" not in facts


def test_collecting_twice_gives_the_same_bytes(collect: ModuleType, checkout: Path) -> None:
    changed = collect.collect(checkout)
    assert checkout / "README.md" in changed
    assert len(changed) == 5
    readme = (checkout / "README.md").read_text()
    assert readme.startswith("before\n")
    assert readme.endswith("after\n")
    assert "\nold\n" not in readme
    figures = {path: path.read_bytes() for path in (checkout / "paper/figures").iterdir()}
    assert sorted(path.name for path in figures) == ["quickstart-attacks.pdf", "quickstart-cost-vs-fidelity.pdf"]
    assert collect.collect(checkout) == []
    assert {path: path.read_bytes() for path in figures} == figures


def test_markers_must_be_there_once(collect: ModuleType) -> None:
    for text in ("none", f"{as_text.END}{as_text.BEGIN}", f"{as_text.BEGIN}{as_text.BEGIN}{as_text.END}"):
        with pytest.raises(PoaError, match="README needs one"):
            as_text.between_markers(text, "block")


def test_results_of_another_kind_are_not_taken_for_runs(collect: ModuleType, checkout: Path) -> None:
    (checkout / "experiments/results/other.json").write_text(json.dumps({"kind": "table", "figures": {}}))
    assert checkout / "README.md" in collect.collect(checkout, figures=False)
    (checkout / "experiments/results/broken.json").write_text("{")
    with pytest.raises(PoaError, match=r"broken\.json is not a readable result"):
        collect.collect(checkout, figures=False)


@pytest.mark.parametrize("key", ["seconds", "environment"])
def test_an_incomplete_result_is_refused_by_name(collect: ModuleType, tmp_path: Path, key: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({name: value for name, value in RESULT.items() if name != key}))
    with pytest.raises(PoaError, match=rf"x\.json has no '{key}'"):
        committed.load(path)


def finished(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """A run folder as `poa run` leaves it, made by the preset alone unless `changes` are told."""
    import yaml

    from poa.commands import composition

    with composition.opened(composition.conf_folder()) as app:
        _, (job,) = composition.compose(app, ["experiment=quickstart"], sweep=False)
    config = copy.deepcopy(job.config) | {"choices": job.choices, "name": "quickstart", "job": "j"} | (changes or {})
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    summary = {key: value for key, value in RESULT.items() if key not in ("name", "command", "environment")}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_recorded_run_names_its_command_and_versions(collect: ModuleType, tmp_path: Path) -> None:
    path = committed.record(finished(tmp_path / "run"), None, None, tmp_path / "results")
    found = committed.load(path)
    assert path.name == "quickstart.json"
    assert found["command"] == "poa run experiment=quickstart"
    assert {"python", "torch", "cores"} <= set(found["environment"])
    assert found["methods"] == RESULT["methods"]
    assert re.search(r"torch \d+\.\d+", of_runs.provenance(found))


def test_a_run_with_overrides_needs_its_command(collect: ModuleType, tmp_path: Path) -> None:
    run = finished(tmp_path / "run", {"seed": 7})
    with pytest.raises(PoaError, match=r"differs from experiment=quickstart in seed"):
        committed.record(run, None, None, tmp_path / "results")
    path = committed.record(run, "other", "poa run experiment=quickstart seed=7", tmp_path / "results")
    assert committed.load(path)["command"].endswith("seed=7")


def test_what_is_no_run_or_names_this_machine_is_refused(collect: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(PoaError, match=r"no summary\.json"):
        committed.record(tmp_path, None, None, tmp_path / "results")
    run = finished(tmp_path / "run")
    (run / "summary.json").write_text(json.dumps({"where": str(tmp_path / "run")}))
    with pytest.raises(PoaError, match="names a folder of this machine"):
        committed.record(run, None, None, tmp_path / "results")
    (run / "config.yaml").unlink()
    with pytest.raises(PoaError, match=r"holds no config\.yaml"):
        committed.record(run, None, None, tmp_path / "results")
    (run / "summary.json").write_text(json.dumps({"kind": JOB}))
    with pytest.raises(PoaError, match=r"a job of experiment=fidelity: collect\.py fidelity"):
        committed.record(run, None, None, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_the_performance_page_says_what_the_committed_benchmarks_say() -> None:
    files = [json.loads(path.read_text()) for path in (ROOT / "experiments/benchmarks").glob("*.json")]
    figures = {name.split(".")[-1]: value for file in files for name, value in file["figures"].items()}
    ranges = {name.split(".")[-1]: limits for file in files for name, limits in file["ranges"].items()}
    rows = [line for line in (ROOT / "docs/performance.md").read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == len(figures)
    for row in rows:
        name, _, value, limits = (cell.strip(" `") for cell in row.strip("|").split("|"))
        places = 2 if len(value.split(".")[1]) == 2 else 1
        assert value == f"{figures[name]:.{places}f}"
        told = " to ".join(f"{limit:.{places}f}" for limit in ranges[name]) if name in ranges else "one run"
        assert limits == told


def fidelity_result() -> dict[str, Any]:
    """One task, two methods, two seeds."""

    def interval(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    def row(value: float, seeds: list[int]) -> dict[str, Any]:
        cell = {"own_run": interval(value), "ensemble_over_ceiling": interval(value)}
        paid = {"payout_tv": interval(0.1), "payout_tv_printed": 0.25, "shapley_spearman": interval(0.5)}
        card = {"seconds": 2.0, "trainings": 4.0, "bytes_per_record": 1000.0}
        return {"method": "m", "seeds": seeds, "lds": {"5": cell, "50": cell}, "contributors": paid, "card": card}

    truth = {"subsets": {p: {"subsets": 8, "reliability": 0.6, "ceiling": 0.9} for p in ("5", "50")}}
    task = {"seeds": [0, 1], "records": 80, "queries": 6, "contributors": 3, "truth": truth, "refused": {"bm25": "why"}}
    task |= {"methods": {"graddot": row(0.25, [0, 1]), "kfac": row(0.75, [0])}}
    spread = {"seeds": 0.01, "subsets": 0.02, "queries": 0.03}
    task |= {"noise": {"50": {"method": "kfac", "spread": spread, "subsets_for_0.02": None}}}
    beside = {"own_run": interval(0.5), "ahead": {"value": 0.25, "low": 0.125, "high": 0.375}}
    peer = {"of": "kfac", "settings": {"as shipped": 0.125, "damping 1": 0.5}, "failed": {}, "best": "damping 1"}
    failed = {"of": "kfac", "settings": {}, "failed": {"as shipped": "singular"}}
    task |= {"peers": {"peer K-FAC": peer | {"lds": {"50": beside}}, "peer CG": failed}}
    figures = {"mlp_half_1": interval(0.75) | {"method": "kfac"}}
    told = {"kind": "fidelity", "command": "poa run experiment=fidelity", "environment": RESULT["environment"]}
    return told | {"tasks": {"digits_mlp": task}, "figures": figures}


def test_a_fidelity_result_becomes_tables(collect: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "experiments/results").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"{as_text.BEGIN}\n{as_text.END}\n")
    (tmp_path / "docs/fidelity.md").write_text(f"before\n{as_text.BEGIN}\n{as_text.END}\nafter\n")
    (tmp_path / "experiments/results/fidelity.json").write_text(json.dumps(fidelity_result()))
    changed = {path.relative_to(tmp_path).as_posix() for path in collect.collect(tmp_path, figures=False)}
    assert {"docs/fidelity.md", "paper/tables/fidelity-digits_mlp.tex"} <= changed
    page = (tmp_path / "docs/fidelity.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "| mlp_half_1 | 0.750 | 0.650 to 0.850 | kfac |" in page
    kfac, graddot = page.index("| kfac (seeds 0) | 0.75 |"), page.index("| graddot | 0.25 |")
    assert kfac < graddot
    assert "Do not apply: bm25." in page
    assert "ceiling 0.90" in page
    assert "50 % (kfac): seeds 0.010, subsets 0.020, queries 0.030; no number of subsets for +- 0.02" in page
    assert "| peer K-FAC | 0.12 | damping 1 | 0.50 | kfac | 0.75 | 0.250 (0.125 to 0.375) |" in page
    assert "peer CG" in page
    assert "damping 1" in (tmp_path / "paper/tables/fidelity-digits_mlp-peers.tex").read_text()
    assert collect.collect(tmp_path, figures=False) == []


def test_the_readme_repeats_figures_in_words(collect: ModuleType) -> None:
    figures = {"magic_mlp_5": {"value": 0.5, "low": 0.25, "high": 0.75, "method": "magic"}, "auto_cells": {"value": 1}}
    assert committed.fidelity_figures(ROOT / "tests") == {}
    head, row = of_fidelity.figure_rows(figures)
    assert row == ["MAGIC, digits network, removal of 5 %: LDS", "0.500", "0.250 to 0.750", "magic"]
    block = collect.readme_block(RESULT, figures)
    assert block.startswith(collect.readme_block(RESULT))
    assert as_text.markdown([head, row]) in block


def test_damping_cells_are_a_proportion_with_its_interval(collect: ModuleType, tmp_path: Path) -> None:
    assert committed.auto_cells(tmp_path) == {}
    told = {"kind": "damping", "cells": [{}] * 24, "figures": {"auto_damping_cells": 0.75}}
    (tmp_path / "damping.json").write_text(json.dumps(told))
    found = committed.auto_cells(tmp_path)["auto_cells"]
    assert (found["value"], found["cells"]) == (0.75, 24)
    # Wilson's interval for 18 of 24, from tables
    assert (found["low"], found["high"]) == pytest.approx((0.551, 0.880), abs=1e-3)
