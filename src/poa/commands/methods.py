"""List the attribution methods: channel, needs, cost, what was measured, references and settings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from inspect import cleandoc
from textwrap import indent
from typing import Any

from poa import methods
from poa.commands.nearest import unknown
from poa.evaluation.cards import Card, cards, results_folder


def configure(parser: argparse.ArgumentParser) -> None:
    """`--cite` adds the references; a name restricts the list to it and adds its settings."""
    parser.add_argument("name", nargs="?", help="only this method, with its settings and their defaults")
    parser.add_argument("--cite", action="store_true", help="print the reference of each method")


def run(args: argparse.Namespace) -> int:
    """Per method: name, channel, what it does, what it needs of a run, what it costs, how well it was found to do."""
    found = methods.available()
    if args.name is not None and args.name not in found:
        raise unknown("method", args.name, found)
    chosen = {name: kind for name, kind in sorted(found.items()) if args.name in (None, name)}
    measured = cards(results_folder())
    width = max(map(len, chosen))
    for name, kind in chosen.items():
        summary = cleandoc(kind.__doc__ or "").split("\n", 1)[0]
        print(f"{name:<{width}}  {kind.family:<9}  {summary}")
        lines = [f"needs {kind.needs}; costs {kind.cost}", *_measured(kind, measured.get(name, ()))]
        if args.name is not None:
            lines += _settings(kind)
        if args.cite:
            lines += cleandoc(kind.citation).split("\n")
        print(indent("\n".join(lines), " " * (width + 2)))
    return 0


def _measured(kind: Any, found: Sequence[Card]) -> list[str]:
    """One line per committed result; the settings that were measured, where they are not the defaults."""
    default = repr(kind())
    return [f"measured: {card}" + ("" if card.identity == default else f", as {card.identity}") for card in found] or [
        "not measured"
    ]


def _settings(kind: Any) -> Iterator[str]:
    found = [field for field in fields(kind) if field.init]
    yield "settings:" if found else "no settings"
    for field in found:
        default = field.default if field.default_factory is MISSING else field.default_factory()
        yield f"  {field.name} = {default!r}"
