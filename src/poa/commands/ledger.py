"""Verify, show, export and prove what a ledger holds. Exit code of verify: 0 verified, 1 wrong, 3 cannot decide."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from poa.errors import PoaError
from poa.ledger import Event, Ledger, Verdict, check_proof, export, prove, verify, verify_export
from poa.ledger.proof import EVENT_FILE

WORDS = {0: "verified", 1: "WRONG", 3: "cannot decide"}


def configure(parser: argparse.ArgumentParser) -> None:
    """`verify`, `show`, `export` and `prove`, each on a path."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="verify|show|export|prove")
    check = actions.add_parser("verify", help="check a ledger, an exported folder or one proven event")
    check.add_argument("--vkey", help="the log's verifier key, or a file with it; without it the stored one is used")
    check.add_argument("--remembered", type=Path, help="file with a checkpoint seen earlier, which must still hold")
    show = actions.add_parser("show", help="what the ledger holds, or one event of it")
    show.add_argument("--event", metavar="SEQ|ID", help="print this event")
    show.add_argument("--type", help="list only events of this type")
    show.add_argument("--last", type=int, default=20, help="how many events to list (default 20)")
    out = actions.add_parser("export", help="write the log as static files that anyone can check")
    one = actions.add_parser("prove", help="write one event with the proof that it was logged")
    for action in (check, show, out, one):
        action.add_argument("path", type=Path, help="the ledger")
    one.add_argument("id", help="id of the event, as `poa ledger show` prints it")
    for action in (out, one):
        action.add_argument("--out", type=Path, required=True, help="folder to make; it must not exist yet")


def run(args: argparse.Namespace) -> int:
    """Exit code 0, or for `verify` the code of the verdict."""
    return {"verify": _verify, "show": _show, "export": _export, "prove": _prove}[args.action](args)


def _verify(args: argparse.Namespace) -> int:
    verdict = _verdict(args.path, _key(args.vkey), None if args.remembered is None else _text(args.remembered))
    if verdict.code not in WORDS:
        raise PoaError(verdict.message)
    print(f"{WORDS[verdict.code]}: {verdict.message}" + (f" [rule {verdict.rule}]" if verdict.rule else ""))
    if verdict.root:
        print(f"size {verdict.size}, root {verdict.root}")
    for account, credits in verdict.totals:
        print(f"  {account:<16} {credits:>16} micro-credits")
    if verdict.event is not None:
        print(_pretty(verdict.event))
    if verdict.ok and args.vkey is None:
        print("the key is the ledger's own: --vkey checks whose ledger it is")
    return verdict.code


def _verdict(path: Path, vkey: str | None, remembered: str | None) -> Verdict:
    if (path / EVENT_FILE).exists():
        if vkey is None:
            raise PoaError(f"{path} is one proven event: give the log's key with --vkey")
        if remembered is not None:
            raise PoaError("--remembered is for a whole ledger, not for one proven event")
        return check_proof(path, vkey)
    if (inside := path / "ledger.sqlite").is_file():
        return verify(inside, vkey, remembered=remembered)
    if path.is_dir():
        return verify_export(path, vkey, remembered=remembered)
    return verify(path, vkey, remembered=remembered)


def _show(args: argparse.Namespace) -> int:
    with Ledger.open(args.path) as ledger:
        if args.event is not None:
            print(_pretty(_find(ledger, args.event)))
            return 0
        head = ledger.head()
        listed = [(seq, event) for seq, event in ledger.events() if args.type in (None, event.type)]
    print(f"{head.origin}: {head.size} entries, root {head.root.hex()}")
    print(f"verifier key {ledger.verifier.vkey}")
    if args.type is None:
        for kind, count in sorted(Counter(event.type for _, event in listed).items()):
            print(f"  {count:>6}  {kind}")
    for seq, event in listed[max(0, len(listed) - args.last) :]:
        print(f"{seq:>6}  {event.type:<18} {event.id}  by {event.actor[:16]}")
    return 0


def _export(args: argparse.Namespace) -> int:
    _demand_new(args.out)
    print(f"ledger in {export(args.path, args.out)}; check it with `poa ledger verify {args.out}`")
    return 0


def _prove(args: argparse.Namespace) -> int:
    _demand_new(args.out)
    with Ledger.open(args.path) as ledger:
        vkey = ledger.verifier.vkey
    print(f"event in {prove(args.path, args.id, args.out)}; check it with `poa ledger verify {args.out} --vkey {vkey}`")
    return 0


def _find(ledger: Ledger, wanted: str) -> Event:
    for seq, event in ledger.events():
        if wanted in (str(seq), event.id):
            return event
    raise PoaError(
        f"no event {wanted!r} in {ledger.path}; it has {ledger.head().size} entries, from 0, each with an id"
    )


def _pretty(event: Event) -> str:
    return json.dumps(json.loads(event.raw), indent=2, sort_keys=True)


def _key(given: str | None) -> str | None:
    if given is None or not Path(given).is_file():
        return given
    return _text(Path(given)).strip()


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PoaError(f"cannot read {path}: {error}") from error


def _demand_new(folder: Path) -> None:
    if folder.exists():
        raise PoaError(f"{folder} exists already; choose another --out")
