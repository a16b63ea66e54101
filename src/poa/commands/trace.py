"""Answer a question, or take an answer, and show which training records it came from."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from poa.errors import PoaError


def configure(parser: argparse.ArgumentParser) -> None:
    """The question, which run and adapter answer it, and by which methods the answer is attributed."""
    parser.add_argument("question", help="what to ask; an answer continues it")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="the training run (default: the latest quickstart)")
    parser.add_argument("--adapter", type=Path, metavar="FOLDER", help="answer with this published adapter")
    parser.add_argument("--answer", metavar="TEXT", help="attribute this text instead of generating one")
    parser.add_argument("--method", metavar="A,B", help="attribution methods (default: influence,repsim,bm25)")
    parser.add_argument("--index", type=Path, metavar="FOLDER", help="a stored index of this run to ask")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="longest answer (default 64)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 (default) is greedy")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="sample from this nucleus (default 1)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the sampling (default 0)")
    parser.add_argument("--json", action="store_true", help="print the trace as canonical JSON")


def run(args: argparse.Namespace) -> int:
    """Print the trace; exit code 0. Wrong inputs leave nothing behind."""
    from poa.serving.generate import Sampling
    from poa.serving.runs import open_run
    from poa.serving.terminal import page
    from poa.serving.tracing import Tracer, require_question

    sampling = Sampling(args.max_new_tokens, args.temperature, args.top_p, args.seed)
    chosen = methods_of(args.method, args.index is not None)
    opened = open_run(args.run, args.adapter)
    # Before anything is fitted: a question that cannot be answered should not cost a minute.
    require_question(opened.task, args.question, args.answer, sampling)
    with Tracer.open(opened, chosen, args.index) as tracer:
        trace = tracer.trace(args.question, args.answer, sampling)
    if args.json:
        print(trace.json)
    else:
        color = sys.stdout.isatty()
        print(page(trace, shutil.get_terminal_size((100, 24)).columns, color), end="")
    return 0


def methods_of(listed: str | None, stored: bool) -> tuple[str, ...]:
    """Names from `a,b`; by default the usual ones, or none where a stored index is asked. Unknown names are refused."""
    from poa import methods
    from poa.serving.tracing import DEFAULT_METHODS

    if listed is None:
        return () if stored else DEFAULT_METHODS
    names = tuple(name.strip() for name in listed.split(","))
    for name in names:
        methods.method(name)
    if len(set(names)) != len(names):
        raise PoaError(f"--method {listed}: name each method once")
    return names
