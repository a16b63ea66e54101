"""List the attribution methods, with their references."""

from __future__ import annotations

import argparse
from inspect import cleandoc
from textwrap import indent

from poa import methods
from poa.commands.nearest import unknown


def configure(parser: argparse.ArgumentParser) -> None:
    """`--cite` adds the references; a name restricts the list to it."""
    parser.add_argument("name", nargs="?", help="only this method")
    parser.add_argument("--cite", action="store_true", help="print the reference of each method")


def run(args: argparse.Namespace) -> int:
    """Per method: name, family, what it does, what it needs of a run, what it costs."""
    found = methods.available()
    if args.name is not None and args.name not in found:
        raise unknown("method", args.name, found)
    chosen = {name: kind for name, kind in sorted(found.items()) if args.name in (None, name)}
    width = max(map(len, chosen))
    for name, kind in chosen.items():
        summary = cleandoc(kind.__doc__ or "").split("\n", 1)[0]
        print(f"{name:<{width}}  {kind.family:<9}  {summary}")
        print(f"{'':<{width}}  needs {kind.needs}; costs {kind.cost}")
        if args.cite:
            print(indent(cleandoc(kind.citation), " " * (width + 2)))
    return 0
