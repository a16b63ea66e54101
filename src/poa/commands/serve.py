"""Answer over HTTP with a run's adapter; every answer gets a signed receipt in a ledger, and a trace."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from poa.commands.trace import methods_of
from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.serving.access import Access
    from poa.serving.desk import Desk

_ORIGIN = re.compile(r"[!-*,-~]{1,200}")


def configure(parser: argparse.ArgumentParser) -> None:
    """Which run answers, where receipts go, and where to listen; the key comes from POA_API_KEY or is made."""
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="the training run (default: the latest quickstart)")
    parser.add_argument("--adapter", type=Path, metavar="FOLDER", help="answer with this published adapter")
    parser.add_argument("--method", metavar="A,B", help="attribution methods (default: influence,repsim,bm25)")
    parser.add_argument("--index", type=Path, metavar="FOLDER", help="a stored index of this run to ask")
    parser.add_argument("--ledger", type=Path, required=True, metavar="FOLDER", help="the ledger that takes receipts")
    parser.add_argument("--init", action="store_true", help="make the ledger; the folder must be absent or empty")
    parser.add_argument("--origin", default="localhost/poa", help="name of a new ledger (default localhost/poa)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default 8000; 0 picks a free one)")
    parser.add_argument("--name", default="poa", help="name of the model in answers (default poa)")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted, then finish the answer in hand; exit code 0."""
    from poa.serving.access import VARIABLE, Access, new_key
    from poa.serving.desk import Desk
    from poa.serving.founding import found
    from poa.serving.receipts import LEDGER, ledger_folder
    from poa.serving.runs import open_run
    from poa.serving.tracing import Tracer

    if not 0 <= args.port < 2**16:
        raise PoaError(f"--port is {args.port}, must be 0 to 65535")
    if not _ORIGIN.fullmatch(args.origin):
        raise PoaError(f"--origin is {args.origin!r}, must be 1-200 visible ASCII characters without + and spaces")
    chosen = methods_of(args.method, args.index is not None)
    given = os.environ.get(VARIABLE)
    key = given or new_key()
    access = Access.of(key)
    folder = ledger_folder(args.ledger)
    if not args.init and not (folder / LEDGER).is_file():
        raise PoaError(f"no ledger at {folder / LEDGER}; `--init` makes a new one")
    opened = open_run(args.run, args.adapter)
    with _listening(args.host, args.port) as listener, Tracer.open(opened, chosen, args.index) as ready:
        # Fitted and listening: nothing is left to refuse, so the new ledger is not left behind unused.
        if args.init:
            found(folder, args.origin, opened)
        with Desk.open(args.name, ready, folder) as desk:
            # Whoever reads the next line may ask at once: from here on connections wait instead of being refused.
            listener.listen()
            host, port = listener.getsockname()[:2]
            print(f"poa: serving adapter {opened.adapter_digest[:16]} on http://{host}:{port}", file=sys.stderr)
            print(f"poa: receipts go to {folder / LEDGER} ({desk.book.ledger.verifier.vkey})", file=sys.stderr)
            if given is None:
                print(f"poa: key {key} (set {VARIABLE} to choose it)", file=sys.stderr)
            sys.stderr.flush()
            _serve(desk, access, listener)
    return 0


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PoaError(f"cannot listen on {host}, port {port}: {error.strerror or error}") from error
    return listener


def _serve(desk: Desk, access: Access, listener: socket.socket) -> None:
    import uvicorn

    from poa.serving.app import app

    def leave(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    # uvicorn finishes its requests and then sends itself the signal again: both must end in an orderly close.
    signal.signal(signal.SIGTERM, leave)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app(desk, access), log_level="warning", access_log=False)).run(sockets=[listener])
