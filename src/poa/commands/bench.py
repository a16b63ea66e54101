"""Run one benchmark: progress on stderr, the result as one JSON line, the last one on stdout."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from poa.benchmarks import Figures, available
from poa.commands.nearest import unknown


def configure(parser: argparse.ArgumentParser) -> None:
    """The benchmark's name; without one, the names are listed."""
    parser.add_argument("name", nargs="?", help="which benchmark; without a name they are listed")


def run(args: argparse.Namespace) -> int:
    """List the benchmarks, or run one and print {"bench", "figures", "ranges", "environment"}."""
    if args.name is None:
        for name in available():
            print(name)
        return 0
    if args.name not in available():
        raise unknown("benchmark", args.name, available())
    print(f"bench {args.name} ...", file=sys.stderr)
    figures: Figures = import_module(f"poa.benchmarks.{args.name}").run()
    print(figures.line(args.name))
    return 0
