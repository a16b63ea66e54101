"""Which of several ordered spans holds each token first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from poa.compiled import jit

Array = npt.NDArray[Any]


@jit
def claimed(starts: Array, ends: Array, m: int) -> Array:
    """int64[m]: the smallest i with starts[i] <= t < ends[i] for each token t, -1 where no span holds it.

    starts, ends: int64[k]. Near-linear: a claimed token points to the next one that may be free.
    """
    out = np.full(m, -1, np.int64)
    onward = np.arange(m + 1)
    for i in range(starts.size):
        t = starts[i]
        while True:
            while onward[t] != t:
                onward[t] = onward[onward[t]]
                t = onward[t]
            if t >= ends[i]:
                break
            out[t] = i
            onward[t] = t + 1
    return out
