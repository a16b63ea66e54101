"""Random numbers by name: what is drawn depends on a seed and on words, not on order, batch, device or machine."""

from __future__ import annotations

from hashlib import sha256

import numpy as np


def stream(purpose: str, seed: int, *words: object) -> np.random.Generator:
    """A generator (counter-based Philox, on the CPU) for `purpose` with its version ("gaussian/1"), `seed`, `words`."""
    text = "\n".join((f"poa/{purpose}", str(seed), *map(str, words)))
    return np.random.Generator(np.random.Philox(int.from_bytes(sha256(text.encode()).digest()[:8], "little")))
