"""SOURCE against exponentials of matrices written out, and in its two limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import expm

from poa.conformance import digits_mlp, isolated
from poa.errors import PoaError
from poa.factory.classifier import train_classifier
from poa.gradients.kronecker import kronecker
from poa.gradients.moments import adam_rows
from poa.gradients.passes import Fisher
from poa.gradients.store import gradients
from poa.gradients.trajectory import record_rates
from poa.methods.ekfac import EKFAC
from poa.methods.source import SOURCE


def written_out(bases: object) -> np.ndarray:
    """[p, p] block-diagonal curvature."""
    parts = [basis.apply(np.eye(basis.spectrum.numel()), basis.spectrum.numpy()) for basis in bases]  # type: ignore[attr-defined]
    out = np.zeros((sum(map(len, parts)),) * 2)
    start = 0
    for part in parts:
        out[start : start + len(part), start : start + len(part)] = part
        start += len(part)
    return out


def test_two_segments_equal_matrix_exponentials(tmp_path: Path) -> None:
    corpus = digits_mlp().run.corpus
    run = train_classifier(corpus, (6,), steps=40, batch=16, lr=0.3, momentum=0.5, keep=4, cache=tmp_path)
    queries = digits_mlp().queries
    count, moved = len(corpus), np.zeros(0)
    for positions, ends in (((0, 1), (0, 20)), ((2, 3), (20, 40))):
        time = record_rates(run, *ends).sum() / 0.5
        curvature = written_out(kronecker(run, positions, Fisher(), corrected=True).values())
        rows = np.mean([gradients(run, p, corpus, "train").values for p in positions], 0)
        decay = expm(-time * curvature)
        values, vectors = np.linalg.eigh(curvature)
        values = np.clip(values, 0, None)
        factor = np.where(values * time > 1e-10, -np.expm1(-time * values) / np.maximum(values, 1e-300), time)
        learned = rows @ (vectors * factor) @ vectors.T / count
        moved = learned if not moved.size else moved @ decay + learned
    expected = gradients(run, 3, queries, "query").values @ moved.T
    found = SOURCE(segments=2).fit(run).attribute(queries)
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    assert [part["steps"] for part in found.meta["segments"]] == [[0, 20], [20, 40]]


def test_long_training_is_influence_and_short_training_is_graddot(tmp_path: Path) -> None:
    corpus, queries = digits_mlp().run.corpus, digits_mlp().queries
    for lr, near in ((1e7, "influence"), (1e-9, "graddot")):
        # One step, so that the weights are those of a single checkpoint; the rate alone decides the segment's time.
        run = train_classifier(corpus, steps=1, batch=60, lr=1e-9, keep=1, cache=tmp_path / near)
        log = run.steps
        log.rate[:] = lr
        found = SOURCE(segments=1).fit(run).attribute(queries).values
        if near == "graddot":
            dots = gradients(run, 0, queries, "query").values @ gradients(run, 0, corpus, "train").values.T
            expected = dots * lr / 60
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        else:
            inverse = EKFAC(damping=1e-6).fit(run).attribute(queries).values
            assert np.corrcoef(found.ravel(), inverse.ravel())[0, 1] > 0.95


def test_adam_scales_gradients_by_the_root_of_its_diagonal(tmp_path: Path) -> None:
    corpus, queries = digits_mlp().run.corpus, digits_mlp().queries
    run = train_classifier(corpus, (6,), steps=20, lr=0.01, optimizer="adamw", keep=1, cache=tmp_path)
    moments = run.moments()
    assert moments is not None
    rows = gradients(run, 0, corpus, "train")
    _, second = adam_rows(run, rows.blocks, 0, moments)
    scale = 1 / np.sqrt(np.sqrt(second / (1 - 0.999**20)) + 1e-8)
    time = record_rates(run, 0, 20).sum()
    drawn = gradients(run, 0, corpus, "sampled").values * scale
    out = np.zeros((len(queries), len(corpus)))
    asked = gradients(run, 0, queries, "query").values * scale
    for block, basis in zip(rows.blocks, kronecker(run, (0,), Fisher(), corrected=True).values(), strict=True):
        cut = slice(block.start, block.stop)
        turned = [
            np.stack([basis.coordinates(r).ravel() for r in part[:, cut]])
            for part in (drawn, asked, rows.values * scale)
        ]
        values = (turned[0] ** 2).mean(0)
        factor = np.where(time * values > 1e-8, -np.expm1(-time * values) / np.maximum(values, 1e-300), time)
        out += (turned[1] * factor) @ turned[2].T / len(corpus)
    found = SOURCE(segments=1).fit(run).attribute(queries)
    np.testing.assert_allclose(found.values, out, rtol=0, atol=1e-6 * np.abs(out).max())


def test_no_segment_is_refused() -> None:
    with pytest.raises(PoaError, match="must be 1 or more"):
        SOURCE(segments=0)
    with isolated(digits_mlp().run) as run:
        assert SOURCE(segments=99).fit(run).attribute(digits_mlp().queries[:1]).meta["segments"][-1]["steps"][1] == 60
