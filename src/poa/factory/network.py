"""Networks as pure functions of their weights, for JAX: classifiers, GPT-2 and Llama shapes, whole or under LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from poa.errors import Unsupported

Array = Any
KINDS = ("gpt2", "llama")


@dataclass(frozen=True)
class Shape:
    """What a forward pass needs to know besides weights. scale: of LoRA updates, alpha / r."""

    kind: str
    layers: int
    heads: int
    key_heads: int
    eps: float
    theta: float = 10000.0
    scale: float = 1.0

    @staticmethod
    def of(config: Any, scale: float = 1.0) -> Shape:
        """From a transformers configuration; raises `Unsupported` for what is not computed here."""
        kind = str(config.model_type)
        if kind == "gpt2":
            told = (config.activation_function, config.scale_attn_by_inverse_layer_idx, config.add_cross_attention)
            if told != ("gelu_new", False, False):
                raise Unsupported("a GPT-2 with an unusual activation or attention is not known to JAX here")
            return Shape(kind, config.n_layer, config.n_head, config.n_head, config.layer_norm_epsilon, scale=scale)
        if kind == "llama":
            rope: dict[str, Any] = dict(getattr(config, "rope_parameters", None) or {"rope_type": "default"})
            if config.hidden_act != "silu" or rope.get("rope_type", "default") != "default":
                raise Unsupported("a Llama with an unusual activation or scaled positions is not known to JAX here")
            return Shape(
                kind,
                config.num_hidden_layers,
                config.num_attention_heads,
                config.num_key_value_heads,
                config.rms_norm_eps,
                float(rope.get("rope_theta", 10000.0)),
                scale,
            )
        raise Unsupported(f"a {kind} is not known to JAX here; known are {', '.join(KINDS)}")


@dataclass(frozen=True)
class LanguageNetwork:
    """A causal language model of a shape; satisfies `poa.gradients.program.Network`."""

    shape: Shape

    # A step of a tiny model keeps some hundred megabytes for each.
    stack: ClassVar[int] = 4

    def losses(self, trained: Mapping[str, Array], frozen: Mapping[str, Array], rows: Any) -> Array:
        return token_losses(self.shape, trained, frozen, rows)

    def measure(self, trained: Mapping[str, Array], frozen: Mapping[str, Array], rows: Any) -> Array:
        return -token_losses(self.shape, trained, frozen, rows)


@dataclass(frozen=True)
class ClassifierNetwork:
    """Logistic regression or a tanh network of `depth` linear layers; rows {"x": [b, features], "y": [b]}.

    measures: "log-odds" of the label or its "log-probability".
    """

    depth: int
    measures: str

    stack: ClassVar[int] = 128

    def losses(self, trained: Mapping[str, Array], frozen: Any, rows: Any) -> Array:
        """Cross entropies."""
        import jax
        import jax.numpy as jnp

        logits, own = self._logits(trained, rows)
        return jax.nn.logsumexp(logits, -1) - jnp.where(own, logits, 0.0).sum(-1)

    def measure(self, trained: Mapping[str, Array], frozen: Any, rows: Any) -> Array:
        """log p_y - log(1 - p_y), or log p_y"""
        if self.measures == "log-probability":
            return -self.losses(trained, frozen, rows)
        import jax
        import jax.numpy as jnp

        logits, own = self._logits(trained, rows)
        return jnp.where(own, logits, 0.0).sum(-1) - jax.nn.logsumexp(jnp.where(own, -jnp.inf, logits), -1)

    def _logits(self, trained: Mapping[str, Array], rows: Any) -> tuple[Array, Array]:
        """([b, classes], the same with True at the label)"""
        import jax.numpy as jnp

        x = rows["x"]
        for layer in range(self.depth):
            x = jnp.tanh(x) if layer else x
            x = x @ trained[f"{2 * layer}.weight"].T + trained[f"{2 * layer}.bias"]
        return x, jnp.arange(x.shape[-1]) == rows["y"][:, None]


@dataclass(frozen=True)
class Weights:
    """Weights by name as transformers names them, trained ones first; LoRA factors as NAME.lora_A and NAME.lora_B.

    Matrices are [out, in] (those of a Conv1D transposed), A [r, in], B [out, r].
    """

    trained: Mapping[str, Array]
    frozen: Mapping[str, Array]
    scale: float

    def get(self, name: str) -> Array | None:
        found = self.trained.get(name)
        return self.frozen.get(name) if found is None else found

    def __getitem__(self, name: str) -> Array:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def linear(self, name: str, x: Array) -> Array:
        """x W^T + b + scale (x A^T) B^T."""
        out = x @ self[f"{name}.weight"].T
        bias, down = self.get(f"{name}.bias"), self.get(f"{name}.lora_A")
        out = out if bias is None else out + bias
        return out if down is None else out + self.scale * (x @ down.T) @ self[f"{name}.lora_B"].T


def token_losses(shape: Shape, trained: Mapping[str, Array], frozen: Mapping[str, Array], rows: Any) -> Array:
    """[b] cross entropy (nats) summed over supervised tokens; rows: {"ids": [b, L], "labels": [b, L], -100 = none}.

    Padding is on the right: a causal model does not see it.
    """
    import jax
    import jax.numpy as jnp

    weights = Weights(trained, frozen, shape.scale)
    hidden = (_gpt2 if shape.kind == "gpt2" else _llama)(shape, weights, rows["ids"])
    head = weights.get("lm_head.weight")
    embedded = "transformer.wte.weight" if shape.kind == "gpt2" else "model.embed_tokens.weight"
    logits = hidden[:, :-1] @ (weights[embedded] if head is None else head).T
    targets = rows["labels"][:, 1:]
    # A comparison instead of a lookup: its derivative is no scatter.
    own = jnp.where(jnp.arange(logits.shape[-1]) == targets[..., None], logits, 0.0).sum(-1)
    losses = jax.nn.logsumexp(logits, -1) - own
    return jnp.where(targets >= 0, losses, 0.0).sum(-1)


def _gpt2(shape: Shape, weights: Weights, ids: Array) -> Array:
    import jax
    import jax.numpy as jnp

    x = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"][: ids.shape[1]]

    def norm(name: str, x: Array) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + shape.eps)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    for layer in range(shape.layers):
        at = f"transformer.h.{layer}"
        parts = jnp.split(weights.linear(f"{at}.attn.c_attn", norm(f"{at}.ln_1", x)), 3, -1)
        x = x + weights.linear(f"{at}.attn.c_proj", _attended(*(_heads(part, shape.heads) for part in parts)))
        inner = jax.nn.gelu(weights.linear(f"{at}.mlp.c_fc", norm(f"{at}.ln_2", x)), approximate=True)
        x = x + weights.linear(f"{at}.mlp.c_proj", inner)
    return norm("transformer.ln_f", x)


def _llama(shape: Shape, weights: Weights, ids: Array) -> Array:
    import jax
    import jax.numpy as jnp

    x = weights["model.embed_tokens.weight"][ids]

    def norm(name: str, x: Array) -> Array:
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + shape.eps) * weights[f"{name}.weight"]

    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        given = norm(f"{at}.input_layernorm", x)
        q, k, v = (
            _heads(weights.linear(f"{at}.self_attn.{part}_proj", given), count)
            for part, count in (("q", shape.heads), ("k", shape.key_heads), ("v", shape.key_heads))
        )
        q, k = (_turned(part, shape.theta) for part in (q, k))
        repeats = shape.heads // shape.key_heads
        k, v = (part if repeats == 1 else jnp.repeat(part, repeats, 1) for part in (k, v))
        x = x + weights.linear(f"{at}.self_attn.o_proj", _attended(q, k, v))
        given = norm(f"{at}.post_attention_layernorm", x)
        gate = jax.nn.silu(weights.linear(f"{at}.mlp.gate_proj", given))
        x = x + weights.linear(f"{at}.mlp.down_proj", gate * weights.linear(f"{at}.mlp.up_proj", given))
    return norm("model.norm", x)


def _heads(x: Array, heads: int) -> Array:
    """[b, L, h * d] -> [b, h, L, d]"""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _attended(q: Array, k: Array, v: Array) -> Array:
    """Causal softmax attention of [b, h, L, d], heads side by side again."""
    import jax
    import jax.numpy as jnp

    length, size = q.shape[2:]
    scores = q @ k.swapaxes(-1, -2) * size**-0.5
    seen = jnp.tril(jnp.ones((length, length), bool))
    chances = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), -1)
    return (chances @ v).transpose(0, 2, 1, 3).reshape(q.shape[0], length, -1)


def _turned(x: Array, theta: float) -> Array:
    """Rotary positions on [b, h, L, d], halves paired as transformers pairs them."""
    import jax.numpy as jnp

    length, size = x.shape[2:]
    rates = theta ** (-jnp.arange(0, size, 2, dtype=x.dtype) / size)
    angles = jnp.arange(length, dtype=x.dtype)[:, None] * rates
    cos, sin = (jnp.concatenate([part, part], -1) for part in (jnp.cos(angles), jnp.sin(angles)))
    left, right = jnp.split(x, 2, -1)
    return x * cos + jnp.concatenate([-right, left], -1) * sin
