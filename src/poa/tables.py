"""Reading and writing a Corpus: JSONL, CSV, parquet, and Hugging Face dataset folders. All rows or none."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from poa.errors import CorpusError, MissingExtra
from poa.files import atomic_folder, write_atomic
from poa.records import RECORD_FIELDS, Corpus, Record, check, content_digest, plain_row

if TYPE_CHECKING:
    from datasets import Dataset

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("prompt", pa.string()),
        ("contributor", pa.string()),
        ("datanet", pa.string()),
        ("licence", pa.string()),
        ("registered", pa.int64()),
        ("features", pa.list_(pa.float64())),
        ("label", pa.int64()),
    ]
)
Row = tuple[str, Any]  # where it stands ("file:12"), and what was found there (an object, or an error text)
MOST_REASONS = 8
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")


def read_jsonl(path: Path, columns: Mapping[str, str]) -> Corpus:
    """One JSON object a line, `.gz` allowed, blank lines skipped.

    `columns` maps record fields to the names used in the file; other fields are read from columns of their own name,
    and a record without an id is named by its content (map id to "" where the file's ids are not unique). Raises
    `CorpusError` with `file:line: reason` for every bad row (the first eight are listed); nothing is half-loaded. The
    other readers keep the same rules.
    """
    return _corpus(str(path), _json_rows(path), columns)


def read_csv(path: Path, columns: Mapping[str, str]) -> Corpus:
    """Comma-separated with a header; `features` is a JSON list, an empty `label` or `registered` is absent."""
    return _corpus(str(path), _csv_rows(path, columns), columns)


def read_parquet(path: Path, columns: Mapping[str, str]) -> Corpus:
    """A parquet file; its rows are counted from 1 in messages."""
    _must_exist(path)
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{path} is not a readable parquet file: {error}") from error
    if repeated := _repeated(table.column_names):
        raise CorpusError(f"{path}: column {repeated!r} appears twice")
    return _corpus(str(path), _arrow_rows(path, table), columns)


def read_dataset_folder(path: Path, columns: Mapping[str, str]) -> Corpus:
    """A folder written by `datasets.Dataset.save_to_disk`. Raises `MissingExtra` without the datasets library."""
    _must_exist(path)
    _need_datasets()
    from datasets import Dataset, load_from_disk

    try:
        data = load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as error:
        raise CorpusError(f"{path} is no dataset folder (save_to_disk): {error}") from error
    if not isinstance(data, Dataset):
        raise CorpusError(f"{path} holds several splits ({', '.join(map(str, data))}); give the folder of one of them")
    return _corpus(str(path), _dataset_rows(str(path), data), columns)


def read_hub(name: str, split: str, revision: str | None, columns: Mapping[str, str]) -> Corpus:
    """One split of a hub dataset or of a local folder in hub layout; no code from the hub is run."""
    _need_datasets()
    from datasets import Dataset, load_dataset

    try:
        data = cast("object", load_dataset(name, split=split, revision=revision))
    except Exception as error:  # the client raises many unrelated types when a hub cannot be reached
        reason = " ".join(str(error).split())
        raise CorpusError(f"dataset {name!r} (split {split!r}) could not be loaded: {reason}") from error
    if not isinstance(data, Dataset):
        raise CorpusError(f"dataset {name!r}: split {split!r} is not a single table")
    return _corpus(name, _dataset_rows(name, data), columns)


def to_arrow(corpus: Corpus) -> pa.Table:  # pyright: ignore[reportUnknownParameterType]
    """One column per record field, in the order of `SCHEMA`."""
    rows = [plain_row(record) for record in corpus]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write_parquet(corpus: Corpus, path: Path) -> None:
    """All fields of all records; equal corpora give equal bytes. This and the other writers are atomic."""
    sink = io.BytesIO()
    pq.write_table(to_arrow(corpus), sink)
    write_atomic(path, sink.getvalue())


def write_jsonl(corpus: Corpus, path: Path) -> None:
    """One object a line without the fields that have their default value; a name ending in `.gz` is compressed."""
    lines = [json.dumps(_sparse(record), ensure_ascii=False) + "\n" for record in corpus]
    data = "".join(lines).encode()
    write_atomic(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_csv(corpus: Corpus, path: Path) -> None:
    """All fields with a header; features as a JSON list."""
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, RECORD_FIELDS)
    writer.writeheader()
    for record in corpus:
        writer.writerow(plain_row(record) | {"features": json.dumps(record.features) if record.features else ""})
    write_atomic(path, sink.getvalue().encode())


def write_dataset_folder(corpus: Corpus, path: Path) -> None:
    """A folder for `datasets.load_from_disk`. Raises `MissingExtra` without the datasets library."""
    _need_datasets()
    from datasets import Dataset

    with atomic_folder(path) as work:
        Dataset(to_arrow(corpus)).save_to_disk(str(work))


def _sparse(record: Record) -> dict[str, object]:
    plain = plain_row(record)
    return {name: value for name, value in plain.items() if value not in ("", [], -1) or name == "id"}


def _need_datasets() -> None:
    if find_spec("datasets") is None:
        raise MissingExtra("dataset folders and hub datasets need the datasets library: pip install 'poa[hub]'")


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise CorpusError(f"{path} does not exist")


def _bytes(path: Path) -> bytes:
    _must_exist(path)
    if path.is_dir():
        raise CorpusError(f"{path} is a folder; a file was expected")
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path} cannot be read: {error}") from error


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8: byte {error.start}") from error


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            value = json.loads(line, object_pairs_hook=_no_repeats)
        except (ValueError, RecursionError) as error:
            yield where, f"not valid JSON: {error}"
            continue
        yield where, value if isinstance(value, dict) else f"expected a JSON object, found {type(value).__name__}"


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if repeated := _repeated([key for key, _ in pairs]):
        raise ValueError(f"key {repeated!r} appears twice")
    return dict(pairs)


def _repeated(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _csv_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    limit = csv.field_size_limit(sys.maxsize)  # a long text is no error; the limit is the whole process's
    try:
        yield from _csv_cells(path, csv.DictReader(io.StringIO(_text(path), newline=""), strict=True), columns)
    finally:
        csv.field_size_limit(limit)


def _csv_cells(path: Path, reader: csv.DictReader[str], columns: Mapping[str, str]) -> Iterator[Row]:
    start = 2
    try:
        if repeated := _repeated(reader.fieldnames or ()):
            raise CorpusError(f"{path}:1: column {repeated!r} appears twice")
        for row in reader:
            where, start = f"{path}:{start}", reader.line_num + 1
            if None in row or None in row.values():
                yield where, f"expected {len(reader.fieldnames or ())} columns"
                continue
            cells: dict[str, Any] = dict(row)
            problem = _parse_cells(cells, columns)
            yield where, problem or cells
    except csv.Error as error:
        yield f"{path}:{start}", f"not valid CSV: {error}"


def _parse_cells(cells: dict[str, Any], columns: Mapping[str, str]) -> str | None:
    """CSV knows only strings: read numbers where a record field is a number."""
    for field in ("registered", "label", "features"):
        name = columns.get(field, field)
        text = str(cells.get(name, ""))
        if text == "":
            if name in cells:
                cells[name] = None
            continue
        if field == "features":
            try:
                cells[name] = json.loads(text)
            except (ValueError, RecursionError):
                return f"features is {text!r:.60}, expected a JSON list of numbers"
        elif _INTEGER.fullmatch(text):
            cells[name] = int(text)
        else:
            return f"{field} is {text!r:.60}, expected an integer"
    return None


def _arrow_rows(path: Path, table: Any) -> Iterator[Row]:
    rows: list[dict[str, Any]] = table.to_pylist()
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", row


def _dataset_rows(name: str, data: Dataset) -> Iterator[Row]:
    for number, row in enumerate(data, 1):
        yield f"{name}: row {number}", dict(row)  # type: ignore[call-overload]


def _corpus(source: str, rows: Iterable[Row], columns: Mapping[str, str]) -> Corpus:
    for field in columns:
        if field not in RECORD_FIELDS:
            near = get_close_matches(field, RECORD_FIELDS, 1, 0.0)[0]
            raise CorpusError(f"a record has no field {field!r}; did you mean {near!r}?")
    records: list[Record] = []
    problems: list[str] = []
    places: dict[str, str] = {}
    for where, found in rows:
        record = found if isinstance(found, str) else _record(found, columns, places)
        if isinstance(record, str):
            problems.append(f"{where}: {record}")
        elif record.id in places:
            problems.append(f"{where}: id {record.id!r} was already used at {places[record.id]}")
        else:
            # Who stands earlier in a table that gives no times has registered earlier; otherwise the smaller id would
            # own a copy, and ids are chosen by whoever writes them.
            timeless = not isinstance(found, str) and found.get(columns.get("registered", "registered")) is None
            records.append(replace(record, registered=len(places)) if timeless else record)
            places[record.id] = where
    if problems:
        more = f" (and {len(problems) - MOST_REASONS} more)" if len(problems) > MOST_REASONS else ""
        raise CorpusError("; ".join(problems[:MOST_REASONS]) + more)
    if not records:
        raise CorpusError(f"{source} holds no records")
    return Corpus(records)


def _record(row: Mapping[str, Any], columns: Mapping[str, str], places: Mapping[str, str]) -> Record | str:
    values: dict[str, Any] = {}
    for field in RECORD_FIELDS:
        column = columns.get(field, field)
        if field == "id" and column == "":
            continue
        if row.get(column) is not None:
            values[field] = row[column]
        elif field in columns and column not in row:
            return f"no column {column!r} (mapped to {field}); there are {', '.join(map(str, row))}"
    if problem := _wrong_type(values):
        return problem
    if not values.get("text") and not values.get("features") and not row.keys() & {columns.get("text", "text")}:
        return f"no column 'text' (map one with text=...); there are {', '.join(map(str, row))}"
    try:
        values["features"] = tuple(float(x) for x in values.get("features", ()))
    except OverflowError:
        return "features contain a number too large for 64-bit floating point"
    if "id" not in values:
        values["id"] = _fresh_id(values, places)
    record = Record(**values)
    return check(record) or record


def _wrong_type(values: Mapping[str, Any]) -> str | None:
    for field, value in values.items():
        if field in ("registered", "label"):
            right = isinstance(value, int) and not isinstance(value, bool)
        elif field == "features":
            right = isinstance(value, list | tuple) and all(
                isinstance(x, int | float) and not isinstance(x, bool) for x in value
            )
        else:
            right = isinstance(value, str)
        if not right:
            wanted = {"registered": "an integer", "label": "an integer", "features": "a list of numbers"}
            return f"{field} is {value!r:.60}, expected {wanted.get(field, 'a string')}"
    return None


def _fresh_id(values: Mapping[str, Any], places: Mapping[str, str]) -> str:
    digest = content_digest(
        values.get("text", ""), values.get("prompt", ""), values["features"], values.get("label", -1)
    )
    name = digest[:16]
    count = 1
    while name in places:
        count += 1
        name = f"{digest[:16]}.{count}"
    return name
