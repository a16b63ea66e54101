"""A model on a CUDA device gives the numbers that it gives on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poa.conformance import digits_mlp, isolated, text_bigram
from poa.gradients.grass import FactGrass, Grass
from poa.gradients.projection import Gaussian, SparseJL, TwoSided
from poa.gradients.shards import Plan, Store, build
from poa.gradients.store import gradients
from poa.methods import method

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CASES = {"digits-mlp": digits_mlp, "bigram": text_bigram}


class OnDevice:
    """A run whose models are on a CUDA device."""

    def __init__(self, source: Any, cache: Path) -> None:
        self.source: Any = source
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def model(self, checkpoint: int = -1) -> Any:
        return self.source.model(checkpoint).to("cuda")


@pytest.mark.parametrize("case", CASES)
def test_rows_and_scores_agree(case: str, tmp_path: Path) -> None:
    subject = CASES[case]()
    with isolated(subject.run) as run:
        there: Any = OnDevice(run, tmp_path)
        rows = [gradients(each, -1, run.corpus, "train").values for each in (run, there)]
        np.testing.assert_allclose(rows[1], rows[0], rtol=1e-8, atol=1e-8 * np.abs(rows[0]).max())
        for name in ("graddot", "influence", "ekfac", "kfac", "logra"):
            here, far = (method(name).fit(each).attribute(subject.queries).values for each in (run, there))
            np.testing.assert_allclose(far, here, rtol=1e-6, atol=1e-6 * np.abs(here).max(), err_msg=name)


@pytest.mark.parametrize("projection", [None, TwoSided(4), Gaussian(16), SparseJL(16), Grass(16, 64), FactGrass(4, 6)])
def test_stores_agree(projection: Any, tmp_path: Path) -> None:
    with isolated(digits_mlp().run) as run:
        plan = Plan(projection=projection)
        there: Any = OnDevice(run, tmp_path / "cache")
        stores = [build(each, tmp_path / name, plan) for each, name in ((run, "here"), (there, "far"))]
        here, far = (np.concatenate([*Store.open(store).rows()]) for store in stores)
        np.testing.assert_allclose(far, here, rtol=1e-5, atol=1e-5 * np.abs(here).max())
