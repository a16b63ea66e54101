"""The pairs: a peer's method, poa's method of the same definition, and what explains a difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import by_bergson
import by_captum
import by_dattri
import by_kronfluence
import by_trak
import numpy as np
from subjects import Matrix, Subject

from poa.errors import PoaError
from poa.factory.causal import IGNORE
from poa.gradients.curvature import damped_fisher_map
from poa.gradients.projection import TwoSided
from poa.gradients.store import gradients
from poa.methods import method

Scored = Callable[[Subject], Matrix]


class Skipped(Exception):
    """A pair that cannot be compared; the message says why."""


@dataclass(frozen=True)
class Pair:
    """theirs(subject) and ours(subject) are [query, train]; `note` is empty where they should simply agree."""

    peer: str
    poa: str
    subject: str
    theirs: Scored
    ours: Scored
    note: str = ""
    up_to_scale: bool = False

    def scores(self, subject: Subject) -> tuple[Matrix, Matrix]:
        """(ours, theirs); raises `Skipped`."""
        ours = np.asarray(self.ours(subject), np.float64)
        return ours, np.asarray(self.theirs(subject), np.float64)


def poa(name: str, **settings: Any) -> Scored:
    """A poa method by name; a method or setting that this version lacks skips the pair."""

    def scored(subject: Subject) -> Matrix:
        try:
            made = method(name, **settings)
        except PoaError as error:
            raise Skipped(str(error)) from error
        return made.fit(subject.run).attribute(subject.queries).values

    return scored


def on(peer: Callable[..., Any], **settings: Any) -> Scored:
    return lambda subject: peer(subject.run, subject.queries, **settings)


@dataclass(frozen=True)
class Given(TwoSided):
    """A two-sided projection whose factors somebody else has drawn: name -> (out [d_out, k], in [d_in, k])."""

    drawn: dict[str, tuple[Matrix, Matrix]] = field(default_factory=dict, compare=False)
    kind: ClassVar[str] = "given"

    def factor(self, name: str, side: str, size: int) -> Matrix:
        return self.drawn[name][side == "in"]


def projected(subject: Subject, drawn: dict[str, tuple[Matrix, Matrix]], damping: float, layers: bool) -> Matrix:
    """Damped Fisher influence by poa's code on rows projected with a peer's matrices.

    damping: relative to the mean of the diagonal of the projected Fisher (of each layer's, if `layers`).
    """
    width = next(iter(drawn.values()))[0].shape[1]
    projection = Given(width, drawn=drawn)
    run = subject.run
    last = len(run.checkpoints) - 1
    train, asked = gradients(run, last, run.corpus, "train"), gradients(run, last, subject.queries, "query")
    left, right = (np.asarray(projection.apply(rows), np.float64) for rows in (train, asked))
    size = width**2 if layers else left.shape[1]
    starts = range(0, left.shape[1], size)
    parts = [slice(start, start + size) for start in starts]
    # poa's damping is relative to the mean over the N eigenvalues that can differ from zero, theirs to that over all.
    solved = [damped_fisher_map(left[:, part], damping * len(left) / size)[0] @ right[:, part].T for part in parts]
    return sum(solved).T  # type: ignore[union-attr]


def logra_theirs(subject: Subject) -> Matrix:
    return by_dattri.logra(subject.run, subject.queries, 0.1, 4).values


def logra_ours(subject: Subject) -> Matrix:
    found = by_dattri.logra(subject.run, subject.queries, 0.1, 4)
    return projected(subject, found.matrices, 0.1, layers=True)


def bergson_projected_ours(subject: Subject) -> Matrix:
    last = len(subject.run.checkpoints) - 1
    blocks = gradients(subject.run, last, subject.queries, "query").blocks
    sizes = {block.name: block.shape for block in blocks}
    drawn = by_bergson.matrices(list(sizes), 4, sizes)
    return projected(subject, {name: (a.T, b.T) for name, (a, b) in drawn.items()}, 0.1, layers=True)


def datainf_theirs(subject: Subject) -> Matrix:
    """With the damping that poa derives from the gradients: a tenth of their mean squared norm."""
    rows = gradients(subject.run, len(subject.run.checkpoints) - 1, subject.run.corpus, "train").values
    return by_dattri.datainf(
        subject.run, subject.queries, 0.1 * float((np.asarray(rows, np.float64) ** 2).sum(1).mean())
    )


def trak_ours(damping: float) -> Scored:
    """poa's TRAK, unprojected (its features are kept where there are no fewer of them than asked for).

    damping: theirs, added to the Gram matrix of gradients divided by sqrt(number of parameters).
    """

    def scored(subject: Subject) -> Matrix:
        last = len(subject.run.checkpoints) - 1
        rows = np.asarray(gradients(subject.run, last, subject.run.corpus, "train-margin").values, np.float64)
        count, width = rows.shape
        relative = damping * width * count / float((rows**2).sum())
        return poa("trak", projection=width, damping=relative, checkpoints="last")(subject)

    return scored


def diagonal_ours(subject: Subject) -> Matrix:
    """Influence with the diagonal of each layer's empirical Fisher, damped by a tenth of its mean."""
    run = subject.run
    last = len(run.checkpoints) - 1
    train, asked = gradients(run, last, run.corpus, "train"), gradients(run, last, subject.queries, "query")
    total: Any = 0.0
    for block in train.blocks:
        left, right = asked.block(block), train.block(block)
        fisher = (right**2).mean(0)
        total = total + (left / (fisher + 0.1 * fisher.mean())) @ right.T
    return total / len(right)


def over_count(scored: Scored) -> Scored:
    return lambda subject: scored(subject) / len(subject.run.corpus)


def kron(strategy: str, empirical: bool, damping: float | None = None, by_token: bool = False) -> Scored:
    """damping: absolute, in the units of poa's curvature; by_token: theirs is smaller by the tokens of a record."""

    def scored(subject: Subject) -> Matrix:
        unit = tokens_per_record(subject) if by_token else 1.0
        lam = None if damping is None else damping / unit
        return by_kronfluence.pairwise(
            subject.run, subject.queries, strategy=strategy, empirical=empirical, damping=lam
        )

    return scored


def tokens_per_record(subject: Subject) -> float:
    """Supervised tokens, mean over the records trained on."""
    labels = subject.run.task.batch(list(subject.run.corpus), whole=False)["labels"]
    return float((labels[:, 1:] != IGNORE).sum()) / len(labels)


PER_TOKEN = "up to a factor: its product is the Fisher of a token, poa's that of a record"
PROJECTED = "projected to 512 dimensions unless told otherwise: not the exact product"
BY_LAYER = "curvature by layer in {}'s own projections"
EKFAC_FAULTS = (
    "its rows are scrambled where a layer has a bias and its eigenvectors are applied transposed (faults below)"
)


def _gradient_pairs() -> list[Pair]:
    last = "captum TracInCP, last checkpoint"
    identity = "dattri {}, identity projection"
    exact = [
        Pair("captum TracInCP", "tracin", "digits", on(by_captum.tracin), poa("tracin")),
        Pair(last, "captum", "digits", on(by_captum.tracin, last=True), poa("captum")),
        Pair("captum TracInCPFast", "tracin_last", "digits", on(by_captum.tracin, fast=True), poa("tracin_last")),
        Pair(identity.format("TracIn"), "tracin", "digits", on(by_dattri.tracin), poa("tracin")),
        Pair(
            "dattri TracIn, as shipped",
            "tracin",
            "digits",
            on(by_dattri.tracin, projector=None),
            poa("tracin"),
            PROJECTED,
        ),
    ]
    for name in ("digits", "gpt2", "lora"):
        exact.append(Pair(last, "graddot", name, on(by_captum.tracin, last=True), poa("graddot")))
        exact.append(Pair(identity.format("GradDot"), "graddot", name, on(by_dattri.graddot), poa("graddot")))
        exact.append(Pair(identity.format("GradCos"), "gradcos", name, on(by_dattri.gradcos), poa("gradcos")))
        exact.append(
            Pair("kronfluence identity", "graddot / N", name, kron("identity", True), over_count(poa("graddot")))
        )
    for name in ("gpt2", "lora"):
        exact.append(Pair("bergson products", "graddot", name, on(by_bergson.products), poa("graddot")))
        exact.append(Pair("bergson cosines", "gradcos", name, on(by_bergson.products, cosine=True), poa("gradcos")))
    return exact


LAMBDA = 0.05
GAUSS_NEWTON = "exact_influence"


def damped(name: str, subject: Subject, **options: Any) -> Matrix:
    """poa's, at the relative damping that comes to a lambda of LAMBDA."""
    (unit,) = method(name, damping=1.0, **options).fit(subject.run).attribute(subject.queries).meta["lambda"]
    return method(name, damping=LAMBDA / unit, **options).fit(subject.run).attribute(subject.queries).values


def _solver_pairs() -> list[Pair]:
    """All records in one batch of the loader: the only way in which dattri's solvers solve what they mean to."""
    oracle = partial(damped, GAUSS_NEWTON, solver="explicit")
    settings: dict[str, Any] = {"damping": LAMBDA, "curvature": "gauss-newton"}
    return [
        Pair("dattri explicit, one batch", GAUSS_NEWTON, "small digits", on(by_dattri.explicit, **settings), oracle),
        Pair(
            "dattri CG, one batch, 60 steps",
            GAUSS_NEWTON,
            "small digits",
            on(by_dattri.cg, steps=60, **settings),
            oracle,
        ),
        Pair(
            "dattri CG, one batch, 10 steps as shipped",
            GAUSS_NEWTON,
            "small digits",
            on(by_dattri.cg, **settings),
            oracle,
            "not converged",
        ),
        Pair(
            "dattri LiSSA, one batch, 600 steps",
            GAUSS_NEWTON,
            "small digits",
            on(by_dattri.lissa, steps=600, scaling=4.0, **settings),
            oracle,
        ),
        Pair(
            "dattri Arnoldi, as shipped",
            GAUSS_NEWTON,
            "small digits",
            on(by_dattri.arnoldi, **settings),
            oracle,
            "square roots of the negative eigenvalues that rounding leaves",
        ),
        Pair(
            "dattri Arnoldi, 20 directions",
            GAUSS_NEWTON,
            "small digits",
            on(by_dattri.arnoldi, width=20, **settings),
            oracle,
            "drops all but 20 directions, those of small curvature first, which count most in an inverse",
        ),
        Pair(
            "traker TRAK, unprojected, damped",
            "trak",
            "small digits",
            on(by_trak.scores, damping=0.01),
            trak_ours(0.01),
            "its scores are defined up to a factor",
            True,
        ),
        Pair(
            "dattri TRAK, unprojected, damped",
            "trak",
            "small digits",
            on(by_dattri.trak, damping=0.01),
            trak_ours(0.01),
        ),
    ]


def _curvature_pairs() -> list[Pair]:
    out = [
        Pair("dattri DataInf", "datainf", "logistic", datainf_theirs, poa("datainf", damping=0.1)),
        Pair("dattri LoGra, 4 x 4 a layer", BY_LAYER.format("dattri"), "digits", logra_theirs, logra_ours),
        Pair(
            "bergson preconditioned, 4 x 4 a layer",
            BY_LAYER.format("bergson"),
            "gpt2",
            on(by_bergson.products, damping=0.1, width=4),
            bergson_projected_ours,
        ),
        Pair(
            "kronfluence diagonal, own labels",
            "diagonal Fisher, written out",
            "digits",
            kron("diagonal", True),
            diagonal_ours,
        ),
        Pair(
            "dattri EK-FAC",
            "ekfac, own labels",
            "digits by loss",
            on(by_dattri.ekfac, damping=LAMBDA),
            partial(damped, "ekfac", labels="data"),
            EKFAC_FAULTS,
        ),
    ]
    for name in ("digits", "gpt2", "lora"):
        for word, empirical, labels in (("own labels", True, "data"), ("the same drawn labels", False, "sampled")):
            for strategy, method_name, shown in (("kfac", "kfac", "K-FAC"), ("ekfac", "ekfac", "EK-FAC")):
                by_token = strategy == "kfac" and name != "digits"
                out.append(
                    Pair(
                        f"kronfluence {shown}, {word}",
                        method_name,
                        name,
                        kron(strategy, empirical, LAMBDA, by_token),
                        partial(damped, method_name, labels=labels),
                        PER_TOKEN if by_token else "",
                        by_token,
                    )
                )
    return out


PAIRS = [*_gradient_pairs(), *_curvature_pairs(), *_solver_pairs()]
