"""A fine-tune gives the same bytes twice and after an interruption, and leaves nothing behind where it fails."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.language import RECIPE

from poa.datanets.snapshot import Snapshot
from poa.errors import CorpusError, Corrupt, MissingExtra, PoaError
from poa.factory import finetune as module
from poa.factory import recipe as recipes
from poa.factory.causal import CausalLM
from poa.factory.finetune import finetune
from poa.factory.measuring import nats_per_token, tuned_and_base
from poa.factory.recipe import LoRARecipe
from poa.factory.run import LoRARun, load_run
from poa.records import Corpus, Record

SHORT = replace(RECIPE, epochs=1, checkpoints=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "cache" not in path.relative_to(folder).parts
    }


@pytest.fixture
def copy(run: LoRARun, tmp_path: Path) -> Path:
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("cache"))
    return tmp_path / "run"


def test_loss_drops_on_held_out_text(run: LoRARun, queries: Corpus) -> None:
    tuned, base = tuned_and_base(run, queries)
    assert nats_per_token(run.task, queries, tuned) < nats_per_token(run.task, queries, base) - 0.1


def test_the_manifest_is_the_corpus_and_every_record_is_seen_once_an_epoch(run: LoRARun, corpus: Corpus) -> None:
    assert run.corpus == corpus
    assert run.groups["contributor"] == corpus.contributors
    steps = run.steps.steps // RECIPE.epochs
    for epoch in (run.steps.records[:steps], run.steps.records[steps:]):
        assert sorted(epoch[epoch >= 0]) == list(range(len(corpus)))
    assert run.checkpoints == (4, 8)
    for row, denominator in zip(run.steps.records, run.steps.denominator, strict=True):
        assert denominator == sum(len(run.task.tokens(corpus[int(i)])) + 1 for i in row)


def test_the_step_log_holds_the_loss_that_the_optimizer_saw(run: LoRARun) -> None:
    batch = run.task.batch([run.corpus[int(i)] for i in run.steps.records[0]], whole=False)
    with torch.no_grad():
        loss = run.task.loss(run.base(), batch).sum() / run.steps.denominator[0]
    assert run.steps.loss[0] == pytest.approx(float(loss), rel=1e-5)


def test_the_last_checkpoint_is_adamw_by_hand(run: LoRARun) -> None:
    from poa.factory import adapters

    model = adapters.attach(run.parent.model(), RECIPE)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    first = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in trained.items()}
    second = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in trained.items()}
    low, high = RECIPE.betas
    for step in range(run.checkpoints[0]):
        picks = [run.corpus[int(i)] for i in run.steps.records[step]]
        total = run.task.loss(model, run.task.batch(picks, whole=False)).sum()
        slopes = torch.autograd.grad(total, list(trained.values()))
        for (name, p), slope in zip(trained.items(), slopes, strict=True):
            slope = slope.double() / run.steps.denominator[step]
            first[name] = low * first[name] + (1 - low) * slope
            second[name] = high * second[name] + (1 - high) * slope**2
            top = first[name] / (1 - low ** (step + 1))
            p.data -= (run.steps.rate[step] * top / ((second[name] / (1 - high ** (step + 1))).sqrt() + 1e-8)).float()
    stored = dict(run.model(0).named_parameters())
    for name, p in trained.items():
        np.testing.assert_allclose(stored[name].detach(), p.detach(), atol=2e-4)
        assert not torch.equal(stored[name], dict(run.model(1).named_parameters())[name])


def test_the_same_plan_gives_the_same_bytes(run: LoRARun, corpus: Corpus, tiny_folder: Path, tmp_path: Path) -> None:
    again = finetune(corpus, base=tiny_folder, recipe=RECIPE, out=tmp_path / "again")
    assert contents(again.folder) == contents(run.folder)
    assert again.digest == run.digest


@pytest.mark.parametrize("change", [{"seed": 1}, {"rate": 1e-2}, {"rank": 3}, {"alpha": 5}, {"batch": 3}])
def test_every_choice_counts(run: LoRARun, corpus: Corpus, tiny_folder: Path, change: dict[str, int]) -> None:
    digest = module.plan_digest(Snapshot.of(corpus), replace(RECIPE, **change), run.parent)
    assert digest != module.plan_digest(Snapshot.of(corpus), RECIPE, run.parent)
    assert digest != module.plan_digest(Snapshot.of(corpus[:-1]), RECIPE, run.parent)


class Stop(Exception):
    """What a test raises in the middle of training."""


@pytest.mark.parametrize("at", [0, 2, 4, 7])
def test_an_interrupted_run_ends_with_the_same_bytes(
    run: LoRARun, corpus: Corpus, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    calls = 0
    real = CausalLM.loss

    def loss(self: CausalLM, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        nonlocal calls
        if calls == at:
            raise KeyboardInterrupt
        calls += 1
        return real(self, model, batch)

    monkeypatch.setattr(CausalLM, "loss", loss)
    with pytest.raises(KeyboardInterrupt):
        finetune(corpus, base=tiny_folder, recipe=RECIPE, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    steps = 0

    def counted(self: CausalLM, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return real(self, model, batch)

    monkeypatch.setattr(CausalLM, "loss", counted)
    resumed = finetune(corpus, base=tiny_folder, recipe=RECIPE, out=tmp_path / "run")
    assert contents(resumed.folder) == contents(run.folder)
    assert steps == 8 - (at // 4) * 4
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_finished_run_is_returned_without_training(
    run: LoRARun, corpus: Corpus, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object) -> None:
        raise Stop

    monkeypatch.setattr(module, "train", train)
    assert finetune(corpus, base=tiny_folder, recipe=RECIPE).digest == run.digest
    with pytest.raises(Stop):
        finetune(corpus, base=tiny_folder, recipe=replace(RECIPE, seed=7))


def test_a_folder_of_another_plan_is_refused(copy: Path, corpus: Corpus, tiny_folder: Path) -> None:
    before = contents(copy)
    with pytest.raises(PoaError, match=r"holds another run .* choose another out="):
        finetune(corpus, base=tiny_folder, recipe=replace(RECIPE, seed=3), out=copy)
    assert contents(copy) == before


def test_a_folder_that_holds_something_else_is_left_alone(corpus: Corpus, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(PoaError, match=r"thesis .*choose"):
        finetune(corpus, base=tiny_folder, recipe=SHORT, out=tmp_path / "thesis")
    assert contents(tmp_path) == {"thesis/chapter.txt": b"years of work"}


def test_an_empty_folder_is_filled(corpus: Corpus, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert finetune(corpus[:4], base=tiny_folder, recipe=SHORT, out=tmp_path / "new").checkpoints == (1,)


@pytest.mark.parametrize(
    "name",
    [
        "checkpoints/step-000004/adapter_model.safetensors",
        "checkpoints/step-000008/adapter_config.json",
        "manifest.parquet",
        "steps.safetensors",
    ],
)
def test_an_altered_byte_is_found(copy: Path, name: str) -> None:
    body = bytearray((copy / name).read_bytes())
    body[-20] ^= 1
    (copy / name).write_bytes(bytes(body))
    with pytest.raises(Corrupt, match=f"{copy}.*digest that run.json promises"):
        load_run(copy)


@pytest.mark.parametrize("name", ["manifest.parquet", "steps.safetensors", "run.json"])
@pytest.mark.parametrize("left", [0, 30])
def test_a_truncated_file_is_found(copy: Path, name: str, left: int) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:left])
    with pytest.raises(Corrupt, match=str(copy)):
        load_run(copy)


@pytest.mark.parametrize("name", ["manifest.parquet", "steps.safetensors", "checkpoints/step-000004"])
def test_a_missing_part_is_named(copy: Path, name: str) -> None:
    part = copy / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    with pytest.raises(PoaError, match=part.name.split(".")[0]):
        load_run(copy)


@pytest.mark.parametrize("field", ["groups", "recipe", "snapshot", "versions"])
def test_a_changed_note_is_found(copy: Path, field: str) -> None:
    note = json.loads((copy / "run.json").read_text())
    if field == "groups":
        note["groups"]["payee"] = ["thief"] * 16
    elif field == "recipe":
        note["recipe"]["rate"] = 0.5
    elif field == "snapshot":
        note["snapshot"] = "0" * 64
    else:
        note["versions"]["torch"] = "0.0"
    (copy / "run.json").write_text(json.dumps(note))
    with pytest.raises(Corrupt, match=r"run\.json does not have the digest that it promises"):
        load_run(copy)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(PoaError, match=r"is no training run: it has no run\.json"):
        load_run(tmp_path)


def test_another_base_under_the_same_name(copy: Path) -> None:
    note = json.loads((copy / "run.json").read_text())
    moved = copy.parent / "base"
    shutil.copytree(note["base"]["name"], moved)
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    (copy / "run.json").write_text(json.dumps(note | {"base": note["base"] | {"name": str(moved)}}))
    with pytest.raises(Corrupt, match="was trained on base"):
        load_run(copy)


@pytest.mark.parametrize(
    ("text", "prompt", "message"),
    [
        ("short", "word " * 200, "'long': the prompt alone fills the context of 128 tokens"),
    ],
)
def test_a_record_that_does_not_fit(tiny_folder: Path, tmp_path: Path, text: str, prompt: str, message: str) -> None:
    with pytest.raises(PoaError, match=message):
        finetune(Corpus([Record("long", text, prompt)]), base=tiny_folder, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_query_longer_than_the_context(run: LoRARun) -> None:
    from poa.methods.graddot import GradDot

    asked = Corpus([Record("wordy", "onion " * 300)])
    with pytest.raises(PoaError, match=r"record 'wordy' has \d+ tokens; the model's context is 128"):
        GradDot().fit(run).attribute(asked)


def test_a_long_record_is_cut_to_the_context(run: LoRARun) -> None:
    batch = run.task.batch([Record("wordy", "onion " * 300)], whole=False)
    assert batch["input_ids"].shape == (1, 128)


def test_wrong_inputs(tiny_folder: Path, tmp_path: Path, corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match="at least one record"):
        finetune(corpus[:0], base=tiny_folder, out=tmp_path / "run")
    with pytest.raises(PoaError, match="did you mean 'lora'"):
        finetune(corpus, base=tiny_folder, method="lara", out=tmp_path / "run")
    with pytest.raises(PoaError, match="'f' has features; a language model needs text"):
        finetune(Corpus([Record("f", features=(1.0,), label=0)]), base=tiny_folder, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"recipe\.rank is 0, must be at least 1"),
        ({"batch": 0}, r"recipe\.batch is 0"),
        ({"checkpoints": 0}, r"recipe\.checkpoints is 0"),
        ({"rate": 0.0}, r"recipe\.rate is 0\.0, must be between 0 and 1"),
        ({"rate": float("nan")}, r"recipe\.rate is nan"),
        ({"quantise": "8bit"}, "must be none or 4bit"),
    ],
)
def test_bad_recipes(options: dict[str, object], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        LoRARecipe(**options)  # type: ignore[arg-type]


def test_qlora_says_what_is_missing(
    corpus: Corpus, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"needs bitsandbytes: pip install 'poa\[qlora\]'"):
        finetune(corpus, base=tiny_folder, method="qlora", out=tmp_path / "run")
    monkeypatch.setattr(recipes, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PoaError, match="needs a CUDA device and none is visible"):
        finetune(corpus, base=tiny_folder, recipe=replace(SHORT, quantise="4bit"), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("free", [4_000, 30_000, 80_000, 130_000])
def test_a_full_disk_is_one_error_and_leaves_nothing(
    corpus: Corpus, tiny_folder: Path, small_disk: Path, free: int
) -> None:
    (small_disk / "ballast").write_bytes(b"\0" * ((1 << 20) - free))
    with pytest.raises(PoaError, match=r"cannot write .*No space left") as caught:
        finetune(corpus, base=tiny_folder, recipe=SHORT, out=small_disk / "run")
    assert "\n" not in str(caught.value)
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]
