"""The task of any torch module that turns a batch of feature vectors into logits over classes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from poa.errors import Mismatch, PoaError, Unsupported
from poa.gradients.outputs import log_probabilities, margins
from poa.gradients.tracking import trainable
from poa.protocols import Predictions
from poa.records import Record

if TYPE_CHECKING:
    from poa.protocols import Batch


@dataclass(frozen=True)
class Supervised:
    """Log-odds of a record's label under `logits = model(x)`, x [B, features], logits [B, classes].

    A record's features are flat; a model that wants images or sequences reshapes them itself. A query's label is the
    class whose log-odds are explained. `dtype` is that of the model's weights. `layers` names the modules that
    attribution reads, whatever lies below a name included; none means everything that was trained.
    """

    features: int
    classes: int
    dtype: Literal["float32", "float64"] = "float32"
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if self.features < 1 or self.classes < 2:
            raise PoaError(f"need features >= 1 and classes >= 2, got {self.features} and {self.classes}")
        if self.dtype not in ("float32", "float64"):
            raise PoaError(f"dtype is {self.dtype!r}, must be float32 or float64")

    @property
    def name(self) -> str:
        return "supervised"

    def batch(self, records: Sequence[Record], whole: bool = True) -> Batch:
        """{"x": [B, features], "y": [B] int64}; raises `PoaError` naming the record whose features or label do not fit.

        `whole` changes nothing: feature vectors are never cut.
        """
        for record in records:
            if len(record.features) != self.features:
                raise PoaError(
                    f"record {record.id!r} has {len(record.features)} features; this task takes {self.features}"
                )
            if not 0 <= record.label < self.classes:
                raise PoaError(f"record {record.id!r} has label {record.label}, must be 0 to {self.classes - 1}")
        rows = np.asarray([record.features for record in records], np.float64).reshape(len(records), self.features)
        labels = torch.tensor([record.label for record in records], dtype=torch.int64)
        return {"x": torch.from_numpy(rows).to(getattr(torch, self.dtype)), "y": labels}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B] cross entropy in nats."""
        return -log_probabilities(self.predictions(model, batch))

    def measurement(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B] log p_y - log(1 - p_y)."""
        return margins(self.predictions(model, batch))

    def predictions(self, model: nn.Module, batch: Batch) -> Predictions:
        """One row per record: the logits over classes."""
        logits = self._logits(model, batch)
        expected = (len(batch["y"]), self.classes)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise Mismatch(f"the model gives {got} for {expected[0]} records, the task wants logits {expected}")
        return Predictions(logits, batch["y"], torch.arange(expected[0]))

    def _logits(self, model: nn.Module, batch: Batch) -> Any:
        """What the model makes of the features; `Mismatch` where it does not take their dtype or number."""
        kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
        if kinds and batch["x"].dtype not in kinds:
            held = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
            raise Mismatch(
                f"the model's weights are {held} and the task's features {self.dtype}: Supervised(dtype=...)"
            )
        try:
            return model(batch["x"])
        except RuntimeError as error:
            if "shape" not in str(error) and "size" not in str(error):
                raise
            raise Mismatch(f"the model does not take features {tuple(batch['x'].shape)}: {error}") from error

    def hidden(self, model: nn.Module, batch: Batch) -> Tensor:
        """[B, d] what the last linear layer reads; `Unsupported` for a model without one."""
        layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
        if not layers:
            raise Unsupported("hidden states are what the last nn.Linear reads, and this model has none")
        with _noted(layers[-1]) as seen:
            model(batch["x"])
        if not seen:
            raise Unsupported("the last nn.Linear in order of definition takes no part in the forward pass")
        return seen[-1].flatten(1)

    def tracked(self, model: nn.Module) -> dict[str, nn.Module]:
        """Trained modules under `layers`, in order of definition; `PoaError` for a name that the model lacks."""
        known = dict(model.named_modules())
        for layer in self.layers:
            if layer not in known:
                near = get_close_matches(layer, known, 1, 0.0)
                raise PoaError(f"the model has no module {layer!r}; did you mean {near[0] if near else ''!r}?")
        found = trainable(model)
        if not self.layers:
            return found
        return {
            name: module
            for name, module in found.items()
            if any(name == layer or name.startswith(f"{layer}.") for layer in self.layers)
        }

    def tokens(self, record: Record) -> list[int]:
        raise Unsupported(f"record {record.id!r} is a feature vector of a classifier, not a token sequence")


@contextmanager
def _noted(layer: nn.Module) -> Generator[list[Tensor]]:
    """The inputs of `layer` while the block lasts."""
    seen: list[Tensor] = []

    def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(given[0])

    handle = layer.register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()
