"""The programs of finished runs: the same recipe, order, seed and numbers as the torch training, as arrays for JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.errors import Unsupported
from poa.factory import adapters
from poa.factory.causal import IGNORE
from poa.factory.classifier import batches, initial_state
from poa.factory.network import ClassifierNetwork, LanguageNetwork, Shape
from poa.factory.schedule import schedule
from poa.gradients.program import Lane, Program

if TYPE_CHECKING:
    from poa.factory.bases import Base
    from poa.factory.causal import CausalLM
    from poa.factory.classifier import Classifier, ClassifierRecipe
    from poa.factory.recipe import LoRARecipe
    from poa.records import Corpus, Record

Positions = npt.NDArray[np.int64]
# Records of one step that go through a language model together: fewer are padded less, more keep matrices larger.
LANE = 2


def classifier_program(corpus: Corpus, task: Classifier, recipe: ClassifierRecipe) -> Program:
    """Logistic regression or tanh network: what `train_classifier` would do with this recipe."""
    start = {name: value.numpy() for name, value in initial_state(task, recipe).items()}
    order = batches(len(corpus), recipe)
    return Program(
        ClassifierNetwork(len(recipe.hidden) + 1, task.measures),
        start,
        {},
        (Lane(feature_arrays(task, corpus), order),),
        np.full(recipe.steps, recipe.rate),
        (order >= 0).sum(1).astype(np.float64),
        recipe.rule,
        recipe.dtype,
        len(corpus),
    )


def feature_arrays(task: Classifier, records: Sequence[Record] | Corpus) -> dict[str, npt.NDArray[Any]]:
    """{"x": [n, features], "y": [n]}"""
    return {name: value.numpy() for name, value in task.batch(list(records)).items()}


def lora_program(corpus: Corpus, recipe: LoRARecipe, parent: Base) -> Program:
    """LoRA on the frozen `parent`, GPT-2- or Llama-shaped: what `finetune` would do with this recipe."""
    if recipe.quantise != "none":
        raise Unsupported("a quantised base has no program of arrays")
    model = adapters.attach(parent.model(), recipe)
    shape = Shape.of(model.config, recipe.alpha / recipe.rank)
    start, frozen = named_arrays(model)
    task = parent.task()
    data = token_arrays(task, corpus, whole=False)
    lengths = (data["labels"][:, 1:] != IGNORE).sum(1)
    plan = schedule([int(length) for length in lengths], recipe)
    return Program(
        LanguageNetwork(shape),
        start,
        frozen,
        lanes(data, np.asarray(plan.records, np.int64)),
        np.asarray(plan.rate, np.float64),
        np.asarray(plan.denominator, np.float64),
        recipe.rule,
        "float32",
        len(corpus),
    )


def lanes(data: Mapping[str, npt.NDArray[Any]], records: Positions, size: int = LANE) -> tuple[Lane, ...]:
    """The records of every step sorted by length and dealt into lanes of `size`, each as wide as its longest record.

    Gradients of a step add up to the same in any lanes; empty places come first.
    """
    lengths = np.concatenate([(data["mask"] != 0).sum(1), [0]])
    order = np.argsort(lengths[records], axis=1, kind="stable")
    ordered = np.take_along_axis(records, order, 1)
    out: list[Lane] = []
    for first in range(0, records.shape[1], size):
        places = ordered[:, first : first + size]
        width = max(2, int(lengths[places].max()))
        out.append(Lane({name: data[name][:, :width] for name in ("ids", "labels")}, places))
    return tuple(out)


def token_arrays(task: CausalLM, records: Sequence[Record] | Corpus, whole: bool) -> dict[str, npt.NDArray[Any]]:
    """{"ids", "labels", "mask"} [n, L], padded on the right."""
    batch = task.batch(list(records), whole=whole)
    names = {"ids": "input_ids", "labels": "labels", "mask": "attention_mask"}
    return {name: batch[given].numpy().astype(np.int32) for name, given in names.items()}


def named_arrays(model: Any) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """(trained, frozen) arrays under the names that `poa.factory.network.Weights` reads."""
    from transformers.pytorch_utils import Conv1D

    turned = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}
    trained: dict[str, npt.NDArray[Any]] = {}
    frozen: dict[str, npt.NDArray[Any]] = {}
    for name, value in model.named_parameters():
        array = value.detach().numpy()
        array = np.ascontiguousarray(array.T) if name in turned else array.copy()
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".default.weight", "")
        (trained if value.requires_grad else frozen)[plain] = array
    return trained, frozen
