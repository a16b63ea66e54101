"""GradCos is the cosine of two autograd gradients; a zero gradient scores 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from tests.language import DoubleRun, autograd_rows

from poa.conformance import digits_linear
from poa.factory.classifier import Classifier, train_classifier
from poa.methods.gradcos import GradCos
from poa.records import Corpus


def test_equals_autograd(double: DoubleRun, queries: Corpus) -> None:
    asked, train = autograd_rows(double, queries, "query"), autograd_rows(double, double.corpus, "train")
    expected = (asked @ train.T) / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(train, axis=1)
    found = GradCos().fit(double).attribute(queries).values
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert np.abs(found).max() <= 1 + 1e-12


class Deaf(Classifier):
    """A classifier that learns nothing from records with label 0."""

    def loss(self, model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return super().loss(model, batch) * (batch["y"] != 0)


def test_a_zero_gradient_scores_zero(tmp_path: Path) -> None:
    case = digits_linear()
    run = train_classifier(case.run.corpus, steps=5, cache=tmp_path)
    object.__setattr__(run, "task", Deaf(64, 3))
    found = GradCos().fit(run).attribute(case.queries).values
    silent = np.asarray([record.label == 0 for record in run.corpus])
    assert silent.any()
    assert (found[:, silent] == 0).all()
    assert (found[:, ~silent] != 0).all()
