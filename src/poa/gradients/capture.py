"""Per-example gradients of a model, read at its layers while one forward and one backward pass go by.

Autograd is asked for the gradients at the outputs of tracked layers alone, so no weight gradient of a batch is ever
formed. Parameters that several modules share are one block: their gradients add up, cross terms included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from poa.errors import PoaError, Unsupported
from poa.gradients.factors import Factor, tensors
from poa.gradients.fused import fused_activations
from poa.gradients.outputs import Fused, outputs
from poa.gradients.sites import Site, sites
from poa.gradients.tracking import reads
from poa.records import Record

if TYPE_CHECKING:
    from poa.protocols import Task


@dataclass(frozen=True)
class Block:
    """Where one layer stands in a row of gradients: columns [start, stop), to be viewed as `shape` (out, in)."""

    name: str
    start: int
    stop: int
    shape: tuple[int, int]


def layout(modules: Mapping[str, nn.Module]) -> tuple[Block, ...]:
    """Columns of each tracked layer in order; a bias is one more input that is always 1.

    A weight that two layers share (tied embedding and head) has one block, named for the first of them.
    """
    return _blocks(sites(modules), weight_owners(modules))


def weight_owners(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """The layer whose block a layer's weight belongs to: itself, or the first one with the same parameter."""
    first: dict[int, str] = {}
    owners: dict[str, str] = {}
    for name, module in modules.items():
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        owners[name] = name if weight is None else first.setdefault(id(weight), name)
    return owners


def _refuse_partly_shared(modules: Mapping[str, nn.Module]) -> None:
    """Modules that share a parameter are one block, so they have to share all of them, in one layout."""
    holders: dict[int, list[str]] = {}
    for name, module in modules.items():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(name)
    for names in holders.values():
        if len(names) < 2:
            continue
        owned = [{id(p) for p in modules[name].parameters(recurse=False)} for name in names]
        kinds = {type(modules[name]).__name__ == "Conv1D" for name in names}
        if any(other != owned[0] for other in owned[1:]) or len(kinds) > 1:
            raise Unsupported(
                f"layers {names[0]} and {names[1]} share a parameter but not all of them, or not their layout: their "
                "gradients would be added up wrongly; untie them, or leave one out of Task.tracked"
            )


