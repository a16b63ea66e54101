"""Peers' scores on the very runs that poa's methods were measured on, for the same retrainings to judge.

    .venv-peers/bin/python experiments/peers/fidelity.py FOLDER... --out OUT [--only WORD]

FOLDER holds finished jobs of experiment=fidelity. OUT gets a folder per task, seed, peer's method and setting, with its
scores; `experiments/collect.py fidelity FOLDER... OUT` judges them beside poa's. Every peer is asked as it ships and,
where it has a damping, at each of `GRID`: the best of these by the truth itself is what poa's default is held against.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quiet  # noqa: F401

# isort: split
import by_bergson
import by_captum
import by_dattri
import by_kronfluence
import by_trak
import numpy as np
import torch
from subjects import Matrix
from variants import log_odds, single

from poa.digests import plain_digest
from poa.errors import PoaError
from poa.fidelity.result import PEER, SHIPPED, jobs
from poa.files import write_atomic
from poa.pipeline.instances import made
from poa.protocols import TrainingRun
from poa.records import Corpus
from poa.scores import Scores

GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Entry:
    """A peer's method in one setting; `of` is the label of poa's row that it is held against."""

    peer: str
    name: str
    of: str
    setting: str
    scored: Callable[[TrainingRun, Corpus], Matrix]


def on(peer: Callable[..., Any], **settings: Any) -> Callable[[TrainingRun, Corpus], Matrix]:
    return lambda run, queries: peer(run, queries, **settings)


def dattri_trak(run: TrainingRun, queries: Corpus, **settings: Any) -> Matrix:
    return by_dattri.trak(log_odds(run), queries, **settings)


def dattri_logra(run: TrainingRun, queries: Corpus, **settings: Any) -> Matrix:
    return by_dattri.logra(run, queries, **settings).values


def grid(peer: str, name: str, of: str, scored: Callable[..., Any], shipped: float | None, **told: Any) -> list[Entry]:
    """As shipped and at every damping of `GRID`."""
    settings = [(SHIPPED, shipped), *((f"damping {damping:g}", damping) for damping in GRID)]
    return [Entry(peer, name, of, words, on(scored, damping=damping, **told)) for words, damping in settings]


def shared() -> Iterator[Entry]:
    """What applies to classifiers and to language models."""
    yield Entry("captum", "TracInCP, last checkpoint", "graddot", SHIPPED, on(by_captum.tracin, last=True))
    yield Entry("dattri", "GradDot", "graddot", SHIPPED, on(by_dattri.graddot, projector=None))
    yield Entry("dattri", "GradDot", "graddot", "unprojected", on(by_dattri.graddot))
    yield Entry("dattri", "GradCos", "gradcos", SHIPPED, on(by_dattri.gradcos, projector=None))
    yield Entry("dattri", "GradCos", "gradcos", "unprojected", on(by_dattri.gradcos))
    for strategy, words in (("kfac", "K-FAC"), ("ekfac", "EK-FAC")):
        yield from grid("kronfluence", words, strategy, by_kronfluence.pairwise, None, strategy=strategy)


def classifiers() -> Iterator[Entry]:
    yield Entry("captum", "TracInCP", "tracin", SHIPPED, on(by_captum.tracin, plain=True))
    yield Entry("captum", "TracInCPFast", "tracin_last", SHIPPED, on(by_captum.tracin, fast=True, plain=True))
    yield Entry("dattri", "TracIn", "tracin", SHIPPED, on(by_dattri.tracin, projector=None, plain=True))
    yield Entry("dattri", "TracIn", "tracin", "unprojected", on(by_dattri.tracin, plain=True))
    yield from grid("dattri", "DataInf", "datainf", by_dattri.datainf, 0.0)
    yield from grid("dattri", "EK-FAC", "ekfac", by_dattri.ekfac, 0.0)
    yield from grid("dattri", "LoGra", "logra", dattri_logra, 0.0)
    yield from grid("dattri", "explicit, one batch", "exact_influence", by_dattri.explicit, 0.0)
    yield from grid("dattri", "CG, one batch", "exact_influence", by_dattri.cg, 0.0)
    yield from grid("dattri", "TRAK", "trak, checkpoints=last", dattri_trak, 0.0, projector=None)
    yield from grid("traker", "TRAK", "trak, checkpoints=last", by_trak.scores, 0.0, width=2048)


def texts() -> Iterator[Entry]:
    yield Entry("bergson", "products", "graddot", SHIPPED, on(by_bergson.products))
    yield Entry("bergson", "cosines", "gradcos", SHIPPED, on(by_bergson.products, cosine=True))
    yield from grid("bergson", "preconditioned, 16 x 16 a layer", "logra", by_bergson.products, 0.1, width=16)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="entries whose name holds this word")
    told = parser.parse_args()
    torch.set_num_threads(1)
    measured = {(job.summary["task"], job.summary["seed"]): job for job in jobs(told.folders)}
    for (name, seed), job in measured.items():
        task = made(job.config()["task"], "task", _convert_="all")
        run = task.run(seed)
        if "digests" in job.summary and run.digest != job.summary["digests"]["run"]:
            raise PoaError(f"{name}, seed {seed}: this environment does not train the run that was measured")
        kind = classifiers() if name.startswith("digits") else texts()
        for entry in (*shared(), *kind):
            if told.only in f"{entry.peer} {entry.name}":
                _ask(entry, name, seed, run, task.queries, told.out)
    return 0


def _ask(entry: Entry, task: str, seed: int, run: Any, queries: Corpus, out: Path) -> None:
    label = f"{entry.peer} {entry.name}"
    folder = out / f"{task}-{seed}-{plain_digest([label, entry.setting])[:12]}"
    if (folder / "summary.json").is_file():
        return
    seen = single(run) if task.startswith("digits") else run
    began = time.perf_counter()
    summary = {"kind": PEER, "task": task, "seed": seed, "label": label, "of": entry.of, "setting": entry.setting}
    try:
        values = np.asarray(entry.scored(seen, queries), np.float64)
        if not np.isfinite(values).all():
            raise FloatingPointError("its scores are not finite")
    except (ArithmeticError, RuntimeError, ValueError, PoaError) as error:
        # A peer that fails is a finding: it stands in the table with its own words.
        summary["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    else:
        groups = {name: tuple(of) for name, of in run.groups.items()}
        Scores(values, queries.ids, run.corpus.ids, groups).save(folder / "scores.safetensors")
    summary["seconds"] = time.perf_counter() - began
    write_atomic(folder / "summary.json", json.dumps(summary, indent=1, sort_keys=True).encode())
    print(f"{task} {seed} {label}, {entry.setting}: {summary.get('failed', '')}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
