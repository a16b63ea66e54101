"""One door for the tiny base, local folders of any causal LM, and hub names."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.language import RECIPE, DoubleRun, autograd_rows, small_base

from poa.errors import Mismatch, PoaError
from poa.factory import adapters
from poa.factory.bases import base
from poa.factory.finetune import finetune
from poa.factory.run import LoRARun
from poa.methods.graddot import GradDot
from poa.records import Corpus


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_folder, tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture(scope="session")
def gpt2_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 as transformers saves it: Conv1D layers, learnt positions, tied head, dropout switched on."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_folder)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=0, eos_token_id=1
    )
    assert config.resid_pdrop > 0
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = GPT2LMHeadModel(config)
    out = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json"], r"has no config\.json; expected a save_pretrained folder"),
        (["model.safetensors"], "has no safetensors weights; pickled weights are never read"),
        (["tokenizer.json", "tokenizer_config.json"], "has no tokenizer files"),
    ],
)
def test_an_incomplete_folder_is_refused(folder: Path, names: list[str], message: str) -> None:
    for name in names:
        (folder / name).unlink()
    with pytest.raises(PoaError, match=message):
        base(folder)


def test_pickled_weights_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(PoaError, match="pickled weights are never read"):
        base(folder)


@pytest.mark.parametrize("name", ["missing", "./missing/folder", "/missing/folder", "a/b/c", "~/model"])
def test_neither_folder_nor_hub_name(name: str) -> None:
    with pytest.raises(PoaError, match="is not 'tiny', an existing folder or a hub name"):
        base(name)


def test_a_hub_name_off_the_network_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(PoaError, match="base 'nobody/no-such-model' is no local folder and the hub did not deliver it"):
        base("nobody/no-such-model")


@pytest.mark.parametrize("change", [{"max_position_embeddings": None}, {"model_type": "unheard-of"}])
def test_a_configuration_that_cannot_be_read(folder: Path, change: dict[str, object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(PoaError, match=r"config\.json is not a model configuration"):
        base(folder).task()


def test_a_context_must_be_named(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "bloom", "hidden_size": 8}))
    with pytest.raises(PoaError, match=r"config\.json names no context length"):
        base(folder).task()


def test_the_digest_follows_the_bytes(folder: Path, tiny_folder: Path) -> None:
    assert base(folder).digest == base(tiny_folder).digest
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert base(folder).digest != base(tiny_folder).digest


def test_the_tiny_base_is_made_once_and_the_same_way(tiny_folder: Path, tmp_path: Path) -> None:
    from tests.language import BASE, general

    from poa.factory.tiny import tiny_base

    note = json.loads((tiny_folder / "poa.json").read_text())
    assert note["last_loss"] < note["first_loss"] - 2
    lines = general()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POA_CACHE", str(tmp_path))
        again = tiny_base(BASE, lines)
        made = (again / "model.safetensors").stat().st_mtime_ns
        assert tiny_base(BASE, lines) == again
        assert (again / "model.safetensors").stat().st_mtime_ns == made
        short = replace(BASE, steps=2)
        assert tiny_base(short, lines) != again
        assert tiny_base(short, lines[:-1]) != tiny_base(short, lines)
    assert base(again).digest == base(tiny_folder).digest


def test_gpt2_goes_the_same_way(gpt2_folder: Path, corpus: Corpus, queries: Corpus, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=4)
    run = finetune(corpus, base=gpt2_folder, recipe=recipe, out=tmp_path / "run")
    assert run.steps.loss[-4:].mean() < run.steps.loss[0] - 0.1
    config = json.loads((run.adapter_folder / "adapter_config.json").read_text())
    assert config["fan_in_fan_out"] is True
    assert len(config["target_modules"]) == 8
    exact = DoubleRun(run, tmp_path / "double")
    expected = autograd_rows(exact, queries[:3], "query") @ autograd_rows(exact, corpus, "train").T
    found = GradDot().fit(exact).attribute(queries[:3]).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_gpt2_retrains_as_it_was_trained(gpt2_folder: Path, corpus: Corpus, queries: Corpus, tmp_path: Path) -> None:
    from poa.factory.counterfactual import retrain
    from poa.factory.measuring import measurements

    run = finetune(corpus, base=gpt2_folder, recipe=RECIPE, out=tmp_path / "run")
    found = retrain(run, np.ones((1, 16)), queries, (RECIPE.seed,), workers=1)
    np.testing.assert_allclose(found[0, 0], measurements(run.task, run.model(), queries), atol=1e-3)


def test_an_adapter_of_another_base_is_refused(run: LoRARun) -> None:
    other = base(small_base(seed=1))
    with pytest.raises(Mismatch, match=f"belongs to base {run.parent.digest[:16]}, not to base {other.digest[:16]}"):
        adapters.load(other.model(), run.adapter_folder, other.digest)


@pytest.mark.parametrize("name", adapters.FILES)
def test_an_incomplete_adapter_is_refused(run: LoRARun, tmp_path: Path, name: str) -> None:
    shutil.copytree(run.adapter_folder, tmp_path / "adapter")
    (tmp_path / "adapter" / name).unlink()
    with pytest.raises(PoaError, match=f"has no {name}"):
        adapters.load(run.base(), tmp_path / "adapter", run.parent.digest)


def test_a_fresh_adapter_changes_nothing_and_leaves_the_random_state_alone(run: LoRARun, queries: Corpus) -> None:
    before = torch.get_rng_state()
    model = adapters.attach(run.base(), RECIPE).eval()
    assert torch.equal(torch.get_rng_state(), before)
    batch = run.task.batch(list(queries))
    with torch.no_grad():
        assert torch.equal(run.task.measurement(model, batch), run.task.measurement(run.base(), batch))
    from poa.gradients.capture import example_gradients, layout

    rows = example_gradients(run.task, model, [queries[0]], "query")[0]
    for block in layout(run.task.tracked(model)):
        silent = "lora_A" in block.name
        assert bool((rows[block.start : block.stop] == 0).all()) is silent


def test_a_run_is_a_new_model_every_time(run: LoRARun) -> None:
    before = torch.get_rng_state()
    first = run.model()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    assert any(float(p.detach().abs().max()) > 0 for p in run.model().parameters())
    assert not run.model().training
