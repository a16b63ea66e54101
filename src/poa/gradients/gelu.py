"""GELU in the tanh form with its derivative made on the way forward, in one pass over the activations.

For float32 on one thread of a processor, where torch's own kernel is bound by tanh, once forward and once back. The
rational function for tanh is the one of Eigen (`generic_fast_tanh_float`), off by a few units in the last place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

F32 = np.float32


def gelu(x: Tensor) -> Tensor:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), like `F.gelu(x, approximate="tanh")` to rounding.

    First derivatives only where it takes the quick way.
    """
    if x.dtype != torch.float32 or x.device.type != "cpu" or torch.get_num_threads() > 1:
        return F.gelu(x, approximate="tanh")
    found: Any = _Gelu.apply(x)
    return found


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        given = x.detach().contiguous()
        out, slope = torch.empty_like(given), torch.empty_like(given)
        _both(given.view(-1).numpy(), out.view(-1).numpy(), slope.view(-1).numpy())
        ctx.save_for_backward(slope)
        return out

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return signal * slope


@njit(cache=True, nogil=True, fastmath={"contract", "nsz", "arcp"}, error_model="numpy")
def _both(x: Any, out: Any, slope: Any) -> None:  # pragma: no cover - compiled
    """out = gelu(x) and slope = its derivative; NaN stays NaN, and far from zero GELU is max(x, 0)."""
    one, half, rate, cube = F32(1), F32(0.5), F32(0.7978845608028654), F32(0.044715)
    none, limit = F32(0), F32(7.90531110763549805)  # where tanh is 1 in float32
    for i in range(x.size):
        v = x[i]
        square = v * v
        reach = rate * v * (one + cube * square)
        z = min(max(reach, -limit), limit)
        s = z * z
        top = F32(2.00018790482477e-13) + s * F32(-2.76076847742355e-16)
        top = F32(-8.60467152213735e-11) + s * top
        top = F32(5.12229709037114e-08) + s * top
        top = F32(1.48572235717979e-05) + s * top
        top = F32(6.37261928875436e-04) + s * top
        top = z * (F32(4.89352455891786e-03) + s * top)
        below = F32(1.18534705686654e-04) + s * F32(1.19825839466702e-06)
        below = F32(2.26843463243900e-03) + s * below
        below = F32(4.89352518554385e-03) + s * below
        t = top / below
        near = half * v * (one + t)
        steep = half * (one + t) + half * v * (one - t * t) * rate * (one + F32(3) * cube * square)
        out[i] = v if reach > limit else (none if reach < -limit else near)
        slope[i] = one if reach > limit else (none if reach < -limit else steep)
