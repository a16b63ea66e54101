"""scikit-learn's handwritten digits as a corpus with simulated contributors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poa.errors import CorpusError
from poa.records import Corpus, Record


def digits(
    count: int | None = None,
    *,
    contributors: int = 10,
    concentration: float = 0.5,
    classes: Sequence[int] = tuple(range(10)),
    seed: int = 0,
) -> Corpus:
    """The first `count` images (default all, 1,797 for ten classes) in a seeded order.

    Features are the 64 pixels scaled to 0..1, the label is the digit's position in `classes`, `registered` its
    position in the source. Contributors are a simulation: each class is dealt out in Dirichlet(`concentration`)
    proportions, so that small values give contributors who specialise (Hsu et al., 1909.06335); with few records some
    may be left without any. Contributor labels do not depend on `count`, so `digits(300)[:200]` and
    `digits(300)[200:]` are disjoint train and query sets of one population.
    Raises `CorpusError` for a class that is not a digit, a bad number of contributors or more records than exist.
    """
    from sklearn.datasets import load_digits

    wanted = tuple(int(c) for c in classes)
    if not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(range(10)):
        raise CorpusError(f"classes are {wanted}, must be distinct digits 0 to 9")
    if contributors < 1 or not concentration > 0:
        raise CorpusError(f"need contributors >= 1 and concentration > 0, got {contributors} and {concentration}")
    data: Any = load_digits()
    pixels: npt.NDArray[np.float64] = data.data
    labels: npt.NDArray[np.int64] = data.target
    rng = np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(np.isin(labels, wanted)))
    owners = _owners(labels[order], contributors, concentration, rng)
    if count is not None and not 0 <= count <= len(order):
        raise CorpusError(f"count is {count}, but there are {len(order)} digits of these classes")
    return Corpus(
        Record(
            id=f"digit-{source:04d}",
            contributor=f"contributor-{owner}",
            datanet="digits",
            licence="CC-BY-4.0",
            registered=int(source),
            features=tuple(float(v) for v in pixels[source] / 16.0),
            label=wanted.index(int(labels[source])),
        )
        for source, owner in list(zip(order, owners, strict=True))[:count]
    )


def _owners(
    labels: npt.NDArray[np.int64], contributors: int, concentration: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """[records] contributor numbers; every class has its own proportions."""
    owners = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shares = rng.dirichlet(np.full(contributors, concentration))
        owners[members] = rng.choice(contributors, size=len(members), p=shares)
    return owners
