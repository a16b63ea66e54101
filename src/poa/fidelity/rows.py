"""rows.parquet: what a job measured, one number a row, the same columns for every task; and a view over many jobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from poa.errors import Corrupt, MissingExtra, PoaError
from poa.files import write_atomic

if TYPE_CHECKING:
    import duckdb

ROWS = "rows.parquet"


class Row(TypedDict):
    """scope: "own_run" (scores of the run that the truth repeats) or "ensemble" (other seeds).

    removed: percent, "" where nothing is removed by fraction. low, high: 95 % interval, None where there is none.
    """

    quantity: str
    scope: str
    removed: str
    value: float
    low: float | None
    high: float | None


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One parquet file; an empty list of rows keeps the columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"task": pa.string(), "method": pa.string(), "label": pa.string(), "seed": pa.int64()}
    kinds |= {"quantity": pa.string(), "scope": pa.string(), "removed": pa.string()}
    schema = pa.schema([*kinds.items(), *((name, pa.float64()) for name in ("value", "low", "high"))])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), sink)
    write_atomic(path, sink.getvalue().to_pybytes())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one job; `Corrupt` for a file that is not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_table(path).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise Corrupt(f"{path} is not readable: {error}; run the job again") from error


def view(folder: Path) -> duckdb.DuckDBPyConnection:
    """An open duckdb connection in which the view `rows` is every job below `folder`.

    Raises `PoaError` where there is none and `MissingExtra` without duckdb.
    """
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise MissingExtra("the view over jobs needs duckdb: pip install 'poa[sweep]'") from error
    if not any(folder.rglob(ROWS)):
        raise PoaError(f"{folder} holds no finished job of experiment=fidelity (no {ROWS})")
    connection = duckdb.connect()
    pattern = str(folder / "**" / ROWS).replace("'", "''")
    connection.execute(f"create view rows as select * from read_parquet('{pattern}')")
    return connection