def _blocks(found: Sequence[Site], owners: Mapping[str, str]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    shapes: dict[str, tuple[int, int]] = {}
    start = 0
    for name, shape in (block for site in found for block in site.blocks):
        owner = owners.get(name, name)
        if owner != name:
            if shapes[owner] != shape:
                raise Unsupported(f"layers {owner} and {name} share a weight but not their biases or layout")
            continue
        stop = start + shape[0] * shape[1]
        blocks.append(Block(name, start, stop, shape))
        shapes[name] = shape
        start = stop
    if not blocks:
        raise Unsupported("the model has no trainable layer to attribute through")
    if not start:
        raise Unsupported("the adapter is zero: it has no balanced coordinates before training has moved it")
    return tuple(blocks)


@dataclass(frozen=True, eq=False)
class Captured:
    """Gradients of n examples: per block the factors whose sum it is (more than one where weights are tied)."""

    blocks: tuple[Block, ...]
    factors: Mapping[str, tuple[Factor, ...]]
    count: int

    def zeros(self, width: int, dtype: torch.dtype | None = None) -> Tensor:
        """[n, width] zeros of the gradients' device and dtype (or `dtype`)."""
        some = next(iter(self.factors.values()))[0]
        return tensors(some)[-1].new_zeros(self.count, width, dtype=dtype or some.dtype)

    def rows(self) -> Tensor:
        """[n, p] multiplied out, in the order of `blocks`."""
        out = self.zeros(self.blocks[-1].stop)
        for block in self.blocks:
            into, factors = out[:, block.start : block.stop], self.factors.get(block.name, ())
            if factors:
                into.copy_(factors[0].dense())
            for factor in factors[1:]:
                into += factor.dense()
        return out


@dataclass(eq=False)
class _Watch:
    """What the hooks of one capture note: per site (input, place of the output in the graph) of each call.

    `on` only while a forward pass is watched: gradient checkpointing runs layers again on the way back, and factors
    of norms are had by calling them.
    """

    on: bool = False
    checked: bool = False
    apart: bool = False
    first: tuple[Record, str, int, Tensor] | None = None
    calls: list[tuple[int, Tensor, GradientEdge]] = field(default_factory=list[tuple[int, Tensor, GradientEdge]])

    @contextmanager
    def open(self) -> Generator[None]:
        self.calls = []
        self.on = True
        try:
            yield
        finally:
            self.on = False


@dataclass(frozen=True, eq=False)
class Capture:
    """An open capture on one model; see `capturing`."""

    task: Task
    model: nn.Module
    blocks: tuple[Block, ...]
    sites: tuple[Site, ...]
    owners: Mapping[str, str]
    watch: _Watch
    fused: Fused | None = None
    half: bool = False

    @property
    def width(self) -> int:
        """p, the length of a row of gradients."""
        return self.blocks[-1].stop

    def factors(self, records: Sequence[Record], side: str, draw: int = 0) -> Captured:
        """Factored gradients of `records` in one batch.

        side="train": of -loss (the direction in which training on the record moved the weights); side="query": of the
        measurement; others and `draw`: see `outputs`. All are *sums* over supervised tokens, so a positive product
        means "helped". Raises `Unsupported` where examples of a batch cannot be told apart, and `PoaError` where a
        gradient is not finite.
        """
        _refuse_train_mode(self.model)
        if self.half and side == "sampled":
            raise Unsupported(
                "curvature needs float32 or float64: bfloat16 loses the small eigenvalues that it is about"
            )
        with torch.enable_grad(), self.watch.open():
            each = self._outputs(records, side, draw)
            _check_losses(each, len(records))
        calls, self.watch.calls = self.watch.calls, []
        if not self.watch.checked:  # once: what a model reads does not depend on the record
            self._check_repeats(each, records, side, draw)
            _check_reads(self.sites, each, [at for at, _, _ in calls])
            self.watch.checked = True
        if not self.watch.apart:
            self._check_apart(each.detach(), records, side, draw)
        signals: Any = torch.autograd.grad(each.sum(), [edge for _, _, edge in calls], allow_unused=True)
        found: dict[str, list[Factor]] = {}
        sums: list[tuple[Site, Tensor]] = []
        with torch.no_grad():
            for (at, given, _), signal in zip(calls, signals, strict=True):
                if signal is None:  # the loss does not reach this call
                    continue
                site = self.sites[at]
                _check_rows(site, given, signal, len(records))
                sums.append((site, signal.sum()))
                for (name, _), factor in zip(site.blocks, site.factors(given, signal), strict=True):
                    found.setdefault(self.owners.get(name, name), []).append(factor)
        if not found:
            raise Unsupported("no tracked layer takes part in the loss")
        _check_finite(sums)
        return Captured(self.blocks, {name: tuple(parts) for name, parts in found.items()}, len(records))

    def _outputs(self, records: Sequence[Record], side: str, draw: int) -> Tensor:
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, torch.bfloat16) if self.half else nullcontext():
            return outputs(self.task, self.model, records, side, draw, self.fused)

    def _check_repeats(self, each: Tensor, records: Sequence[Record], side: str, draw: int) -> None:
        """Refuse a model that answers otherwise when it is asked again, whatever makes it do so."""
        with torch.no_grad():
            again = self._outputs(records, side, draw)
        if not torch.allclose(each.detach(), again, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise Unsupported(
                "the model answers the same record in two ways: something in it is drawn anew at every call, dropout "
                "by a function, for example; switch it off"
            )

    def _check_apart(self, each: Tensor, records: Sequence[Record], side: str, draw: int) -> None:
        """Refuse a model that answers a record otherwise beside others: its examples have no gradients of their own.

        Once a capture: the first of a batch is asked alone; of records that come one by one, the first two together.
        Padding and rounding move an answer by less than a hundredth.
        """
        if len(records) > 1:
            before, asked = each[:1], records[:1]
        elif self.watch.first is None:
            self.watch.first = (records[0], side, draw, each)
            return
        else:
            record, *also, alone = self.watch.first
            if also != [side, draw] or record.digest == records[0].digest:
                return
            before, asked = torch.cat([alone, each]), [record, records[0]]
        with torch.no_grad():
            now = self._outputs(asked, side, draw)[: len(before)]
        if not torch.allclose(before, now, rtol=1e-2, atol=1e-2, equal_nan=True):
            raise Unsupported(
                "the model answers a record otherwise beside another one: it mixes examples (by a mean over the batch, "
                "say), so they have no gradients of their own"
            )
        self.watch.apart, self.watch.first = True, None


@contextmanager
def capturing(
    task: Task, model: nn.Module, coordinates: str = "adapter", fused: bool = False, precision: str = "full"
) -> Generator[Capture]:
    """Watch the tracked layers of `model` until the block ends; nothing of the model is changed afterwards.

    coordinates: of LoRA factors, "adapter" or "balanced" (see `poa.gradients.gauge`). fused: run the forward pass with
    less traffic where the task knows how and no tracked layer hides in it (see `poa.gradients.fused`); gradients agree
    with the plain pass to rounding, not to the byte. precision: "full" as the
    model is, or "bf16", products by autocast in bfloat16 with losses in float32: for features on processors that have
    such instructions (others emulate them, many times slower), refused for curvature. Opening a capture once for many
    records is cheaper than `example_gradients` for each of them.
    """
    if coordinates not in ("adapter", "balanced"):
        raise PoaError(f"coordinates is {coordinates!r}, must be adapter or balanced")
    if precision not in ("full", "bf16"):
        raise PoaError(f"precision is {precision!r}, must be full or bf16")
    _refuse_train_mode(model)
    modules = task.tracked(model)
    _refuse_partly_shared(modules)
    _refuse_half(modules)
    found, owners = sites(modules, model, coordinates), weight_owners(modules)
    watch = _Watch()
    handles = [
        site.module.register_forward_hook(_keep(watch, at, site.again), with_kwargs=True)
        for at, site in enumerate(found)
    ]
    replaced = [(site.module, site.forward) for site in found if site.forward is not None]
    for module, forward in replaced:
        module.forward = forward  # an attribute of this one object, over its class's method
    try:
        with fused_activations(model) if fused else nullcontext():
            quick = _quick(task, model, found) if fused else None
            yield Capture(task, model, _blocks(found, owners), found, owners, watch, quick, precision == "bf16")
    finally:
        for handle in handles:
            handle.remove()
        for module, _ in replaced:
            del module.forward


def _quick(task: Any, model: nn.Module, found: Sequence[Site]) -> Fused | None:
    """The task's fused log-probabilities, unless it has none or the head that they skip is tracked itself."""
    if not hasattr(task, "fused"):
        return None
    try:
        head, log_probabilities = task.fused(model)
    except Unsupported:
        return None  # a model whose logits are made in another way takes the plain pass
    return None if any(site.module is head for site in found) else log_probabilities


def _keep(watch: _Watch, at: int, again: bool) -> Callable[..., Tensor | None]:
    """A hook that notes (input, place of the output in the graph).

    The place, not the tensor: an activation that works in place (ReLU(inplace=True)) turns the tensor into its own
    output, and its gradient would then silently be that of another layer. Where everything below is frozen, the graph
    begins here.
    """

    def hook(_: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any], out: Any) -> Tensor | None:
        if not watch.on:
            return None
        if again and (len(given) > 1 or any(value is not None for value in named.values())):
            raise Unsupported(
                f"a {type(_).__name__} that takes more than its input cannot be tracked: what else it was given would "
                "be forgotten; leave it out of Task.tracked"
            )
        if not isinstance(out, Tensor) or not given:
            raise Unsupported(f"a {type(_).__name__} that is not a function from one tensor to one cannot be tracked")
        if not torch.is_grad_enabled():
            raise Unsupported("reentrant gradient checkpointing hides layers; use use_reentrant=False")
        begins = not out.requires_grad
        if begins:
            # A copy, because a leaf must not be changed in place by what follows.
            out = out.detach().requires_grad_().clone()
        watch.calls.append((at, given[0].detach(), get_gradient_edge(out)))
        return out if begins else None

    return hook


