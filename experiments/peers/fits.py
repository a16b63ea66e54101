"""What is timed: from records on disk to features (or factors) on disk, by poa and by each peer in its best setting.

The model is the GPT-2 shape of `poa bench gradients` with random weights. Every way starts from token ids in a file,
gets its model from `LanguageRun.model()`, works on one thread and leaves its result in a folder.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from language import IGNORE, Language, LanguageRun, gpt2, linear_twin, token_records
from poa.records import Corpus
from poa.steplog import StepLog

LAYERS, WIDTH, VOCABULARY, LONGEST = 4, 256, 4096, 256
SIDE = 16  # columns a side of a layer's sketch; 16 layers give 4,096 features
Way = Callable[[], object]


def untrained_run(examples: int) -> LanguageRun:
    """The model as it is drawn, over `examples` sequences of mixed lengths."""
    corpus = token_records(examples, VOCABULARY, LONGEST)
    model = gpt2(LAYERS, WIDTH, VOCABULARY, LONGEST)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    log = StepLog(np.arange(examples)[None], np.ones(1), np.ones(1), np.ones(1))
    return LanguageRun(corpus, Language(), log, (1,), model, (state,), state)


@contextmanager
def folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="peers-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def frozen(model: nn.Module) -> nn.Module:
    """No parameter wants a gradient; the embedding's output does, so that gradients of activations exist."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    embedding.register_forward_hook(lambda _, __, out: out.requires_grad_())
    return model


# -- records on disk ------------------------------------------------------------------------------------------------


def kept(corpus: Corpus, place: Path) -> Path:
    """Token ids of all records, end to end, and where each begins."""
    lengths = [len(record.features) for record in corpus]
    np.savez(
        place / "tokens.npz",
        ids=np.concatenate([np.asarray(record.features, np.int64) for record in corpus]),
        starts=np.cumsum([0, *lengths]),
    )
    return place / "tokens.npz"


class Tokens(Dataset[Any]):
    """The records of such a file, longest first: every batch then pads little, and the first needs most memory."""

    def __init__(self, path: Path, ordered: bool = True) -> None:
        found = np.load(path)
        ids, starts = torch.from_numpy(found["ids"]), found["starts"].tolist()
        self.rows = [ids[start:stop] for start, stop in pairwise(starts)]
        if ordered:
            self.rows.sort(key=len, reverse=True)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> Tensor:
        return self.rows[at]


class Numbered(Dataset[Any]):
    """Each item with its position."""

    def __init__(self, items: Tokens) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: int) -> tuple[Tensor, int]:
        return self.items[at], at


def numbered(rows: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    return (*padded([row for row, _ in rows]), torch.tensor([at for _, at in rows]))


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    ids = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    labels = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=IGNORE)
    return ids, labels


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """[B] summed over the tokens of each sequence."""
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORE)
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
    return each.view(targets.shape).sum(1)


# -- peers ----------------------------------------------------------------------------------------------------------


def bergson_build(run: LanguageRun, tokens: int = 1024, api: bool = False) -> Way:
    """bergson's collection to an index on disk, in its own length-sorted batches of at most `tokens` padded tokens.

    Its best setting: nothing but activations differentiated, no bias gradients, no output head, two-sided projections
    of 16 columns a side. api=True leaves the embedding trainable, as `bergson build` loads models.
    """
    from bergson.collection import collect_gradients
    from bergson.config.config import IndexConfig
    from bergson.data import allocate_batches
    from bergson.gradients import GradientProcessor
    from datasets import Dataset as Table
    from datasets import load_from_disk

    source = Path(tempfile.mkdtemp(prefix="peers-"))
    rows = [[int(token) for token in record.features] for record in run.corpus]
    Table.from_dict({"input_ids": rows, "length": [len(row) for row in rows]}).save_to_disk(str(source / "tokens"))

    def once() -> None:
        with folder() as place, redirect_stdout(sys.stderr):
            data = load_from_disk(str(source / "tokens"))
            model: Any = run.model()
            if api:
                model.requires_grad_(False)
                model.get_input_embeddings().requires_grad_(True)
            else:
                frozen(model)
                # bergson reads the dtype of its index off a trainable parameter; the smallest will do.
                model.transformer.ln_f.bias.requires_grad_(True)
            config = IndexConfig(run_path=str(place / "index"), projection_dim=SIDE, token_batch_size=tokens)
            config.partial_run_path.mkdir(parents=True)
            processor = GradientProcessor(projection_dim=SIDE)
            batches = allocate_batches(data["length"][:], tokens)
            collect_gradients(model, data, processor, config, batches=batches)

    return once


def dattri_logra(run: LanguageRun, size: int = 4, ordered: bool = True) -> Way:
    """dattri's LoGra features: no curvature, only the hooked layers differentiated.

    Sorted batches of 4 are its best setting; it does not sort by itself: size=16, ordered=False is a plain loader.
    They stay in memory: its offload to disk pins memory, which needs an accelerator.
    """
    from dattri.algorithm.logra import LoGraAttributor
    from dattri.task import AttributionTask

    source = kept(run.corpus, Path(tempfile.mkdtemp(prefix="peers-")))

    def stacked(rows: Sequence[Tensor]) -> dict[str, Tensor]:
        ids, labels = padded(rows)
        return {"input_ids": ids, "labels": labels}

    def loss(model: Any, batch: dict[str, Tensor], device: str) -> Tensor:
        return cross_entropy(model(batch["input_ids"]).logits, batch["labels"]).mean()

    def once() -> None:
        with folder() as place:
            model = linear_twin(run.model())
            names = list(run.task.tracked(model))
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            for name in names:
                model.get_submodule(name).weight.requires_grad_(True)  # its hooks return no gradient for them
            task = AttributionTask(loss, model, [model.state_dict()])
            method = LoGraAttributor(
                task,
                layer_names=names,
                hessian="Identity",
                proj_dim=SIDE**2,
                offload="cpu",
                cache_dir=str(place),
            )
            method.cache(DataLoader(Tokens(source, ordered), batch_size=size, collate_fn=stacked))

    return once


