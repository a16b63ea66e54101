"""Record and Corpus: what was contributed, by whom, under which licence, and when."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from poa.digests import plain_digest, sha256
from poa.errors import CorpusError, PoaError

if TYPE_CHECKING:
    import pyarrow as pa

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")


@dataclass(frozen=True, slots=True)
class Record:
    """One training example or query.

    Text: `prompt` conditions (not supervised), `text` is what is learnt or answered. Classifier: `features` and
    `label`. `registered` is the position in time at which the contributor registered it (seconds or a sequence
    number; smaller is earlier); ties are broken by content digest.
    """

    id: str
    text: str = ""
    prompt: str = ""
    contributor: str = ""
    datanet: str = ""
    licence: str = ""
    registered: int = 0
    features: tuple[float, ...] = ()
    label: int = -1

    @property
    def digest(self) -> str:
        """SHA-256 of the content alone (prompt, text, features, label): equal content, equal digest."""
        return content_digest(self.text, self.prompt, self.features, self.label)


RECORD_FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Record))


def content_digest(text: str, prompt: str, features: tuple[float, ...], label: int) -> str:
    """Identity of what a record says, whoever says it."""
    # A lone surrogate is refused by `check`, with a reason; hashing it first must not fail.
    said = f"{len(prompt)}\n{prompt}\n{text}\n{label}".encode("utf-8", "surrogatepass")
    if not features:
        return sha256(said)
    # The prefix keeps the two kinds apart: without it a text could end in the bytes of somebody's features.
    return sha256(f"features {len(features)}\n".encode() + said + np.asarray(features, "<f8").tobytes())


def check(record: Record) -> str | None:
    """The reason why a record is refused, or None. One place for every source."""
    if not _ID.fullmatch(record.id):
        return (
            f"id {record.id!r} must be 1-200 characters of A-Z a-z 0-9 . _ : / @ + - and start with one of A-Z a-z 0-9"
        )
    if not record.text.strip() and not record.features:
        return "text is empty"
    if record.features and not bool(np.isfinite(record.features).all()):
        return "features contain NaN or infinity"
    if not 0 <= record.registered < 2**63:
        return f"registered is {record.registered}, must be 0 or more and below 2^63"
    if not -(2**63) <= record.label < 2**63:
        return f"label is {record.label}, must fit in 64 bits"
    for name in ("text", "prompt", "contributor", "datanet", "licence"):
        value: str = getattr(record, name)
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"{name} is not valid UTF-8 (lone surrogate)"
        if "\x00" in value:
            return f"{name} contains a NUL character"
    return None


class Corpus(Sequence[Record]):
    """An immutable, ordered list of records with unique ids.

    Readers refuse the whole file if any row is bad and name every bad row; nothing is half-loaded.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = tuple(records)
        problems = [f"record {r.id!r}: {reason}" for r in self._records if (reason := check(r)) is not None]
        if problems:
            raise CorpusError(_listing("bad records", problems))
        repeated = [name for name, count in Counter(self.ids).items() if count > 1]
        if repeated:
            raise CorpusError(_listing("duplicate ids", [repr(name) for name in repeated]))

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Corpus: ...
    def __getitem__(self, index: int | slice) -> Record | Corpus:
        return Corpus(self._records[index]) if isinstance(index, slice) else self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __add__(self, other: Corpus) -> Corpus:
        return Corpus((*self._records, *other))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Corpus) and self._records == other._records

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        contributors, datanets = len(set(self.contributors)), len(set(self.datanets))
        return f"Corpus({len(self)} records, {contributors} contributors, {datanets} datanets)"

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(record.id for record in self._records)

    @cached_property
    def contributors(self) -> tuple[str, ...]:
        """Contributor of each record, in record order."""
        return tuple(record.contributor for record in self._records)

    @cached_property
    def datanets(self) -> tuple[str, ...]:
        """Datanet of each record, in record order."""
        return tuple(record.datanet for record in self._records)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all fields of all records in order: the identity of this corpus."""
        return plain_digest([plain_row(record) for record in self._records])

    def where(self, keep: Callable[[Record], bool]) -> Corpus:
        """The records that satisfy `keep`, in order."""
        return Corpus(record for record in self._records if keep(record))

    def take(self, indices: Iterable[int]) -> Corpus:
        """The records at `indices`, in the order given."""
        return Corpus(self._records[int(i)] for i in indices)

    def groups(self, by: str) -> tuple[str, ...]:
        """One label per record: `by` is "contributor", "datanet", "licence" or "id"."""
        if by not in ("contributor", "datanet", "licence", "id"):
            raise CorpusError(f"cannot group by {by!r}; choose contributor, datanet, licence or id")
        return tuple(str(getattr(record, by)) for record in self._records)

    # -- in ---------------------------------------------------------------------------------------------------

    @staticmethod
    def from_texts(texts: Iterable[str], *, prompt: str = "", contributor: str = "", datanet: str = "") -> Corpus:
        """Records from bare texts; ids are content digests (with a counter where a text repeats)."""
        seen: Counter[str] = Counter()
        out: list[Record] = []
        for text in texts:
            name = content_digest(text, prompt, (), -1)[:16]
            seen[name] += 1
            unique = name if seen[name] == 1 else f"{name}.{seen[name]}"
            out.append(Record(unique, text, prompt, contributor, datanet))
        return Corpus(out)

    @staticmethod
    def from_jsonl(path: str | Path, **columns: str) -> Corpus:
        """One JSON object a line (`.gz` allowed). `columns` maps record fields to other column names."""
        from poa.tables import read_jsonl

        return read_jsonl(Path(path), columns)

    @staticmethod
    def from_csv(path: str | Path, **columns: str) -> Corpus:
        from poa.tables import read_csv

        return read_csv(Path(path), columns)

    @staticmethod
    def from_parquet(path: str | Path, **columns: str) -> Corpus:
        from poa.tables import read_parquet

        return read_parquet(Path(path), columns)

    @staticmethod
    def from_dataset_folder(path: str | Path, **columns: str) -> Corpus:
        """A folder written by Hugging Face `datasets.Dataset.save_to_disk` (needs the `hub` extra)."""
        from poa.tables import read_dataset_folder

        return read_dataset_folder(Path(path), columns)

    @staticmethod
    def from_hub(name: str, *, split: str = "train", revision: str | None = None, **columns: str) -> Corpus:
        """A dataset on the Hugging Face hub, or a local folder in hub layout (needs the `hub` extra)."""
        from poa.tables import read_hub

        return read_hub(name, split, revision, columns)

    # -- out --------------------------------------------------------------------------------------------------

    def to_arrow(self) -> pa.Table:  # pyright: ignore[reportUnknownParameterType]
        from poa.tables import to_arrow

        return to_arrow(self)

    def to_jsonl(self, path: str | Path) -> None:
        from poa.tables import write_jsonl

        write_jsonl(self, Path(path))

    def to_csv(self, path: str | Path) -> None:
        from poa.tables import write_csv

        write_csv(self, Path(path))

    def to_parquet(self, path: str | Path) -> None:
        from poa.tables import write_parquet

        write_parquet(self, Path(path))

    def to_dataset_folder(self, path: str | Path) -> None:
        from poa.tables import write_dataset_folder

        write_dataset_folder(self, Path(path))


def require_corpus(records: object, what: str) -> None:
    """Raise `PoaError` naming `what` unless `records` is a `Corpus`: ids and digests are read from it."""
    if not isinstance(records, Corpus):
        raise PoaError(f"{what} must be a poa.Corpus, got {type(records).__name__}: poa.Corpus(records) makes one")


def tagged(corpus: Corpus, **changes: object) -> Corpus:
    """A copy of `corpus` with some fields set to the same value in every record."""
    return Corpus(replace(record, **changes) for record in corpus)  # type: ignore[arg-type]


def plain_row(record: Record) -> dict[str, Any]:
    """All fields by name, JSON-able."""
    return {name: getattr(record, name) for name in RECORD_FIELDS} | {"features": list(record.features)}


def _listing(what: str, items: Sequence[str], most: int = 8) -> str:
    more = f" (and {len(items) - most} more)" if len(items) > most else ""
    return f"{what}: " + "; ".join(items[:most]) + more
