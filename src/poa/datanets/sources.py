"""Where a datanet comes from: a name and options become a Corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

from poa.errors import CorpusError, PoaError
from poa.records import Corpus, Record

MEDQUAD_LICENCE = "CC-BY-4.0"


def datanet(name: str, **options: Any) -> Corpus:
    """The records of a named source.

    "installed-docs" (packages), "medquad" (path), "jsonl" / "csv" / "parquet" / "folder" (path, columns, name_as) and
    "hub" (dataset, split, revision, columns). `columns` maps record fields to column names; `name_as` is the datanet
    of records that name none. Raises `PoaError` for an unknown source or option, `CorpusError` for bad rows.
    """
    if name not in SOURCES:
        near = get_close_matches(name, SOURCES, 1, 0.0)[0]
        raise PoaError(f"datanet {name!r} is unknown; did you mean {near!r}? ({', '.join(SOURCES)})")
    source = SOURCES[name]
    known = signature(source).parameters
    for option in options:
        if option not in known:
            raise PoaError(f"datanet {name!r} has no option {option!r}; it knows {', '.join(known)}")
    for option, parameter in known.items():
        if parameter.default is parameter.empty and options.get(option) in (None, ""):
            raise PoaError(f"datanet {name!r} needs the option {option!r}")
    return source(**options)


def installed(packages: Sequence[str] | None = None) -> Corpus:
    """Docstring prose of installed packages; see `poa.datanets.installed_docs`."""
    from poa.datanets.installed_docs import DATANETS, installed_docs

    return installed_docs(DATANETS if packages is None else tuple(packages))


def medquad(path: str | Path) -> Corpus:
    """The MedQuAD question-answer pairs (JSONL, `.gz` allowed).

    prompt = question, text = answer, contributor = source, registered = line order. Ben Abacha & Demner-Fushman 2019,
    doi 10.1186/s12859-019-3119-4.
    """
    # The file's own ids name documents and repeat, so records are named by their content.
    columns = {"id": "", "prompt": "question", "text": "answer", "contributor": "source"}
    rows = Corpus.from_jsonl(path, **columns)
    return Corpus(
        replace(record, datanet="medquad", licence=MEDQUAD_LICENCE, registered=place)
        for place, record in enumerate(rows)
    )


def _file(read: Callable[..., Corpus]) -> Callable[..., Corpus]:
    def source(path: str | Path, columns: Mapping[str, str] | None = None, name_as: str = "") -> Corpus:
        return _named(read(path, **_plain(columns)), name_as)

    return source


def hub(
    dataset: str,
    split: str = "train",
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    name_as: str = "",
) -> Corpus:
    """A dataset on the Hugging Face hub, or a local folder in hub layout."""
    return _named(Corpus.from_hub(dataset, split=split, revision=revision, **_plain(columns)), name_as or dataset)


def _plain(columns: Mapping[str, str] | None) -> dict[str, str]:
    mapping = {str(field): column for field, column in (columns or {}).items()}
    wrong: dict[str, Any] = {field: column for field, column in mapping.items() if not isinstance(column, str)}  # pyright: ignore[reportUnnecessaryIsInstance]
    if wrong:
        raise CorpusError(
            f"columns maps {next(iter(wrong))!r} to {next(iter(wrong.values()))!r}, expected a column name"
        )
    return mapping


def _named(corpus: Corpus, datanet_name: str) -> Corpus:
    if not datanet_name:
        return corpus
    return Corpus(_with_datanet(record, datanet_name) for record in corpus)


def _with_datanet(record: Record, datanet_name: str) -> Record:
    return record if record.datanet else replace(record, datanet=datanet_name)


SOURCES: dict[str, Callable[..., Corpus]] = {
    "installed-docs": installed,
    "medquad": medquad,
    "jsonl": _file(Corpus.from_jsonl),
    "csv": _file(Corpus.from_csv),
    "parquet": _file(Corpus.from_parquet),
    "folder": _file(Corpus.from_dataset_folder),
    "hub": hub,
}
