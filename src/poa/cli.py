"""The command line: finds the subcommand, imports only that one, and turns user errors into one line."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import poa
from poa.commands.nearest import unknown
from poa.errors import PoaError

COMMANDS = {
    "run": "run an experiment, or a sweep of them, from conf/",
    "trace": "answer a question and show which training records the answer came from",
    "serve": "answer over HTTP, with a signed receipt for every answer",
    "ledger": "verify, show, export and prove what a ledger holds",
    "datanet": "list, show and import collections of records",
    "methods": "list the attribution methods: needs, cost, what was measured, settings, references",
    "bench": "run one benchmark; the last line of its output is JSON",
    "version": "print the versions that results depend on",
}
# 128 + SIGINT and 128 + SIGPIPE, as a shell reports a program that a signal ended.
USER_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
# Commands whose lines are not what they are called for: without a reader something is left undone.
WORKING = ("run", "bench")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `PoaError`s, and which names the option that a misspelt one resembles."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.nested = False
        self.options: list[str] = []
        super().__init__(*args, **({"allow_abbrev": False} | kwargs))

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        self.options += [name for name in args if name.startswith("-")]
        return super().add_argument(*args, **kwargs)

    def add_subparsers(self, **kwargs: Any) -> Any:
        self.nested = True
        return super().add_subparsers(**kwargs)

    # typeshed spells this method as three overloads; one signature accepts all of their calls.
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        known, rest = super().parse_known_args(args, namespace)
        for word in rest:
            if word.startswith("-"):
                raise unknown(f"option of `{self.prog}`", word.split("=")[0], self.options)
        return known, rest

    def error(self, message: str) -> NoReturn:
        if found := re.fullmatch(r"argument (.+): invalid choice: '(.*)' \(choose from (.+)\)", message):
            what, given, names = found.groups()
            raise unknown(
                f"{'action' if '|' in what else what} of `{self.prog}`",
                given,
                [name.strip("' ") for name in names.split(",")],
            )
        raise PoaError(f"{message} (see `{self.prog} --help`)")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        # Options may stand between overrides, which plain parsing refuses; with subcommands argparse cannot do it.
        return self.parse_args(arguments) if self.nested else self.parse_intermixed_args(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `poa` with `argv` (default: the process's arguments) and return its exit code.

    0 done, 1 a check failed (or the code that a subcommand documents), 2 a wrong input, 130 interrupted, 141 work was
    cut short because nobody read on.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except PoaError as error:
        print(f"poa: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone; without this the interpreter complains once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE if arguments and arguments[0] in WORKING else 0
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    name, *rest = arguments
    if name in ("-V", "--version"):
        print(f"poa {poa.__version__}")
        return 0
    if name.startswith("-"):
        raise unknown("option of `poa`", name, ("--help", "--version"))
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    command = import_module(f"poa.commands.{name}")
    parser = Parser(prog=f"poa {name}", description=command.__doc__)
    command.configure(parser)
    return int(command.run(parser.parse(rest)))


def _overview() -> str:
    lines = [f"  {name:<8} {what}" for name, what in COMMANDS.items()]
    head = ["usage: poa COMMAND ...", "", str(poa.__doc__), "", "commands:"]
    return "\n".join([*head, *lines, "", "`poa COMMAND --help` tells more."])
