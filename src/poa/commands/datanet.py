"""List, show and import collections of records."""

from __future__ import annotations

import argparse
import inspect
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poa.errors import PoaError

if TYPE_CHECKING:
    from poa.records import Corpus

FORMATS = {".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".csv": "csv", ".csv.gz": "csv", ".parquet": "parquet"}
SHOWN = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """`list`, `show NAME` and `import FILE --out FOLDER`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|import")
    actions.add_parser("list", help="the sources of records and their options")
    show = actions.add_parser("show", help="who contributed what to a source, or to a snapshot folder")
    show.add_argument("name", help="a source of `poa datanet list`, or the folder of a snapshot")
    show.add_argument("--path", help="file that the source reads")
    show.add_argument("--dataset", help="hub: name of the dataset, or a local folder in hub layout")
    show.add_argument("--split", help="hub: which split")
    show.add_argument("--revision", help="hub: which revision")
    show.add_argument("--package", action="append", dest="packages", help="installed-docs: only this package (repeat)")
    take = actions.add_parser("import", help="read a file, cluster its copies and freeze it as a snapshot folder")
    take.add_argument("file", type=Path, help=f"one of {', '.join(FORMATS)}, or a dataset folder")
    take.add_argument("--out", type=Path, required=True, help="folder to make; it must not exist yet")
    take.add_argument(
        "--duplicates", default="drop", help="what happens to copies: drop (default), drop-exact, or keep"
    )
    for reader in (show, take):
        reader.add_argument("--column", action="append", metavar="FIELD=NAME", help="column of a record field (repeat)")
        reader.add_argument("--name", dest="name_as", help="datanet of records that name none")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; imports the readers only now."""
    return {"list": _list, "show": _show, "import": _import}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from poa.datanets.sources import SOURCES

    for name, source in SOURCES.items():
        print(f"{name:<15} {', '.join(inspect.signature(source).parameters)}")
    return 0


def _show(args: argparse.Namespace) -> int:
    from poa.datanets.snapshot import Snapshot
    from poa.datanets.sources import datanet

    if (Path(args.name) / "snapshot.json").is_file():
        snapshot = Snapshot.load(args.name)
        print(snapshot.report)
        print(f"root {snapshot.root}")
        _summary(snapshot.corpus)
        return 0
    chosen = {key: getattr(args, key) for key in ("path", "dataset", "split", "revision", "packages", "name_as")}
    _summary(datanet(args.name, **_given(chosen | {"columns": _columns(args.column)})))
    return 0


def _import(args: argparse.Namespace) -> int:
    from poa.datanets.snapshot import Snapshot
    from poa.datanets.sources import datanet

    if args.out.exists():
        raise PoaError(f"{args.out} exists already; a snapshot is never overwritten, choose another --out")
    options = _given({"columns": _columns(args.column), "name_as": args.name_as})
    corpus = datanet(_format(args.file), path=args.file, **options)
    snapshot = Snapshot.of(corpus, duplicates=args.duplicates)
    snapshot.save(args.out)
    print(snapshot.report)
    for example in snapshot.report.examples:
        print(f"  {example.copy} repeats {example.cluster} ({example.reason.kind}): {example.excerpt}")
    print(f"root {snapshot.root}")
    print(f"snapshot in {args.out}")
    return 0


def _format(file: Path) -> str:
    if file.is_dir():
        return "folder"
    for suffix, name in FORMATS.items():
        if file.name.endswith(suffix):
            return name
    raise PoaError(f"{file} is of no known format; its name must end in {', '.join(FORMATS)}")


def _columns(pairs: list[str] | None) -> dict[str, str] | None:
    columns: dict[str, str] = {}
    for pair in pairs or []:
        field, found, column = pair.partition("=")
        if not (field and found and column):
            raise PoaError(f"--column {pair!r} must be FIELD=NAME, for example prompt=question")
        columns[field] = column
    return columns or None


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _summary(corpus: Corpus) -> None:
    print(f"{len(corpus)} records, digest {corpus.digest}")
    for group in ("datanet", "licence", "contributor"):
        counts = sorted(Counter(corpus.groups(group)).items(), key=lambda row: (-row[1], row[0]))
        print(f"{group}s: {len(counts)}")
        for label, count in counts[:SHOWN]:
            print(f"  {count:>7}  {label or '(none)'}")
        if len(counts) > SHOWN:
            print(f"  and {len(counts) - SHOWN} more")