def _trak_output(model: nn.Module) -> Any:
    """TRAK's model output of a sequence: its log-probability."""
    from trak.modelout_functions import AbstractModelOutput

    class Output(AbstractModelOutput):
        def __init__(self) -> None:
            pass

        @staticmethod
        def get_output(net: Any, weights: Any, buffers: Any, ids: Tensor, labels: Tensor) -> Tensor:
            out = torch.func.functional_call(net, (weights, buffers), (ids.unsqueeze(0),))
            return -cross_entropy(out.logits, labels.unsqueeze(0)).sum()

        def get_out_to_loss_grad(self, net: Any, weights: Any, buffers: Any, batch: Any) -> Tensor:
            return torch.ones(len(batch[0]), 1)

    return Output()


def trak(run: LanguageRun, columns: int, size: int = 16) -> Way:
    """TRAK's features with its BasicProjector, memory-mapped to disk, over the layers that poa tracks.

    The projector forms the matrix of all parameters by all columns, 100 columns at a time, as TRAKer makes it: above
    100 columns that happens for every batch anew, so large batches serve it.
    """
    from trak import TRAKer
    from trak.projectors import BasicProjector, ProjectionType

    source = kept(run.corpus, Path(tempfile.mkdtemp(prefix="peers-")))
    names = [f"{name}.{part}" for name in run.task.tracked(run.model()) for part in ("weight", "bias")]

    def once() -> None:
        with folder() as place:
            model = run.model()
            count = sum(dict(model.named_parameters())[name].numel() for name in names)
            traker = TRAKer(
                model,
                _trak_output(model),
                len(run.corpus),
                save_dir=str(place),
                device="cpu",
                projector=BasicProjector(count, columns, 0, ProjectionType.normal, "cpu"),
                use_half_precision=False,
                logging_level=50,
                grad_wrt=names,
            )
            traker.load_checkpoint(model.state_dict(), model_id=0)
            for batch in DataLoader(Tokens(source), batch_size=size, collate_fn=padded):
                traker.featurize(list(batch), num_samples=len(batch[0]))

    return once


def dattri_trak(run: LanguageRun, columns: int, size: int = 16) -> Way:
    """dattri's TRAK features, in memory (and their Gram matrix, which `cache` makes as well).

    It forms the matrix of all parameters by all columns for every batch anew.
    """
    from dattri.algorithm.trak import TRAKAttributor
    from dattri.task import AttributionTask

    source = kept(run.corpus, Path(tempfile.mkdtemp(prefix="peers-")))

    def once() -> None:
        model = run.model()
        wanted = {id(p) for m in run.task.tracked(model).values() for p in m.parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in wanted)

        def loss(weights: Any, data: Any) -> Tensor:
            ids, labels = (part.unsqueeze(0) for part in data)
            return cross_entropy(torch.func.functional_call(model, weights, (ids,)).logits, labels).sum()

        def correct(weights: Any, data: Any) -> Tensor:
            return torch.zeros(())

        task = AttributionTask(loss, model, [model.state_dict()])
        method = TRAKAttributor(
            task,
            correct,
            {"proj_dim": columns, "proj_max_batch_size": 32, "proj_seed": 0, "device": "cpu", "proj_type": "normal"},
            regularization=1.0,
        )
        method.cache(DataLoader(Tokens(source), batch_size=size, collate_fn=padded))

    return once


def kronfluence_ekfac(
    run: LanguageRun, queries: Corpus, size: int = 8, damping: float | None = None
) -> Callable[[], Any]:
    """Factors, eigenvalues and pairwise scores of `queries`; returns [query, train]."""
    from by_kronfluence import PoaTask
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.utils.dataset import DataLoaderKwargs
    from subjects import Tables

    places = [kept(side, Path(tempfile.mkdtemp(prefix="peers-"))) for side in (run.corpus, queries)]

    def once() -> Any:
        task = PoaTask(Tables(run, queries), list(run.task.tracked(run.model())))
        model = prepare_model(linear_twin(run.model()), task)
        train, asked = (Numbered(Tokens(place, ordered=False)) for place in places)
        with folder() as place:
            analyzer = Analyzer("peers", model, task, cpu=True, disable_tqdm=True, output_dir=str(place), log_level=40)
            analyzer.set_dataloader_kwargs(DataLoaderKwargs(collate_fn=numbered))
            analyzer.fit_all_factors("f", train, size, factor_args=FactorArguments(strategy="ekfac"))
            analyzer.compute_pairwise_scores(
                "s",
                "f",
                asked,
                train,
                per_device_query_batch_size=len(queries),
                per_device_train_batch_size=size,
                score_args=ScoreArguments(damping_factor=damping),
            )
            return analyzer.load_pairwise_scores("s")["all_modules"].numpy()

    return once