def _refuse_half(modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter.dtype not in (torch.float32, torch.float64):
                kind = str(parameter.dtype).removeprefix("torch.")
                raise Unsupported(
                    f"layer {name} is trained in {kind}: gradients and curvature need float32 or float64 weights "
                    "(precision='bf16' multiplies float32 weights in bfloat16, for features)"
                )


def _refuse_train_mode(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module.training and isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
            raise Unsupported(f"layer {name} is a BatchNorm in train mode: examples have no gradients of their own")
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:  # pyright: ignore[reportPrivateUsage]
            raise Unsupported(
                f"layer {name} is a BatchNorm without running statistics: it reads the batch even in eval mode, so "
                "examples have no gradients of their own"
            )
        if module.training and isinstance(module, nn.modules.dropout._DropoutNd) and module.p:  # pyright: ignore[reportPrivateUsage]
            raise Unsupported(f"layer {name} is an active dropout: the same record would give other gradients")
        # Attention often drops by a rate of its own instead of a layer.
        if module.training and any("dropout" in key and isinstance(p, float) and p for key, p in vars(module).items()):
            raise Unsupported(f"layer {name} has an active dropout: the same record would give other gradients")


def _check_rows(site: Site, given: Tensor, signal: Tensor, count: int) -> None:
    if given.shape[0] != count or signal.shape[0] != count:
        advice = ", or capture one record at a time" if count > 1 else ", or leave it out of Task.tracked"
        raise Unsupported(
            f"layer {site.blocks[0][0]} sees {given.shape[0]} rows for {count} records: their gradients cannot be told "
            f"apart; give it one row per record (position ids, for example){advice}"
        )


def _check_finite(sums: Sequence[tuple[Site, Tensor]]) -> None:
    """All at once: every look at a number makes an accelerator wait."""
    finite = torch.isfinite(torch.stack([total for _, total in sums])).tolist()
    if not all(finite):
        name = sums[finite.index(False)][0].blocks[0][0]
        raise PoaError(f"the gradient at layer {name} is not finite (nan or infinite): nothing can be attributed by it")


def _check_reads(found: Sequence[Site], each: Tensor, calls: Sequence[int]) -> None:
    """Refuse a model whose loss reads a tracked parameter past the module that holds it."""
    own = [list(site.module.parameters(recurse=False)) for site in found]
    read = reads(each, [parameter for part in own for parameter in part])
    called = Counter(id(parameter) for at in calls for parameter in own[at])
    for site, part in zip(found, own, strict=True):
        for parameter in part:
            times, calls_of = read[id(parameter)], called[id(parameter)]
            # A module of unknown kind may read its own parameters twice; it is differentiated as a whole.
            if times > calls_of and (site.factored or not calls_of):
                raise Unsupported(
                    f"the loss reads a parameter of layer {site.blocks[0][0]} {times} times, but the layer is called "
                    f"{calls_of} times: gradients past a layer are not seen; call the layer, or leave it out of "
                    "Task.tracked"
                )


def _check_losses(each: Tensor, count: int) -> None:
    if each.shape != (count,):
        raise Unsupported(
            f"the task's loss has shape {tuple(each.shape)} for {count} records; it must be one sum per record: "
            "a reduced loss does not say by what it was divided"
        )
    if each.dtype not in (torch.float32, torch.float64):
        raise Unsupported(f"the loss is {str(each.dtype).removeprefix('torch.')}; gradients need float32 or float64")


def example_gradients(task: Task, model: nn.Module, records: Sequence[Record], side: str) -> Tensor:
    """[n, p] gradients, one row per record, in the model's dtype; see `Capture.factors` for side, sign and errors."""
    with capturing(task, model) as capture:
        return capture.factors(records, side).rows()
