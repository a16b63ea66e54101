"""Where gradients are read: one site per module, which knows how its input and output gradient become factors.

A module is known by what it computes. Linear layers (HF `Conv1D` included, transposed into the layout of Linear),
convolutions, embeddings, and normalisations with a gain are known by their factors; LoRA factors are read at the layer
that they wrap. Anything else that holds parameters is differentiated by itself, example by example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional as F

from poa.errors import Unsupported
from poa.gradients.factors import Elementwise, Factor, Lookup, Outer, Whole
from poa.gradients.gauge import balanced

Factors = Callable[[Tensor, Tensor], "tuple[Factor, ...]"]


@dataclass(frozen=True)
class Site:
    """`factors(input, output gradient)` gives one factor for each of `blocks`; `forward` stands in for the module's.

    blocks: (name, shape) with shape = (rows, columns) of the gradient; a bias is one more column. factored: whether
    the module is of a known kind, which reads each of its parameters once a call. again: whether `factors` calls the
    module once more, which it can only do if the input is all that it was given.
    """

    module: nn.Module
    blocks: tuple[tuple[str, tuple[int, int]], ...]
    factors: Factors
    forward: Callable[[Tensor], Tensor] | None = None
    factored: bool = True
    again: bool = False


def sites(
    modules: Mapping[str, nn.Module], model: nn.Module | None = None, coordinates: str = "adapter"
) -> tuple[Site, ...]:
    """The sites of tracked `modules`, in order. With the `model` around them, LoRA factors are read in pairs.

    coordinates: "adapter" differentiates with respect to the factors as they are written down, "balanced" with
    respect to `gauge.balanced` ones; it says nothing about other layers.
    """
    found: list[Site] = []
    taken: set[str] = set()
    for name, module in modules.items():
        if name in taken:
            continue
        pair = None if model is None else _lora(name, modules, model, coordinates)
        site = pair or _site(name, module)
        taken.update(block for block, _ in site.blocks)
        found.append(site)
    return tuple(found)


def _site(name: str, module: nn.Module) -> Site:
    _refuse(name, module)
    if _partly_frozen(module):
        return _other(name, module)
    if isinstance(module, nn.Linear) and _acts_as(module, nn.Linear):
        return _linear(name, module)
    if isinstance(module, nn.Conv2d) and _acts_as(module, nn.Conv2d):
        return _conv2d(name, module)
    if isinstance(module, nn.Embedding) and _acts_as(module, nn.Embedding):
        return _embedding(name, module)
    if _is_hf_conv1d(module):
        return _hf_conv1d(name, module)
    return _norm(name, module) if _is_gain(module) and _is_affine(module) else _other(name, module)


def _refuse(name: str, module: nn.Module) -> None:
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:  # pyright: ignore[reportPrivateUsage]
        raise Unsupported(f"layer {name} is a BatchNorm in train mode: its examples have no gradients of their own")
    if not list(module.parameters(recurse=False)):
        raise Unsupported(f"layer {name} is a {type(module).__name__} without parameters of its own")


def _partly_frozen(module: nn.Module) -> bool:
    """Biases alone, for example: what is frozen must not enter."""
    return len({p.requires_grad for p in module.parameters(recurse=False)}) > 1


def _acts_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """A subclass may read its input otherwise: OPT's table of positions takes an attention mask."""
    return type(module).forward is kind.forward


def _bias(module: nn.Module) -> bool:
    return getattr(module, "bias", None) is not None


def _tokens(x: Tensor) -> Tensor:
    """[n, T, d] whatever stands between the first and the last axis."""
    return x.unsqueeze(1) if x.ndim == 2 else x.flatten(1, -2)


def _linear(name: str, module: nn.Linear) -> Site:
    bias = _bias(module)
    shape = (module.out_features, module.in_features + bias)
    return Site(module, ((name, shape),), lambda x, s: (Outer(_tokens(s), _tokens(x), bias),))


def _is_hf_conv1d(module: nn.Module) -> bool:
    return type(module).__name__ == "Conv1D" and "nf" in vars(module)


