"""Whether an index holds together: document table, permutation, minima, and the order of a sample of suffixes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.compiled import jit
from poa.errors import Corrupt
from poa.spans.minima import block_minima

if TYPE_CHECKING:
    from poa.spans.index import SpanIndex

Array = npt.NDArray[Any]
SAMPLE = 1024
DEPTH = 4096


def verify(index: SpanIndex, folder: Path) -> None:
    """Raise `Corrupt`, naming the file under `folder`, for the first thing that no built index would hold.

    Every position that a query follows is inside the text afterwards, whoever wrote the folder.
    """
    for name, reason in (_types(index) or _table(index) or _text(index) or _ranks(index)).items():
        raise Corrupt(f"{folder / name}.npy: {reason}")


def _types(index: SpanIndex) -> dict[str, str]:
    wanted: dict[str, Any] = {
        "suffixes": np.int32,
        "minima": np.int32,
        "offsets": np.int64,
        "registered": np.int64,
        "owner_of": np.int32,
        "text": np.uint16 if index.vocab_size <= 0xFFFF else np.uint32,
    }
    for name, dtype in wanted.items():
        array: Array = getattr(index, name)
        if array.dtype != dtype or array.ndim != 1:
            return {name: f"holds {array.dtype.name}, {array.ndim}-dimensional; must be {np.dtype(dtype).name}, flat"}
    for name, column in (("owner", index.owners), ("record_id", index.record_ids)):
        if column.data.dtype != np.uint8 or column.ends.dtype != np.int64 or column.data.ndim + column.ends.ndim != 2:
            return {f"{name}_ends": "must be int64 beside uint8 text, both flat"}
        if reason := column.problem():
            return {f"{name}_ends": reason}
    return {}


def _table(index: SpanIndex) -> dict[str, str]:
    documents, n = len(index), index.text.size
    offsets = index.offsets
    if offsets.size != documents + 1 or offsets[0] != 0 or offsets[-1] != n or bool((np.diff(offsets) < 1).any()):
        return {"offsets": "does not cut the text into documents"}
    if index.registered.size != documents or bool((np.diff(index.registered) < 0).any()):
        return {"registered": "is not one rising time per document"}
    if len(index.record_ids) != documents:
        return {"record_id_ends": f"names {len(index.record_ids)} of {documents} documents"}
    if documents and not 0 <= int(index.owner_of.min()) <= int(index.owner_of.max()) < len(index.owners):
        return {"owner_of": f"names owners beyond the {len(index.owners)} there are"}
    return {}


def _text(index: SpanIndex) -> dict[str, str]:
    borders = np.flatnonzero(index.text == index.separator)
    if not np.array_equal(borders, index.offsets[:-1]):
        return {"text": "has separators elsewhere than offsets.npy"}
    if int((index.text >= index.vocab_size).sum()) != borders.size:
        return {"text": f"has tokens outside the vocabulary of {index.vocab_size}"}
    return {}


def _ranks(index: SpanIndex) -> dict[str, str]:
    n, suffixes = index.text.size, index.suffixes
    if suffixes.size != n or (n and not 0 <= int(suffixes.min()) <= int(suffixes.max()) < n):
        return {"suffixes": f"is not a permutation of 0 to {n - 1}"}
    seen = np.zeros(n, np.bool_)
    seen[suffixes] = True
    if not seen.all():
        return {"suffixes": f"is not a permutation of 0 to {n - 1}"}
    wrong = disorder(index.text, suffixes)
    if wrong >= 0:
        return {"suffixes": f"the suffixes at ranks {wrong - 1} and {wrong} are out of order"}
    if not np.array_equal(index.minima, block_minima(suffixes)):
        return {"minima": "does not hold the minima of suffixes.npy"}
    return {}


def disorder(text: Array, suffixes: Array) -> int:
    """A rank whose suffix is smaller than the one before it, or -1.

    Up to `SAMPLE` neighbours, spread evenly, are compared over `DEPTH` tokens: in a text of copies two neighbours agree
    for as long as the copies do.
    """
    ranks = np.unique(np.linspace(1, text.size - 1, SAMPLE, dtype=np.int64)) if text.size > 1 else np.zeros(0, np.int64)
    return _first_disorder(text, suffixes, ranks)


@jit
def _first_disorder(text: Array, suffixes: Array, ranks: Array) -> int:
    for rank in ranks:
        a, b = int(suffixes[rank - 1]), int(suffixes[rank])
        k = 0
        while k < DEPTH and a + k < text.size and b + k < text.size and text[a + k] == text[b + k]:
            k += 1
        if k < DEPTH and (b + k == text.size or (a + k < text.size and text[a + k] > text[b + k])):
            return rank
    return -1
