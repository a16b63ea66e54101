"""The LoRA recipe: everything that determines a fine-tune besides its manifest and base."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, Literal

from poa.errors import MissingExtra, PoaError
from poa.protocols import Optimizer


@dataclass(frozen=True)
class LoRARecipe:
    """AdamW on LoRA factors of every linear layer except the head, linear warm-up and decay.

    `batch` records a step; the summed loss is divided by the number of supervised tokens in the batch (stored in
    the step log). `checkpoints` is how many evenly spaced sets of weights are kept, the last one included. `eps` is
    added to the root of AdamW's second moment: one as large as the gradients' own coordinates makes the training
    smooth in its records' weights, which derivatives through it need. `quantise="4bit"` is QLoRA: it needs the `qlora`
    extra and a CUDA device.
    """

    rank: int = 8
    alpha: int = 16
    epochs: int = 4
    batch: int = 8
    rate: float = 2e-3
    warmup: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    checkpoints: int = 4
    quantise: Literal["none", "4bit"] = "none"
    seed: int = 0
    eps: float = 1e-8

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        for name in ("rank", "alpha", "epochs", "batch", "checkpoints"):
            if getattr(self, name) < 1:
                raise PoaError(f"recipe.{name} is {getattr(self, name)}, must be at least 1")
        if not 0 < self.rate < 1:
            raise PoaError(f"recipe.rate is {self.rate}, must be between 0 and 1")
        if not 0 < self.eps < 1:
            raise PoaError(f"recipe.eps is {self.eps}, must be between 0 and 1")
        if self.quantise not in ("none", "4bit"):
            raise PoaError(f"recipe.quantise is {self.quantise!r}, must be none or 4bit")

    def plain(self) -> dict[str, Any]:
        """As JSON. Without `eps` where it is AdamW's own: recipes that are older than that option keep their digest."""
        told = asdict(self) | {"betas": list(self.betas)}
        return {name: value for name, value in told.items() if (name, value) != ("eps", Optimizer("adamw").eps)}

    @property
    def rule(self) -> Optimizer:
        return Optimizer("adamw", betas=self.betas, eps=self.eps)

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of 0-based `step`: linear warm-up to `rate`, then linear decay towards 0."""
        rise = max(1, round(self.warmup * steps))
        if step < rise:
            return self.rate * (step + 1) / rise
        return self.rate * (steps - step) / max(1, steps - rise)

    def kept_steps(self, steps: int) -> tuple[int, ...]:
        """Step counts after which weights are kept."""
        return tuple(sorted({max(1, round(steps * (i + 1) / self.checkpoints)) for i in range(self.checkpoints)}))


def require_quantisation() -> None:
    """Say clearly what 4-bit training lacks here, before anything expensive starts."""
    import torch

    if find_spec("bitsandbytes") is None:
        raise MissingExtra("recipe.quantise=4bit (QLoRA) needs bitsandbytes: pip install 'poa[qlora]'")
    if not torch.cuda.is_available():
        raise PoaError("recipe.quantise=4bit (QLoRA) needs a CUDA device and none is visible; use quantise=none")
