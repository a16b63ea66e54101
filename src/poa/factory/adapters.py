"""LoRA adapters as PEFT folders: attach, publish, load, identify."""

from __future__ import annotations

import json
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from poa.digests import folder_digest
from poa.errors import Mismatch, PoaError
from poa.factory.recipe import LoRARecipe

FILES = ("adapter_config.json", "adapter_model.safetensors")


def linear_names(model: Any) -> list[str]:
    """Names of all linear layers except the output head, as PEFT targets (HF Conv1D counts as linear)."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]


def attach(model: Any, recipe: LoRARecipe) -> Any:
    """A PEFT model around `model` with fresh factors drawn from `recipe.seed` (B starts at 0)."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    names = linear_names(model)
    conv = any(isinstance(model.get_submodule(name), Conv1D) for name in names)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        target_modules=names,
        fan_in_fan_out=conv,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), _quiet_peft():
        torch.manual_seed(recipe.seed)
        return get_peft_model(model, config)


def publish(model: Any, folder: Path, base_digest: str) -> None:
    """Write config and safetensors with sorted keys, so that equal adapters have equal bytes.

    The base's digest goes where PEFT keeps the base's name: an adapter says which bytes it belongs to.
    """
    model.peft_config["default"].base_model_name_or_path = base_digest
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / FILES[0]
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=1, sort_keys=True))


def adapter_digest(folder: Path) -> str:
    """SHA-256 over the published config and safetensors bytes: the adapter's identity."""
    for name in FILES:
        if not (folder / name).is_file():
            raise PoaError(f"adapter folder {folder} has no {name}")
    return folder_digest(folder, FILES)


def load(model: Any, folder: Path, base_digest: str) -> Any:
    """`model` wrapped with the adapter in `folder`, its factors trainable (so that gradients exist), in eval mode."""
    from peft import PeftModel

    adapter_digest(folder)
    named = json.loads((folder / FILES[0]).read_text()).get("base_model_name_or_path")
    if named != base_digest:
        raise Mismatch(f"adapter {folder} belongs to base {str(named)[:16]}, not to base {base_digest[:16]}")
    with _quiet_peft(), torch.random.fork_rng():  # PEFT draws factors before it reads the stored ones
        return PeftModel.from_pretrained(model, folder, is_trainable=True).eval()


@contextmanager
def _quiet_peft() -> Generator[None]:
    """peft 0.21 asks transformers 5 by a deprecated name; nothing that a user could change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated", category=FutureWarning)
        yield
