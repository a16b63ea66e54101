"""Kronecker curvature against Fisher matrices that are written out, on runs small enough for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.gradients import architectures as arch
from tests.unit.gradients import fishers
from tests.unit.gradients.test_certificates import plain, text
from torch import nn

from poa.conformance import digits_mlp, isolated, text_bigram
from poa.errors import PoaError
from poa.factory.classifier import train_classifier
from poa.factory.digits import digits
from poa.gradients.capture import Captured, capturing
from poa.gradients.covariances import Covariances, Sides, nearest
from poa.gradients.eigenbases import Eigenbasis, eigenbasis
from poa.gradients.kronecker import Curvature, Squares, bases_of, inverse, kronecker
from poa.gradients.passes import Fisher
from poa.gradients.store import gradients

CASES = {"digits-mlp": digits_mlp, "bigram": text_bigram}


def written_out(basis: Eigenbasis) -> np.ndarray:
    """[p, p] the curvature that a block stands for."""
    return basis.apply(np.eye(basis.spectrum.numel()), basis.spectrum.numpy())


@pytest.mark.parametrize("labels", ["sampled", "data"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_explicit_construction(case: str, labels: str) -> None:
    """Inputs in their order and the bias last, on both sides; two draws count as two examples."""
    draws = 2 if labels == "sampled" else 1
    with isolated(CASES[case]().run) as run:
        each = fishers.examples(run, labels, draws)
        for corrected, explicit in ((False, fishers.kfac), (True, fishers.ekfac)):
            found = kronecker(run, (-1,), Fisher(labels, draws), corrected=corrected)
            assert list(found) == list(each)
            for name, examples in each.items():
                expected = explicit(examples)
                np.testing.assert_allclose(written_out(found[name]), expected, atol=1e-10 * np.abs(expected).max())


def test_rows_are_solved_with_the_damped_inverse() -> None:
    with isolated(digits_mlp().run) as run:
        rows = gradients(run, -1, run.corpus, "train")
        for corrected, explicit in ((False, fishers.kfac), (True, fishers.ekfac)):
            found = inverse(kronecker(run, (-1,), Fisher(), corrected=corrected), 0.03, 50, 2.0)
            times = found.times(rows.values)
            each = fishers.examples(run, "sampled", 1)
            solved, residuals = found.certified(rows.values)
            np.testing.assert_array_equal(solved, times)
            fishers_of = {block: explicit(each[block.name]) for block in rows.blocks}
            assert found.lam == pytest.approx(0.03 * sum(np.trace(one) for one in fishers_of.values()) / 50, rel=1e-9)
            for (block, fisher), residual in zip(fishers_of.items(), residuals, strict=True):
                expected = np.linalg.solve(fisher + found.lam * np.eye(len(fisher)), rows.block(block).T).T
                part = times[:, block.start : block.stop] / 2
                np.testing.assert_allclose(part, expected, atol=1e-8 * np.abs(expected).max())
                assert residual < 1e-10


def test_exact_where_the_input_of_a_layer_is_constant(tmp_path: Path) -> None:
    """Then the gradient is s a^T with one a, and nothing is lost by taking the two sides for independent."""
    corpus = digits(12, contributors=3, classes=(0, 1))
    same = type(corpus)([type(r)(r.id, features=corpus[0].features, label=r.label) for r in corpus])
    run = train_classifier(same, steps=3, batch=12, keep=1, cache=tmp_path)
    found = kronecker(run, (-1,), Fisher(draws=4), corrected=False)
    for name, examples in fishers.examples(run, "sampled", 4).items():
        expected = fishers.exact(examples)
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(written_out(found[name]), expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("case", CASES)
def test_corrected_eigenvalues_are_never_farther_from_the_fisher(case: str) -> None:
    with isolated(CASES[case]().run) as run:
        each = fishers.examples(run, "sampled", 1)
        gaps = [
            [
                float(np.linalg.norm(fishers.exact(each[name]) - written_out(basis)))
                for name, basis in kronecker(run, (-1,), Fisher(), corrected=corrected).items()
            ]
            for corrected in (False, True)
        ]
    assert all(after < 0.999 * before for before, after in zip(*gaps, strict=True))


def curvature_of(captured: list[Captured], exact: bool = True) -> Curvature:
    moments = Covariances(exact)
    for each in captured:
        moments.add(each)
    bases = bases_of(moments, captured[0].blocks)
    squares = Squares(bases)
    for each in captured:
        squares.add(each)
    return squares.curvature(bases)


def test_pads_and_batches_do_not_move_the_moments() -> None:
    """Texts of 3 to 12 words, one at a time and all in one padded batch."""
    run = text_bigram().run
    records = list(run.corpus)
    alone, together = Covariances(), Covariances()
    with capturing(run.task, run.model()) as capture:
        for record in records:
            alone.add(capture.factors([record], "sampled"))
        together.add(capture.factors(records, "sampled"))
    words = sum(len(run.task.tokens(record)) for record in records)
    assert [each.tokens for kinds in together.sums.values() for each in kinds.values()] == [words, words]
    for one, other in zip(alone.sides().values(), together.sides().values(), strict=True):
        torch.testing.assert_close(one.left, other.left, rtol=0, atol=1e-12)
        torch.testing.assert_close(one.right, other.right, rtol=0, atol=1e-12)


def test_no_byte_depends_on_the_order_of_the_manifest() -> None:
    from poa.conformance import permuted

    with isolated(text_bigram().run) as run:
        order = np.random.default_rng(0).permutation(len(run.corpus))
        first, second = (kronecker(each, (-1,), Fisher(), corrected=True) for each in (run, permuted(run, order)))
    for one, other in zip(first.values(), second.values(), strict=True):
        assert torch.equal(one.spectrum, other.spectrum)


@pytest.mark.parametrize("name", ["layer norm", "rms norm", "group norm", "unheard of", "prelu"])
def test_norms_and_unknown_modules_have_their_whole_fisher(name: str) -> None:
    task, model = plain("plain", name, "cross-entropy", torch.float64)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        captured = capture.factors(arch.RECORDS, "train")
    found, rows = curvature_of([captured]), captured.rows().numpy()
    kinds = {block: type(factors[0]).__name__ for block, factors in captured.factors.items()}
    whole = [block for block in captured.blocks if kinds[block.name] in ("Elementwise", "Whole")]
    assert whole
    for block in whole:
        part = rows[:, block.start : block.stop]
        np.testing.assert_allclose(written_out(found[block.name]), part.T @ part / len(part), atol=1e-12)


MODELS: dict[str, Callable[[], tuple[arch.Fixed, nn.Module]]] = {
    **{name: lambda name=name: plain("images", name, "cross-entropy", torch.float64) for name in arch.IMAGES},
    **{name: lambda name=name: text(name, "sum", "right", torch.float64) for name in arch.TEXTS},
}


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_layer(name: str) -> None:
    """Convolutions in groups, embeddings, Conv1D, tied weights, LoRA: the trace is that of the Fisher, diagonals too.

    A rotation keeps lengths, so the eigenvalues add up to E|g|^2 in any basis, with all cross terms of tied weights.
    """
    task, model = MODELS[name]()
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        captured = capture.factors(arch.RECORDS, "train")
    rows = captured.rows()
    for widest in (4, 8192):
        moments = Covariances(widest=widest)
        moments.add(captured)
        bases = bases_of(moments, captured.blocks)
        squares = Squares(bases)
        squares.add(captured)
        found = squares.curvature(bases)
        for block in captured.blocks:
            part = rows[:, block.start : block.stop]
            assert float(found[block.name].spectrum.sum()) == pytest.approx(float(part.square().sum()) / len(part))
            turned = found[block.name].rotated(captured.factors[block.name]).flatten(1)
            torch.testing.assert_close(turned @ turned.T, part @ part.T, rtol=1e-9, atol=1e-12)


def test_a_vocabulary_never_becomes_a_square() -> None:
    task, model = text("llama", "sum", "right", torch.float64)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        captured = capture.factors(arch.RECORDS, "train")
    moments = Covariances()
    moments.add(captured)
    name = "model.embed_tokens"
    left = moments.sides()[name].left
    ids = task.given["input_ids"][captured.factors[name][0].signal.any(2)]  # type: ignore[union-attr]
    assert torch.equal(left * arch.COUNT, torch.bincount(ids, minlength=arch.VOCABULARY).double())
    assert bases_of(moments, captured.blocks)[name].left is None


def test_single_products_of_batches_stay_close_to_double() -> None:
    task, model = text("gpt2", "sum", "right", torch.float32)
    with capturing(task, model) as capture:  # type: ignore[arg-type]
        captured = capture.factors(arch.RECORDS, "train")
    fine, coarse = Covariances(), Covariances(exact=False)
    fine.add(captured)
    coarse.add(captured)
    for one, other in zip(fine.sides().values(), coarse.sides().values(), strict=True):
        torch.testing.assert_close(one.left, other.left, rtol=1e-4, atol=1e-5 * float(one.left.abs().max()))


def test_two_products_become_the_nearest_one() -> None:
    """Van Loan and Pitsianis: the leading singular pair of the sum, rearranged so that a product has rank 1."""
    generator = torch.Generator().manual_seed(0)

    def drawn(size: int) -> torch.Tensor:
        rows = torch.randn(size, size, generator=generator, dtype=torch.float64)
        return rows.T @ rows

    parts = [Sides(drawn(3), drawn(4)), Sides(torch.diag(drawn(3)), 30 * drawn(4))]
    found = nearest(parts)
    lefts = [part.left if part.left.ndim == 2 else torch.diag(part.left) for part in parts]
    rearranged = sum(torch.outer(a.flatten(), part.right.flatten()) for a, part in zip(lefts, parts, strict=True))
    u, s, vt = torch.linalg.svd(rearranged)  # type: ignore[arg-type]
    expected = s[0] * torch.outer(u[:, 0], vt[0])
    torch.testing.assert_close(torch.outer(found.left.flatten(), found.right.flatten()), expected, rtol=1e-9, atol=1e-9)
    assert nearest(parts[:1]) is parts[0]


def test_rows_alone_and_together_are_the_same_bytes() -> None:
    generator = torch.Generator().manual_seed(3)
    square = [torch.randn(n, n, generator=generator, dtype=torch.float64) for n in (5, 7)]
    basis = eigenbasis(Sides(*(s.T @ s for s in square)))
    rows = np.random.default_rng(0).standard_normal((6, 35))
    whole = basis.apply(rows, basis.inverse(0.1))
    assert all(np.array_equal(basis.apply(rows[i : i + 1], basis.inverse(0.1))[0], whole[i]) for i in range(6))


def test_directions_without_curvature_get_nothing_undamped() -> None:
    basis = eigenbasis(Sides(torch.diag(torch.tensor([2.0, 0.0]).double()), torch.tensor([3.0, 0.0]).double()))
    np.testing.assert_allclose(basis.apply(np.ones((1, 4)), basis.inverse(0.0)), [[1 / 6, 0, 0, 0]])
    assert np.isfinite(basis.inverse(0.0)).all()


@dataclass(frozen=True)
class Counting:
    """A run that counts how often its model is asked for."""

    source: Any
    asked: list[int]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def model(self, checkpoint: int = -1) -> Any:
        self.asked.append(checkpoint)
        return self.source.model(checkpoint)


def test_curvature_is_made_once_for_all_methods() -> None:
    with isolated(digits_mlp().run) as view:
        run = Counting(view, [])
        first = kronecker(run, (-1,), Fisher(), corrected=True)  # type: ignore[arg-type]
        assert len(run.asked) == 1
        again = kronecker(run, (-1,), Fisher(), corrected=True)  # type: ignore[arg-type]
        kronecker(run, (-1,), Fisher(), corrected=False)  # type: ignore[arg-type]
        assert len(run.asked) == 1
        assert all(torch.equal(first[name].spectrum, again[name].spectrum) for name in first)
        kronecker(run, (-1,), Fisher(draws=2), corrected=False)  # type: ignore[arg-type]
        assert len(run.asked) == 2


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(PoaError, match="labels is 'true', must be sampled or data"):
        Fisher("true")
    with pytest.raises(PoaError, match="draws is 0"):
        Fisher(draws=0)
    with pytest.raises(PoaError, match="draws is 2, must be 1 or more, and 1 where labels"):
        Fisher("data", 2)
