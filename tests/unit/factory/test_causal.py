"""The causal language model task: what is supervised, measured, padded and cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poa.factory.causal import IGNORE
from poa.factory.run import LoRARun
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
