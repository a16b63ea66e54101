"""PEFT methods that learn what stands in front of a prompt: read right or refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from tests.language import BASE, writings

from poa.errors import Unsupported
from poa.factory.bases import base
from poa.factory.brought import TorchRun
from poa.factory.tiny import tiny_base
from poa.gradients.store import gradients


def brought(kind: type) -> TorchRun:
    parent = base(tiny_base(BASE))
    torch.manual_seed(0)
    model = get_peft_model(parent.model(), kind(task_type="CAUSAL_LM", num_virtual_tokens=3)).eval()
    return TorchRun.of(model, [model.state_dict()], writings(2, seed=0), parent.task())


def test_prompt_tuning_is_refused_with_the_reason() -> None:
    run = brought(PromptTuningConfig)
    with pytest.raises(Unsupported, match="prompt tuning"):
        gradients(run, -1, run.corpus, "train")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # raised inside PEFT
def test_prefix_tuning_is_read_as_autograd_has_it() -> None:
    run = brought(PrefixTuningConfig)
    found = gradients(run, -1, run.corpus, "train")
    model = run.model()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for row, record in zip(found.values, run.corpus, strict=True):
        measured = run.task.measurement(model, run.task.batch([record])).sum()
        expected = torch.cat([part.ravel() for part in torch.autograd.grad(measured, trained)]).numpy()
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
