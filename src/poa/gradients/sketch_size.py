"""The size of a projection, chosen from the number of records alone: no retraining, no look at the queries.

Damped influence leaves about 2.5 sqrt(N) directions to the data (`poa.gradients.damping`). A random projection keeps
the inner products of that many directions to a relative error of about 1 / sqrt(MARGIN), so that many features are
kept for each direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from poa.errors import PoaError
from poa.gradients.damping import ROOT

if TYPE_CHECKING:
    from poa.gradients.capture import Block

RULE = "features-per-direction/1"
MARGIN = 16


def sized(size: int | None, records: int) -> tuple[int, dict[str, Any]]:
    """(features, evidence): `size` if given, else the power of two next above 16 x 2.5 sqrt(records)."""
    if size is not None:
        if size < 1:
            raise PoaError(f"projection is {size}, must be 1 or more (or none, to have it chosen)")
        return size, {"rule": "given", "size": size}
    found = 1 << int(np.ceil(np.log2(MARGIN * ROOT * np.sqrt(max(records, 1)))))
    return found, {"rule": RULE, "size": found, "records": records}


def sided(width: int | None, blocks: Sequence[Block], records: int) -> tuple[int, dict[str, Any]]:
    """(columns a side, evidence): `width` if given, else the least for which all layers together have `sized` features.

    Where the model has fewer parameters than that, the width at which nothing is projected.
    """
    if width is not None:
        if width < 1:
            raise PoaError(f"width is {width}, must be 1 or more (or none, to have it chosen)")
        return width, {"rule": "given", "width": width}
    wanted, evidence = sized(None, records)
    whole = max(max(block.shape) for block in blocks)

    def features(side: int) -> int:
        return sum(min(side, block.shape[0]) * min(side, block.shape[1]) for block in blocks)

    found = next((side for side in range(1, whole) if features(side) >= wanted), whole)
    return found, evidence | {"width": found, "size": features(found)}
