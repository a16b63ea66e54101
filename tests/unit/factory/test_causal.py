"""The causal language model task: what is supervised, measured, padded and cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.texts import CONTEXT, language_model, save_tokenizer
from tests.unit.gradients.architectures import Fixed, autograd

from poa.factory.causal import IGNORE, CausalLM
from poa.factory.run import LoRARun
from poa.gradients.capture import example_gradients
from poa.records import Corpus, Record


def test_a_record_becomes_bos_prompt_text_eos(run: LoRARun) -> None:
    task = run.task
    bos, eos = task.edges
    record = Record("r", "the anchor", "tell me ")
    prompt, text = task.encode("tell me "), task.encode("the anchor")
    ids, lead = task.sequence(record, whole=True)
    assert ids == [bos, *prompt, *text, eos]
    assert lead == 1 + len(prompt)
    batch = task.batch([record, Record("s", "x")])
    assert batch["labels"][0, :lead].tolist() == [IGNORE] * lead
    assert batch["labels"][0, lead : len(ids)].tolist() == [*text, eos]
    assert batch["attention_mask"].sum(1).tolist() == [len(ids), 3]
    assert task.supervised(batch).tolist() == [len(text) + 1, 2]
    assert task.tokens(record) == text


def test_measurement_is_the_log_probability_of_the_text(run: LoRARun, queries: Corpus) -> None:
    model = run.model()
    for record in queries[:4]:
        ids, lead = run.task.sequence(record, whole=True)
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        expected = sum(float(logs[t - 1, ids[t]]) for t in range(lead, len(ids)))
        batch = run.task.batch([record])
        with torch.no_grad():
            assert float(run.task.measurement(model, batch)) == pytest.approx(expected, rel=1e-5)
            assert float(run.task.loss(model, batch)) == pytest.approx(-expected, rel=1e-5)


def test_padding_does_not_matter(run: LoRARun, queries: Corpus) -> None:
    model, task = run.model(), run.task
    with torch.no_grad():
        together = task.measurement(model, task.batch(list(queries)))
        alone = torch.cat([task.measurement(model, task.batch([record])) for record in queries])
        states = task.hidden(model, task.batch(list(queries)))
        single = torch.cat([task.hidden(model, task.batch([record])) for record in queries])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    np.testing.assert_allclose(states, single, atol=1e-5)


def test_offsets_are_code_points(run: LoRARun) -> None:
    text = "the naïve café"
    offsets = run.task.offsets(text)
    assert offsets[0][0] == 0
    assert offsets[-1][1] == len(text)
    assert len(offsets) == len(run.task.encode(text))


def test_only_adapter_layers_are_tracked(run: LoRARun) -> None:
    names = list(run.task.tracked(run.model()))
    assert len(names) == 2 * 7 * 2
    assert all("lora_" in name for name in names)


@pytest.mark.parametrize(("kind", "tied"), [("gpt2", True), ("gpt2", False), ("llama", True), ("llama", False)])
def test_a_full_fine_tune_is_read_whole_in_batches(tmp_path: Path, kind: str, tied: bool) -> None:
    task = CausalLM(str(save_tokenizer(kind, tmp_path)), CONTEXT)
    model = language_model(kind, tied).double()
    covered = {id(p) for module in task.tracked(model).values() for p in module.parameters(recurse=False)}
    assert covered == {id(p) for p in model.parameters()}
    records = [Record("a", "the old cook", "stirs "), Record("b", "soup"), Record("c", "a heavy rope and mast")]
    found = example_gradients(task, model, records, "train")
    expected = torch.stack(autograd(Fixed(task.batch(records), task.loss), model))
    # Not 1e-10: transformers computes some norms in float32 whatever the dtype of the model.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    alone = torch.cat([example_gradients(task, model, [record], "train") for record in records])
    assert torch.nn.functional.cosine_similarity(found, alone, dim=1).min() >= 0.99999


def test_frozen_positions_are_left_to_the_model(tmp_path: Path) -> None:
    task = CausalLM(str(save_tokenizer("gpt2", tmp_path)), CONTEXT)
    model = language_model("gpt2")
    seen: list[int] = []
    model.transformer.wpe.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    batch = task.batch([Record("a", "the cook"), Record("b", "soup")])
    trained = task.loss(model, batch)
    model.transformer.wpe.requires_grad_(False)
    torch.testing.assert_close(task.loss(model, batch), trained)
    assert seen == [2, 1]
