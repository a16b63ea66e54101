"""Jobs of experiment=fidelity on a task of seconds: what they leave, that they repeat, what a result makes of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poa.errors import Corrupt, Mismatch, PoaError
from poa.evaluation.cards import cards, means, require_card
from poa.evaluation.subsets import SubsetTruth
from poa.fidelity.figures import figures
from poa.fidelity.job import CONTRIBUTORS, POOLED, SCORES, TRUTH, run_fidelity
from poa.fidelity.quantities import payout_interval, printed_error
from poa.fidelity.result import PEER, result
from poa.fidelity.rows import ROWS, view
from poa.fidelity.tasks import DigitsTask, PlantedTask, TextTask
from poa.fidelity.truth import TaskTruth
from poa.methods import method
from poa.scores import Scores

TASK = {
    "_target_": "poa.fidelity.tasks.DigitsTask",
    "name": "digits_mlp",
    "hidden": [],
    "records": 80,
    "held": 6,
    "contributors": 3,
    "steps": 20,
    "batch": 40,
    "rate": 0.02,
    "removed": {"5": 8, "50": 8},
    "ensemble": 2,
    "brittle": [4],
    "coalitions": True,
    "mislabels": 4,
}


def config(name: str, seed: int, task: dict[str, Any] = TASK, **options: Any) -> dict[str, Any]:
    kind = type(method(name))
    return {
        "task": task,
        "method": {"_target_": f"{kind.__module__}.{kind.__qualname__}", **options},
        "logger": {"_target_": "poa.integrations.wandb.Quiet"},
        "choices": {"method": name, "task": task["name"]},
        "name": "fidelity",
        "seed": seed,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POA_CACHE", str(tmp_path_factory.mktemp("cache")))
        for seed in (0, 1):
            for name in ("graddot", "random", "bm25"):
                folder = out / f"{name}-{seed}"
                folder.mkdir()
                made = config(name, seed)
                run_fidelity(made, folder)
                (folder / "config.yaml").write_text(json.dumps(made))  # as `poa run` writes it
    return out


def test_a_job_leaves_scores_truth_rows_and_a_card(finished: Path) -> None:
    folder = finished / "graddot-0"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["card"].keys() == {"seconds", "trainings", "bytes_per_record"}
    assert summary["card"]["bytes_per_record"] > 0
    truth = TaskTruth.load(folder / TRUTH)
    assert {percent: found.values.shape for percent, found in truth.subsets.items()} == {
        "5": (1, 8, 6),
        "50": (1, 8, 6),
    }
    assert truth.shapley is not None
    # Efficiency: what all contributors are worth is what training with everybody brought about.
    effects = truth.shapley.effects[0].sum(1)
    start = DigitsTask(**{k: v for k, v in TASK.items() if k != "_target_"}).run(0).retrained(np.zeros(80))
    asked = start.task.batch(list(DigitsTask(**{k: v for k, v in TASK.items() if k != "_target_"}).queries))
    before = start.task.measurement(start.model(), asked).detach().numpy()
    np.testing.assert_allclose(effects, truth.shapley.full[0] - before, atol=1e-8)
    pooled, payees = Scores.load(folder / POOLED), Scores.load(folder / CONTRIBUTORS)
    np.testing.assert_allclose(pooled.by("payee").values, payees.values, rtol=1e-12)
    assert payees.stderr is not None


def test_rows_are_the_numbers_of_the_stored_scores_and_truth(finished: Path) -> None:
    folder = finished / "graddot-1"
    truth, scores = TaskTruth.load(folder / TRUTH), Scores.load(folder / SCORES)
    found = {
        (quantity, scope, removed): value
        for quantity, scope, removed, value in view(finished)
        .execute("select quantity, scope, removed, value from rows where method = 'graddot' and seed = 1")
        .fetchall()
    }
    assert found["lds", "own_run", "50"] == truth.subsets["50"].lds(scores, resamples=1).value
    assert truth.shapley is not None
    assert found["payout_tv", "own_run", ""] == payout_interval(truth.shapley, scores, 1).value
    assert found["payout_tv_printed", "own_run", ""] == printed_error(truth.shapley, scores)
    assert {"brittleness", "tail_patch", "mislabel_auc", "interval_coverage"} <= {key[0] for key in found}


def test_the_same_job_again_gives_the_same_bytes(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POA_CACHE", str(tmp_path / "nothing known"))
    again = tmp_path / "again"
    again.mkdir()
    run_fidelity(config("graddot", 0), again)
    for name in (SCORES, POOLED, CONTRIBUTORS, TRUTH, ROWS):
        assert (again / name).read_bytes() == (finished / "graddot-0" / name).read_bytes(), name


def test_a_method_that_does_not_apply_is_told_so_and_trains_nothing(finished: Path) -> None:
    summary = json.loads((finished / "bm25-0" / "summary.json").read_text())
    assert "feature vector" in summary["refused"]
    assert not (finished / "bm25-0" / TRUTH).exists()


def test_a_result_joins_the_seeds(finished: Path, tmp_path: Path) -> None:
    told = result([finished], "poa run", {"poa": "here"})
    task = told["tasks"]["digits_mlp"]
    assert task["seeds"] == [0, 1]
    assert task["refused"].keys() == {"bm25"}
    graddot, random = task["methods"]["graddot"], task["methods"]["random"]
    own = []
    for seed in (0, 1):
        truth = TaskTruth.load(finished / f"graddot-{seed}" / TRUTH)
        own.append(truth.subsets["50"].lds(Scores.load(finished / f"graddot-{seed}" / SCORES), resamples=1).value)
    assert graddot["lds"]["50"]["own_run"]["value"] == pytest.approx(np.mean(own), abs=1e-12)
    assert graddot["lds"]["50"]["own_run"]["value"] > random["lds"]["50"]["own_run"]["value"]
    assert 0 < task["truth"]["subsets"]["50"]["ceiling"] <= 1
    noise = task["noise"]["50"]
    assert noise["method"] == "graddot"
    assert noise["spread"].keys() == {"seeds", "subsets", "queries"}
    assert noise["subsets_for_0.02"] is None or noise["subsets_for_0.02"] > 0
    assert told["figures"]["mlp_half_1"]["method"] == "graddot"
    assert told["figures"]["payout_tv_digits"]["value"] <= graddot["contributors"]["payout_tv"]["value"]
    (tmp_path / "fidelity.json").write_text(json.dumps(told, allow_nan=False))
    (card,) = cards(tmp_path)["graddot"]
    assert card.measure == "LDS at 50 %"
    require_card("graddot", method("graddot"), tmp_path)
    with pytest.raises(PoaError, match=r"KFAC.* has no measured card and may not pay"):
        require_card("kfac", method("kfac"), tmp_path)
    with pytest.raises(PoaError, match=r"measured are GradDot"):
        require_card("graddot", method("graddot", coordinates="balanced"), tmp_path)


def test_jobs_of_other_recipes_are_not_joined(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "jobs")
    other = tmp_path / "jobs/graddot-1/config.yaml"
    told = json.loads(other.read_text())
    told["task"]["ensemble"] = 7  # what else is measured may differ
    other.write_text(json.dumps(told))
    assert result([tmp_path / "jobs"], "poa run", {})["tasks"]["digits_mlp"]["config"].keys() >= {"name"}
    told["task"]["steps"] = 1
    other.write_text(json.dumps(told))
    with pytest.raises(PoaError, match="differ in steps: they are not of one task"):
        result([tmp_path / "jobs"], "poa run", {})


def test_a_card_that_is_older_than_an_option_means_its_default() -> None:
    magic = method("magic")
    assert means("MAGIC(stack=None, smooth=0.9, seed=0)", magic)
    assert means(repr(magic), magic)
    assert means("MAGIC(smooth=0.9)", magic)
    for other in ("MAGIC(stack=None, smooth=0.5)", "MAGIC(rank=3)", "LoGra(seed=0)", "MAGIC(", "MAGIC(stack=f())", "1"):
        assert not means(other, magic)
    assert not means("MAGIC(stack=None, smooth=0.9, seed=0)", method("magic", probes=3))


def test_a_method_of_fewer_seeds_says_so(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(finished / "graddot-0", target_is_directory=True)
    (tmp_path / "two").symlink_to(finished / "graddot-1", target_is_directory=True)
    (tmp_path / "three").symlink_to(finished / "random-0", target_is_directory=True)
    methods = result([folder.resolve() for folder in tmp_path.iterdir()], "", {})["tasks"]["digits_mlp"]["methods"]
    assert {name: row["seeds"] for name, row in methods.items()} == {"graddot": [0, 1], "random": [0]}
    with pytest.raises(PoaError, match="no finished job"):
        result([tmp_path / "nowhere"], "", {})


def test_a_peer_is_judged_by_the_same_truth_in_its_best_setting(finished: Path, tmp_path: Path) -> None:
    def asked(setting: str, values: Any, seed: int = 0, **also: str) -> None:
        folder = tmp_path / f"{setting}-{seed}".replace(" ", "-")
        own = Scores.load(finished / f"graddot-{seed}" / SCORES)
        replace(own, values=values(own.values)).save(folder / SCORES)
        summary = {"kind": PEER, "task": "digits_mlp", "seed": seed, "label": "peer GradDot", "of": "graddot"}
        (folder / "summary.json").write_text(json.dumps(summary | {"setting": setting, **also}))

    asked("as shipped", lambda values: -values)
    for seed in (0, 1):
        asked("damping 1", lambda values: 3 * values, seed)
    asked("damping 0", np.zeros_like, failed="LinAlgError: singular")
    told = result([finished, tmp_path], "", {})
    peer = told["tasks"]["digits_mlp"]["peers"]["peer GradDot"]
    assert (peer["of"], peer["best"], peer["failed"]) == (
        "graddot",
        "damping 1",
        {"damping 0": "LinAlgError: singular"},
    )
    own = told["tasks"]["digits_mlp"]["methods"]["graddot"]["lds"]["50"]["own_run"]
    assert peer["lds"]["50"] == {"own_run": own, "ahead": {"value": 0, "low": 0, "high": 0}}
    truth = TaskTruth.load(finished / "graddot-0" / TRUTH).subsets["50"]
    lds = truth.lds(Scores.load(finished / "graddot-0" / SCORES), resamples=1).value
    assert peer["settings"] == {"as shipped": pytest.approx(-lds), "damping 1": pytest.approx(own["value"])}
    assert told["figures"]["ahead_of_peers_mlp"]["value"] == 0
    assert peer["shipped"]["50"]["ahead"]["value"] == pytest.approx(2 * lds)
    assert told["figures"]["ahead_of_peers_mlp_as_shipped"] == peer["shipped"]["50"]["ahead"] | {
        "method": "peer GradDot"
    }


def test_torn_files_of_a_job_are_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "jobs")
    rows = tmp_path / "jobs/graddot-1" / ROWS
    whole = rows.read_bytes()
    rows.write_bytes(whole[:100])
    with pytest.raises(Corrupt, match=r"graddot-1.*not readable"):
        result([tmp_path / "jobs"], "", {})
    rows.write_bytes(whole)
    told = tmp_path / "jobs/graddot-1/config.yaml"
    told.write_text("[1")
    with pytest.raises(PoaError, match=r"config.yaml is not readable"):
        result([tmp_path / "jobs"], "", {})
    told.unlink()
    with pytest.raises(PoaError, match=r"config.yaml is not readable"):
        result([tmp_path / "jobs"], "", {})


def test_changed_truth_is_refused(finished: Path, tmp_path: Path) -> None:
    body = bytearray((finished / "graddot-0" / TRUTH).read_bytes())
    body[-3] ^= 1
    (tmp_path / "truth").write_bytes(body)
    with pytest.raises(Corrupt, match="digest"):
        TaskTruth.load(tmp_path / "truth")
    (tmp_path / "truth").write_bytes(b'{"schema": "other"}\n')
    with pytest.raises(Mismatch, match="schema"):
        TaskTruth.load(tmp_path / "truth")


def test_truths_over_other_subsets_are_not_joined(finished: Path) -> None:
    truth = TaskTruth.load(finished / "graddot-0" / TRUTH)
    old = truth.subsets["50"]
    turned = SubsetTruth(old.masks[::-1], old.values, old.seeds, old.query_ids, old.train_ids, old.removed)
    other = TaskTruth({**truth.subsets, "50": turned}, truth.shapley, truth.left_out)
    with pytest.raises(Mismatch, match="other subsets"):
        TaskTruth.joined([truth, other])


def test_seeds_of_ensembles_are_kept_apart(tmp_path: Path) -> None:
    with pytest.raises(PoaError, match="from 0 to 999"):
        run_fidelity(config("graddot", 1000), tmp_path)


def test_wrong_tasks_are_refused_by_name() -> None:
    with pytest.raises(PoaError, match=r"task\.removed names '0'"):
        DigitsTask("t", removed={"0": 8})
    with pytest.raises(PoaError, match=r"task\.removed gives 1 subsets for 5 %"):
        DigitsTask("t", removed={"5": 1})
    with pytest.raises(PoaError, match=r"task\.recipe has no option 'ranks'"):
        TextTask("t", {"name": "installed-docs"}, recipe={"ranks": 4})
    with pytest.raises(PoaError, match=r"task\.ensemble is -1"):
        PlantedTask("t", ensemble=-1)


def test_figures_name_the_best_method_of_their_kind() -> None:
    def row(name: str, half: float, payout: float) -> dict[str, Any]:
        cell = {"own_run": {"value": half, "low": half, "high": half}}
        tv = {"value": payout, "low": payout, "high": payout}
        return {"method": name, "lds": {"5": cell, "50": cell}, "contributors": {"payout_tv": tv}}

    rows = {
        "magic": row("magic", 0.9, 0.01),
        "influence": row("influence", 0.8, 0.3),
        "influence, checkpoints=last": row("influence", 0.7, 0.2),
        "kfac": row("kfac", 0.6, 0.1),
    }
    found = figures({"digits_mlp": {"methods": rows}})
    assert found["mlp_half_1"] == {"value": 0.7, "low": 0.7, "high": 0.7, "method": "influence, checkpoints=last"}
    assert found["payout_tv_digits"]["method"] == "kfac"
    assert found["best_over_magic_mlp"]["value"] == pytest.approx(0.7 / 0.9)
    assert found["best_over_magic_mlp_50"]["value"] == pytest.approx(0.7 / 0.9)
    assert found["magic_mlp_5"] == {"value": 0.9, "low": 0.9, "high": 0.9, "method": "magic"}
    assert "magic_lora_5" not in found
