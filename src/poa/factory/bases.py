"""Base models: the one made here, a local folder, or a hub name, behind one door."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from poa.digests import folder_digest
from poa.errors import PoaError
from poa.factory.causal import CausalLM


@dataclass(frozen=True)
class Base:
    """A causal language model in `save_pretrained` layout; `digest` covers its config, weights and tokenizer bytes."""

    name: str
    folder: Path
    digest: str

    def model(self, quantise: str = "none") -> Any:
        """A fresh float32 model (4-bit with `quantise="4bit"`) in eval mode.

        Eager attention, because fused kernels give a record other last digits in another batch and have no
        forward-mode derivative.
        """
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        options: dict[str, Any] = {"attn_implementation": "eager", "local_files_only": True, "use_safetensors": True}
        if quantise == "4bit":
            from transformers import BitsAndBytesConfig

            options["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
        else:
            options["dtype"] = torch.float32
        return AutoModelForCausalLM.from_pretrained(self.folder, **options).eval()

    def task(self) -> CausalLM:
        return CausalLM(str(self.folder), _context(self.folder))


def base(name: str | Path = "tiny") -> Base:
    """`"tiny"` (made here, cached), a local folder, or a hub name such as `"HuggingFaceTB/SmolLM2-135M"`.

    A path that does not exist and is not a hub name is one clear error. Only safetensors weights are read.
    """
    if name == "tiny":
        from poa.factory.tiny import tiny_base

        folder = tiny_base()
    elif Path(name).is_dir():
        folder = Path(name)
    elif str(name).count("/") == 1 and not str(name).startswith((".", "/", "~")):
        folder = _from_hub(str(name))
    else:
        raise PoaError(f"base {str(name)!r} is not 'tiny', an existing folder or a hub name (owner/model)")
    return Base(str(name), folder, _digest(folder))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "tokenizer*", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the hub client raises many unrelated types for "cannot be reached"
        raise PoaError(f"base {name!r} is no local folder and the hub did not deliver it: {error}") from error


def _digest(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        raise PoaError(f"base folder {folder} has no config.json; expected a save_pretrained folder")
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    if not weights:
        raise PoaError(f"base folder {folder} has no safetensors weights; pickled weights are never read")
    tokenizer = [path.name for path in folder.glob("tokenizer*")]
    if not tokenizer:
        raise PoaError(f"base folder {folder} has no tokenizer files")
    stamps = tuple((name, (folder / name).stat().st_mtime_ns) for name in ("config.json", *weights, *tokenizer))
    return _digest_of(folder, stamps)


@cache
def _digest_of(folder: Path, stamps: tuple[tuple[str, int], ...]) -> str:
    return folder_digest(folder, tuple(name for name, _ in stamps))


def _context(folder: Path) -> int:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many unrelated types for a configuration that it cannot read
        raise PoaError(f"{folder}/config.json is not a model configuration: {error}") from error
    return context_of(config, folder)


def context_of(config: Any, folder: str | Path) -> int:
    """The longest sequence in tokens that a model of this configuration reads."""
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if longest is None:
        raise PoaError(f"{folder}/config.json names no context length (max_position_embeddings or n_positions)")
    return int(longest)
