"""Sequence classifiers: what is read, padded and measured, and gradients that neighbours do not touch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tests.texts import CONTEXT, classifier, save_tokenizer
from tests.unit.gradients.architectures import Fixed, autograd

from poa.errors import Mismatch, PoaError, Unsupported
from poa.factory.sequence import SequenceClassifier
from poa.gradients.capture import capturing, example_gradients
from poa.records import Record

KINDS = ("bert", "gpt2", "llama")
RECORDS = [
    Record("short", "good soup", label=0),
    Record("long", "the old cook stirs a heavy pan", label=2),
    Record("pair", "bad", "is the soup", label=1),
]
QUERY = Record("q", "the sailor hoists", label=1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tokenizer(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def task(kind: str, folders: dict[str, Path]) -> SequenceClassifier:
    return SequenceClassifier(str(folders[kind]), CONTEXT, 3)


@pytest.fixture
def model(kind: str) -> Any:
    return classifier(kind)


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=1)


def test_what_a_model_is_told(folders: dict[str, Path]) -> None:
    task = SequenceClassifier(str(folders["bert"]), CONTEXT, 3)
    ids = {name: task.tokenizer.convert_tokens_to_ids(name) for name in ("[CLS]", "[SEP]", "is", "the", "soup", "bad")}
    batch = task.batch([RECORDS[2], Record("r", "bad", label=0)])
    pair = [ids[name] for name in ("[CLS]", "is", "the", "soup", "[SEP]", "bad", "[SEP]")]
    assert batch["input_ids"].tolist() == [pair, [ids["[CLS]"], ids["bad"], ids["[SEP]"], 0, 0, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1], [0] * 7]
    assert batch["attention_mask"].tolist() == [[1] * 7, [1] * 3 + [0] * 4]
    assert batch["labels"].tolist() == [1, 0]
    assert task.tokens(RECORDS[2]) == [ids["bad"]]
    with pytest.raises(PoaError, match=r"starts records with \[CLS\].*padding must be right"):
        replace(task, padding="left").batch(RECORDS)


def test_padding_on_the_left_counts_positions_from_the_first_token(folders: dict[str, Path]) -> None:
    task = SequenceClassifier(str(folders["gpt2"]), CONTEXT, 3)
    right, left = (replace(task, padding=side).batch(RECORDS[:2]) for side in ("right", "left"))
    for row, length in enumerate(right["attention_mask"].sum(1).tolist()):
        assert left["attention_mask"][row].tolist() == right["attention_mask"][row].flip(0).tolist()
        assert left["input_ids"][row, -length:].tolist() == right["input_ids"][row, :length].tolist()
        assert left["position_ids"][row, -length:].tolist() == list(range(length))


def test_measurement_is_the_log_odds_of_the_label(task: SequenceClassifier, model: Any) -> None:
    for record in RECORDS:
        batch = task.batch([record])
        told = {name: batch[name] for name in ("input_ids", "attention_mask")}
        if task.tokenizer.cls_token:
            told["token_type_ids"] = batch["token_type_ids"]
        with torch.no_grad():
            odds = model(**told).logits[0].double().softmax(0)[record.label]
            torch.testing.assert_close(task.measurement(model, batch)[0].double(), (odds / (1 - odds)).log())
            torch.testing.assert_close(task.loss(model, batch)[0].double(), -odds.log())


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding_and_neighbours_do_not_matter(
    task: SequenceClassifier, model: Any, kind: str, padding: Literal["right", "left"]
) -> None:
    if (kind, padding) == ("bert", "left"):
        pytest.skip("refused: see test_what_a_model_is_told")
    padded = replace(task, padding=padding)
    with torch.no_grad():
        for read in ("loss", "measurement", "hidden"):
            together = getattr(padded, read)(model, padded.batch(RECORDS))
            alone = torch.cat([getattr(task, read)(model, task.batch([record])) for record in RECORDS])
            torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    for side in ("train", "query"):
        together = example_gradients(padded, model, RECORDS, side)
        alone = torch.cat([example_gradients(task, model, [record], side) for record in RECORDS])
        assert cosines(together, alone).min() >= 0.99999
        backwards = example_gradients(padded, model, RECORDS[::-1], side)
        assert cosines(backwards.flip(0), together).min() >= 0.99999


def test_everything_trained_is_read_and_equals_autograd(task: SequenceClassifier, model: Any) -> None:
    double = model.double()
    covered = {id(p) for module in task.tracked(double).values() for p in module.parameters(recurse=False)}
    assert covered == {id(p) for p in double.parameters()}
    found = example_gradients(task, double, RECORDS, "train")
    expected = torch.stack(autograd(Fixed(task.batch(RECORDS), task.loss), double))
    # Not 1e-10: transformers computes some norms in float32 whatever the dtype of the model.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert found.abs().sum() > 0


def test_lora_with_a_trained_head(task: SequenceClassifier, model: Any, kind: str) -> None:
    from peft import LoraConfig, get_peft_model

    targets = {"bert": ["query", "value"], "gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"]}[kind]
    config = LoraConfig(r=2, task_type="SEQ_CLS", target_modules=targets, fan_in_fan_out=kind == "gpt2")
    wrapped = get_peft_model(model, config).eval()
    names = list(task.tracked(wrapped))
    assert all("lora_" in name or "modules_to_save" in name for name in names)
    assert any("modules_to_save" in name for name in names)
    together = example_gradients(task, wrapped, RECORDS, "train")
    alone = torch.cat([example_gradients(task, wrapped, [record], "train") for record in RECORDS])
    assert cosines(together, alone).min() >= 0.99999


def test_predictions_give_margins(task: SequenceClassifier, model: Any) -> None:
    with capturing(task, model) as capture:
        margin = capture.factors(RECORDS, "query-margin").rows()
        query = capture.factors(RECORDS, "query").rows()
    torch.testing.assert_close(margin, query)


def test_active_dropout_is_refused(task: SequenceClassifier, model: Any, kind: str) -> None:
    if kind == "llama":
        model.config.attention_dropout = 0.1
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.1
    with pytest.raises(Unsupported, match="active dropout"):
        example_gradients(task, model.train(), [QUERY], "query")


def test_a_tokenizer_and_a_model_must_agree_about_padding(folders: dict[str, Path]) -> None:
    task = SequenceClassifier(str(folders["gpt2"]), CONTEXT, 3)
    model = classifier("gpt2")
    model.config.pad_token_id = 7
    task.measurement(model, task.batch([QUERY]))
    with pytest.raises(Mismatch, match=r"config.pad_token_id is 7, the tokenizer pads with 1"):
        task.measurement(model, task.batch(RECORDS))
    model.config.pad_token_id = None
    task.measurement(model, task.batch([QUERY]))
    with pytest.raises(PoaError, match="reads one record at a time"):
        task.measurement(model, task.batch([QUERY, QUERY]))
    task.tokenizer.pad_token = None
    with pytest.raises(PoaError, match="has no pad token"):
        task.batch(RECORDS)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (Record("r", "good", label=3), "'r' has label 3, must be 0 to 2"),
        (Record("r", "good"), "'r' has label -1"),
        (Record("r", features=(1.0,), label=0), "'r' has no text"),
        (Record("r", "good " * 40, label=0), r"'r' has \d+ tokens; the model's context is 24"),
    ],
)
def test_a_record_that_does_not_fit_is_named(folders: dict[str, Path], record: Record, says: str) -> None:
    task = SequenceClassifier(str(folders["bert"]), CONTEXT, 3)
    with pytest.raises(PoaError, match=says):
        task.batch([record])


def test_a_long_record_is_cut_as_in_training(folders: dict[str, Path]) -> None:
    task = SequenceClassifier(str(folders["bert"]), CONTEXT, 3)
    assert task.batch([Record("r", "good " * 40, label=0)], whole=False)["input_ids"].shape == (1, CONTEXT)


def test_the_task_of_a_saved_model(tmp_path: Path) -> None:
    save_tokenizer("bert", tmp_path)
    classifier("bert", classes=4).save_pretrained(tmp_path)
    assert SequenceClassifier.of(tmp_path) == SequenceClassifier(str(tmp_path), CONTEXT, 4)


def test_a_model_with_another_head_is_refused(folders: dict[str, Path]) -> None:
    task = SequenceClassifier(str(folders["bert"]), CONTEXT, 4)
    with pytest.raises(Mismatch, match=r"logits of shape \(3,\), the task has 4 classes"):
        task.loss(classifier("bert"), task.batch([QUERY]))
    with pytest.raises(PoaError, match="at least 2 classes"):
        replace(task, classes=1)
    with pytest.raises(PoaError, match="padding is 'middle'"):
        replace(task, padding="middle")