def _hf_conv1d(name: str, module: Any) -> Site:
    inside, out = module.weight.shape
    return Site(module, ((name, (out, inside + 1)),), lambda x, s: (Outer(_tokens(s), _tokens(x), True),))


def _conv2d(name: str, module: nn.Conv2d) -> Site:
    """Patches act as tokens. Groups share nothing, so each is a block of its own."""
    if module.padding_mode != "zeros":
        raise Unsupported(f"layer {name} pads by {module.padding_mode!r}; only zero padding is captured")
    groups, bias = module.groups, _bias(module)
    height, width = module.kernel_size
    shape = (module.out_channels // groups, module.in_channels // groups * height * width + bias)
    names = [name] if groups == 1 else [f"{name}/{group}" for group in range(groups)]
    padding = _padding(module)

    def factors(x: Tensor, s: Tensor) -> tuple[Factor, ...]:
        x = F.pad(x, padding)
        patches = F.unfold(x, module.kernel_size, dilation=module.dilation, stride=module.stride).transpose(1, 2)
        signal = s.flatten(2).transpose(1, 2)
        pairs = zip(signal.chunk(groups, 2), patches.chunk(groups, 2), strict=True)
        return tuple(Outer(left, right, bias) for left, right in pairs)

    return Site(module, tuple((each, shape) for each in names), factors)


def _padding(module: nn.Conv2d) -> tuple[int, int, int, int]:
    """(left, right, top, bottom) of what the layer adds; "same" may add one more on one side."""
    if not isinstance(module.padding, str):
        rows, columns = module.padding
        return columns, columns, rows, rows
    if module.padding == "valid":
        return 0, 0, 0, 0
    (tall, wide), (down, across) = module.kernel_size, module.dilation
    rows, columns = down * (tall - 1), across * (wide - 1)
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def _embedding(name: str, module: nn.Embedding) -> Site:
    if module.max_norm is not None or module.scale_grad_by_freq:
        raise Unsupported(f"embedding {name} uses max_norm or scale_grad_by_freq, which change gradients")

    def factors(ids: Tensor, s: Tensor) -> tuple[Factor, ...]:
        flat, signal = ids.reshape(len(ids), -1), _tokens(s)
        if module.padding_idx is not None:
            signal = signal * (flat != module.padding_idx).unsqueeze(2)
        return (Lookup(flat, signal, module.num_embeddings),)

    return Site(module, ((name, (module.num_embeddings, module.embedding_dim)),), factors)


def _is_gain(module: nn.Module) -> bool:
    """LayerNorm, RMSNorm and their likes: a gain per channel, maybe an offset, nothing else."""
    own = dict(module.named_parameters(recurse=False))
    if "norm" not in type(module).__name__.lower() or "weight" not in own or not set(own) <= {"weight", "bias"}:
        return False
    if isinstance(module, nn.GroupNorm | nn.modules.batchnorm._NormBase):  # pyright: ignore[reportPrivateUsage]
        return False
    return own["weight"].ndim == 1 and len(own["weight"]) > 1


def _is_affine(module: nn.Module) -> bool:
    """Whether outputs follow gain and offset as `_norm` takes for granted; a name with "norm" in it does not say so."""
    own = {key: value.detach() for key, value in module.named_parameters(recurse=False)}
    width, some = own["weight"].shape[0], torch.Generator().manual_seed(0)
    x, gain, offset = (torch.randn(shape, generator=some).to(own["weight"]) for shape in ((2, 3, width), width, width))

    def output(weight: Tensor, bias: Tensor) -> Tensor:
        changed = {"weight": weight} | ({"bias": bias} if "bias" in own else {})
        found: Tensor = functional_call(module, changed, (x,))
        return found

    zero = torch.zeros_like(gain)
    try:
        with torch.no_grad():
            base, one, moved = output(zero, zero), output(torch.ones_like(gain), zero), output(gain, offset)
    except (TypeError, RuntimeError, ValueError):  # it wants another input than one of such a shape
        return False
    expected = base + gain * (one - base) + (offset if "bias" in own else 0.0)
    return moved.shape == x.shape and bool(torch.allclose(moved, expected, rtol=1e-3, atol=1e-3))


def _norm(name: str, module: nn.Module) -> Site:
    """The output is affine in gain and offset, so differences of outputs are exactly what they multiply.

    That holds for gains of the form weight and 1 + weight alike: no class needs to be known by name.
    """
    own = {key: value.detach() for key, value in module.named_parameters(recurse=False)}
    width = own["weight"].shape[0]

    def factors(x: Tensor, s: Tensor) -> tuple[Factor, ...]:
        def output(weight: float, bias: float) -> Tensor:
            changed = {"weight": torch.full_like(own["weight"], weight)}
            if "bias" in own:
                changed["bias"] = torch.full_like(own["bias"], bias)
            return _tokens(functional_call(module, changed, (x,)))

        columns = [output(1.0, 0.0) - output(0.0, 0.0)]
        if "bias" in own:
            columns.append(torch.ones_like(columns[0]))
        return (Elementwise(_tokens(s), torch.stack(columns, 3)),)

    return Site(module, ((name, (width, len(own))),), factors, again=True)


def _other(name: str, module: nn.Module) -> Site:
    """Any module that treats examples one by one: its own derivative, per example."""
    own = {key: value.detach() for key, value in module.named_parameters(recurse=False) if value.requires_grad}
    size = sum(value.numel() for value in own.values())

    def factors(x: Tensor, s: Tensor) -> tuple[Factor, ...]:
        def one(example: Tensor, signal: Tensor) -> Tensor:
            def output(values: dict[str, Tensor]) -> Tensor:
                return functional_call(module, values, (example.unsqueeze(0),))

            back = vjp(output, own)[1]
            (found,) = back(signal.unsqueeze(0))
            return torch.cat([found[key].flatten() for key in own])

        return (Whole(vmap(one)(x, s)),)

    return Site(module, ((name, (1, size)),), factors, factored=False, again=True)


def _lora(name: str, modules: Mapping[str, nn.Module], model: nn.Module, coordinates: str) -> Site | None:
    """Both LoRA factors of a linear layer from one look at the layer that they wrap; None where `name` is no such pair.

    y = W0 x + c B A x, so A receives (x, c B^T s) and B receives (A x, c s). The layer runs with W0 + c B A put
    together, which spares the two thin products forward and backward; nothing is written into the model.
    """
    path, _, adapter = name.rpartition(".lora_A.")
    partner = f"{path}.lora_B.{adapter}"
    if not path or partner not in modules:
        return None
    layer: Any = model.get_submodule(path)
    a, b, base = modules[name], modules[partner], layer.get_base_layer()
    plain = isinstance(base, nn.Linear) or _is_hf_conv1d(base)
    if not plain or list(layer.active_adapters) != [adapter] or layer.merged or _bias(b) or _bias(a):
        return None
    if layer.use_dora.get(adapter):
        raise Unsupported(f"layer {path} is a DoRA adapter: its magnitudes multiply what LoRA adds; use plain LoRA")
    if getattr(layer.lora_dropout[adapter], "p", 0.0):
        return None
    if base.weight.is_floating_point() and base.weight.dtype != a.weight.dtype:
        there, here = (str(value.dtype).removeprefix("torch.") for value in (base.weight, a.weight))
        raise Unsupported(f"layer {path} is {there} under a {here} adapter: load the base in {here}")
    weights: tuple[Tensor, Tensor] = (a.weight.detach(), b.weight.detach())  # type: ignore[assignment]
    down, up, scale = *weights, float(layer.scaling[adapter])
    frozen = base.weight.detach() if isinstance(base, nn.Linear) else base.weight.detach().T
    merged = torch.addmm(frozen, up, down, alpha=scale)
    bias = None if base.bias is None else base.bias.detach()
    if coordinates == "balanced":
        (down, up), scale = balanced(down, up, scale), 1.0

    def factors(x: Tensor, s: Tensor) -> tuple[Factor, ...]:
        x, s = _tokens(x), _tokens(s) * scale
        return Outer(s @ up, x), Outer(s, x @ down.T)

    blocks = ((name, (down.shape[0], down.shape[1])), (partner, (up.shape[0], up.shape[1])))
    return Site(layer, blocks, factors, lambda x: F.linear(x, merged, bias))
