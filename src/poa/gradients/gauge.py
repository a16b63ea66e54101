"""Balanced LoRA factors: one factorisation for every adapter that computes the same function.

With y = W0 x + c B A x, the change (B, A) -> (B Z, Z^-1 A) leaves the model as it is and moves every gradient with
respect to A and B, and with them raw inner products, cosines and damped curvature. Whoever hands over an adapter could
choose Z, hence the scores. Balanced factors are a function of the product c B A alone, up to rotations that inner
products do not see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Directions this much weaker than the strongest one are rounding or padding, not training.
NEGLIGIBLE = 1e-9


def balanced(down: Tensor, up: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(A', B') of `down` = A [r, in] and `up` = B [out, r] with B' A' = scale B A and B'^T B' = A' A'^T.

    A' = S^1/2 V^T, B' = U S^1/2 from the singular value decomposition of the product, had from QR of both factors in
    float64: O((in + out) r^2), no [out, in] matrix. Rank k <= r: what the product does not use (zero padding, say) is
    gone. The largest entry of each column of U is positive.
    """
    left, core_left = torch.linalg.qr(up.double())
    right, core_right = torch.linalg.qr(down.double().T)
    u, s, vt = torch.linalg.svd(scale * core_left @ core_right.T)
    kept = s > NEGLIGIBLE * s[0] if float(s[0]) > 0 else torch.zeros_like(s, dtype=torch.bool)
    root = s[kept].sqrt()
    columns, rows = left @ u[:, kept], vt[kept] @ right.T
    if len(root):
        signs = columns.gather(0, columns.abs().argmax(0, keepdim=True)).sign()
        columns, rows = columns * signs, rows * signs.T
    return (root[:, None] * rows).to(down.dtype), (columns * root).to(up.dtype)


def adapter_tangents(model: Any, tangents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Directions of the stored factors that move the model as `tangents` of its balanced factors do.

    With B' A' = c B A, A' = N A and B' = c B L: dB = dB' N / c and dA = L dA'. Names are those of PEFT weights.
    """
    out = dict(tangents)
    for name in tangents:
        path, _, adapter = name.partition(".lora_A.")
        if not adapter:
            continue
        partner = f"{path}.lora_B.{adapter}"
        down, up = (model.get_parameter(each).detach().double() for each in (name, partner))
        scale = float(model.get_submodule(path).scaling[adapter.removesuffix(".weight")])
        rows, columns = balanced(down, up, scale)
        change_rows, change_columns = tangents[name].double(), tangents[partner].double()
        out[partner] = (change_columns @ rows @ torch.linalg.pinv(down) / scale).to(tangents[partner].dtype)
        out[name] = (torch.linalg.pinv(scale * up) @ columns @ change_rows).to(tangents[name].dtype)
    return out
