"""Faults of peers, each shown by running it against an explicit float64 formula.

    .venv-peers/bin/python experiments/peers/faults.py

prints one line per fault and, last, one JSON object: what was looked for, whether it is there in the installed version,
and the figures that say so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from typing import Any

import quiet  # noqa: F401

# isort: split
import by_dattri
import by_trak
import numpy as np
import torch
from environment import versions
from oracle import Oracle
from page import keep
from subjects import Matrix, Subject, Tables, dense_subject, digits_subject
from variants import loss_measured, unbiased

from language import language_subject

COMMAND = ".venv-peers/bin/python experiments/peers/faults.py --write"
LAMBDA = 0.05


@dataclass(frozen=True)
class Fault:
    """`figures` are relative Frobenius differences unless their name says otherwise; `there` is the verdict."""

    peer: str
    what: str
    look: Callable[[], tuple[bool, dict[str, Any]]]


def gap(found: Matrix, expected: Matrix) -> float:
    return float(f"{np.linalg.norm(found - expected) / np.linalg.norm(expected):.3g}")


def small() -> Subject:
    return digits_subject(64, 6, 8)


def _by_batch(solve: Callable[[Subject, int], Matrix]) -> tuple[bool, dict[str, Any]]:
    """Scores for loaders of one, two and four batches against the one right answer and against a sum over batches."""
    subject = small()
    oracle = Oracle(subject.run, subject.queries)
    right = oracle.influence(oracle.gauss_newton(), LAMBDA)
    figures: dict[str, Any] = {}
    for size in (64, 32, 16):
        found = solve(subject, size)
        summed = sum(oracle.influence(oracle.gauss_newton(slice(b, b + size)), LAMBDA) for b in range(0, 64, size))
        figures[f"loader batch {size}: to the inverse"] = gap(found, right)
        figures[f"loader batch {size}: to the sum of batch inverses"] = gap(found, np.asarray(summed))
    there = figures["loader batch 16: to the inverse"] > 0.1
    return there, figures


def explicit_sums() -> tuple[bool, dict[str, Any]]:
    return _by_batch(lambda s, n: by_dattri.explicit(s.run, s.queries, LAMBDA, "gauss-newton", n))


def cg_sums() -> tuple[bool, dict[str, Any]]:
    return _by_batch(lambda s, n: by_dattri.cg(s.run, s.queries, LAMBDA, "gauss-newton", n, steps=60))


def lissa_sums() -> tuple[bool, dict[str, Any]]:
    return _by_batch(
        lambda s, n: by_dattri.lissa(s.run, s.queries, LAMBDA, "gauss-newton", n, steps=600, scaling=4.0, batch=n)
    )


def cg_after_convergence() -> tuple[bool, dict[str, Any]]:
    subject = small()
    counts = {
        f"{steps} steps: share of scores that are not finite": _not_finite(
            by_dattri.cg(subject.run, subject.queries, LAMBDA, "gauss-newton", steps=steps)
        )
        for steps in (60, 300)
    }
    return counts["300 steps: share of scores that are not finite"] > 0, counts


def _not_finite(values: Matrix) -> float:
    return round(float(1 - np.isfinite(values).mean()), 4)


def arnoldi_nan() -> tuple[bool, dict[str, Any]]:
    subject = small()
    figures: dict[str, Any] = {}
    for curvature in ("hessian", "gauss-newton"):
        for width in (20, 100):
            found = by_dattri.arnoldi(subject.run, subject.queries, LAMBDA, curvature, width=width)
            figures[f"{curvature}, proj_dim {width}: share not finite"] = _not_finite(found)
    return any(value > 0 for value in figures.values()), figures


def hidden_projection() -> tuple[bool, dict[str, Any]]:
    subject = digits_subject()
    exact = by_dattri.graddot(subject.run, subject.queries)
    oracle = Oracle(subject.run, subject.queries)
    figures = {
        "projector_kwargs=None: to the exact product": gap(
            by_dattri.graddot(subject.run, subject.queries, projector=None), oracle.asked @ oracle.train.T
        ),
        'proj_type="identity": to the exact product': gap(exact, oracle.asked @ oracle.train.T),
    }
    return figures["projector_kwargs=None: to the exact product"] > 0.01, figures


def shared_defaults() -> tuple[bool, dict[str, Any]]:
    """An attributor with no settings of its own, made after one with some."""
    from dattri.algorithm.tracin import TracInAttributor

    subject = small()
    tables = Tables(subject.run, subject.queries)

    def scored(projector: dict[str, Any] | None) -> Matrix:
        method = TracInAttributor(by_dattri.task(tables, (-1,)), torch.ones(1), False, projector)
        return by_dattri.scores(method.attribute(*by_dattri.loaders(tables)))

    with by_dattri.own_defaults():
        before = scored(None)
        scored({"proj_type": "identity"})
        figures = {"same call before and after another attributor was made": gap(scored(None), before)}
    return figures["same call before and after another attributor was made"] > 0, figures


def ekfac_rows() -> tuple[bool, dict[str, Any]]:
    """Against EK-FAC as defined, with its eigenvectors transposed, with weight and bias cut into rows wrongly."""
    figures: dict[str, Any] = {}
    for name, subject in (
        ("biases", loss_measured(dense_subject())),
        ("no biases", loss_measured(unbiased(dense_subject()))),
    ):
        oracle = Oracle(subject.run, subject.queries)
        found = by_dattri.ekfac(subject.run, subject.queries, LAMBDA)
        figures[f"{name}: to EK-FAC"] = gap(found, oracle.ekfac(LAMBDA))
        figures[f"{name}: to EK-FAC rotated by Q where Q^T is meant"] = gap(
            found, oracle.ekfac(LAMBDA, transposed=True)
        )
        if name == "biases":
            figures[f"{name}: to the same with rows scrambled"] = gap(
                found, oracle.ekfac(LAMBDA, transposed=True, scrambled=True)
            )
    there = figures["biases: to the same with rows scrambled"] < 1e-3 < figures["biases: to EK-FAC"]
    return there, figures


def ekfac_sequences() -> tuple[bool, dict[str, Any]]:
    from language import Language, LanguageRun, linear_twin

    subject = language_subject()
    run = subject.run
    assert isinstance(run, LanguageRun)

    @dataclass(frozen=True, eq=False)
    class Twin(LanguageRun):
        def model(self, checkpoint: int = -1) -> Any:
            return linear_twin(super().model(checkpoint))

    twin = Twin(run.corpus, Language(), run.steps, run.checkpoints, run.made, run.states, run.initial)
    try:
        by_dattri.ekfac(twin, subject.queries, LAMBDA)
    except UnboundLocalError as error:
        return True, {"raises": f"UnboundLocalError: {error}"}
    return False, {}


@contextmanager
def _elsewhere() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="peers-") as folder, chdir(folder):
        yield folder


def logra_leaves_files() -> tuple[bool, dict[str, Any]]:
    """In an empty working directory: what is left behind, and what the next run with other records makes of it."""
    with _elsewhere() as folder:
        first, second = digits_subject(64, 6, 8), digits_subject(128, 6, 8)
        by_dattri.logra(first.run, first.queries, folder=".", offload="none")
        left = sorted(os.listdir(folder))
        try:
            by_dattri.logra(second.run, second.queries, folder=".", offload="none")
            happened = "scored"
        except RuntimeError as error:
            happened = f"RuntimeError: {str(error)[:60]}"
    return bool(left), {"left in the working directory": left, "a second run with more records there": happened}


def narrow_projector() -> tuple[bool, dict[str, Any]]:
    subject = small()
    said: dict[str, Any] = {}
    for width in (64, 128):
        try:
            by_trak.scores(subject.run, subject.queries, width)
            said[f"proj_dim {width}"] = "scores"
        except AttributeError as error:
            said[f"proj_dim {width}"] = f"AttributeError: {error}"
    return said["proj_dim 64"] != "scores", said


FAULTS = (
    Fault("dattri", "explicit influence adds up the inverses of the loader's batches", explicit_sums),
    Fault("dattri", "CG influence adds up the inverses of the loader's batches", cg_sums),
    Fault("dattri", "LiSSA influence adds up the inverses of the loader's batches", lissa_sums),
    Fault("dattri", "CG runs on after convergence and returns NaN", cg_after_convergence),
    Fault("dattri", "Arnoldi returns NaN", arnoldi_nan),
    Fault("dattri", "TracIn projects to 512 dimensions unasked", hidden_projection),
    Fault("dattri", "projector settings of one attributor become the defaults of the next", shared_defaults),
    Fault("dattri", "EK-FAC scrambles rows where a layer has a bias", ekfac_rows),
    Fault("dattri", "EK-FAC fails on sequences", ekfac_sequences),
    Fault("dattri", "LoGra writes to the working directory and reads what another run left there", logra_leaves_files),
    Fault("traker", "BasicProjector of at most 100 columns fails after finalize_features", narrow_projector),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="faults whose description holds this word")
    options.add_argument("--write", action="store_true", help="keep the result and the table of docs/peers.md")
    given = options.parse_args()
    word = given.only
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for fault in FAULTS:
        if word not in f"{fault.peer} {fault.what}":
            continue
        there, figures = fault.look()
        rows.append({"peer": fault.peer, "fault": fault.what, "there": there, "figures": figures})
        print(f"{'THERE' if there else 'absent':7} {fault.peer:8} {fault.what}: {figures}", file=sys.stderr, flush=True)
    result = {"command": COMMAND, "faults": rows, "environment": versions()}
    if given.write:
        keep("faults", result)
    print(json.dumps(result, sort_keys=True, allow_nan=False))


if __name__ == "__main__":
    main()
