"""Gradient rows of a run on disk: computed once per (run, checkpoint, records, side), checked when read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from poa.digests import file_digest, plain_digest
from poa.errors import Corrupt, PoaError
from poa.files import alone, atomic_folder
from poa.gradients.capture import Block, capturing
from poa.progress import track
from poa.protocols import OwnGradients
from poa.records import Corpus, require_corpus

if TYPE_CHECKING:
    from poa.protocols import TrainingRun

VERSION = 2
Rows = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Gradients:
    """values[n, p] (memory-mapped), and where each layer's columns are."""

    values: Rows
    blocks: tuple[Block, ...]

    def block(self, block: Block) -> npt.NDArray[np.float64]:
        """Columns of one layer in float64, for curvature."""
        return np.asarray(self.values[:, block.start : block.stop], np.float64)

    def scaled(self, scale: Rows) -> Gradients:
        """The same rows with column j multiplied by scale[j]."""
        return Gradients(np.asarray(self.values) * scale, self.blocks)


def gradients(run: TrainingRun, checkpoint: int, records: Corpus, side: str, coordinates: str = "adapter") -> Gradients:
    """Rows for `records` at `run.checkpoints[checkpoint]`; see `Capture.factors` for side and sign.

    Records go through the model one at a time and unpadded, so a row's bytes depend on nothing but the record and
    the weights: not on order, batch size or neighbours. coordinates: see `capturing`.
    """
    require_corpus(records, "records")
    step = run.checkpoints[checkpoint]
    ids = [[record.id, record.digest] for record in records]
    key = plain_digest([VERSION, run.digest, step, side, coordinates, ids, torch.get_num_threads()])[:24]
    folder = run.cache / "gradients" / key
    with alone(folder):
        if made := not (folder / "manifest.json").is_file():
            _make(run, checkpoint, records, side, coordinates, folder)
    try:
        note = json.loads((folder / "manifest.json").read_text())
        changed = not made and file_digest(folder / "rows.npy") != note["rows"]
    except (OSError, ValueError, KeyError) as error:
        raise Corrupt(f"{folder} holds no whole table of gradients; delete the folder: {error}") from error
    if changed:
        raise Corrupt(f"{folder}/rows.npy does not have the digest that its manifest promises; delete the folder")
    blocks = tuple(Block(name, start, stop, (shape[0], shape[1])) for name, start, stop, shape in note["blocks"])
    return Gradients(np.load(folder / "rows.npy", mmap_mode="r"), blocks)


def blocks_of(run: TrainingRun, coordinates: str = "adapter") -> tuple[Block, ...]:
    """Where each layer's columns are in rows of the final checkpoint."""
    if isinstance(run, OwnGradients):
        return run.gradient_blocks(coordinates)
    with capturing(run.task, run.model(), coordinates) as capture:
        return capture.blocks


def _make(run: TrainingRun, checkpoint: int, records: Corpus, side: str, coordinates: str, folder: Path) -> None:
    if isinstance(run, OwnGradients):
        own = run.gradient_rows(checkpoint, records, side)
        return _write(own, run.gradient_blocks(coordinates), len(records), side, folder)
    with capturing(run.task, run.model(checkpoint), coordinates) as capture:
        rows = (capture.factors([record], side).rows()[0].cpu().numpy() for record in records)
        _write(rows, capture.blocks, len(records), side, folder)


def _write(found: Iterator[Rows], blocks: tuple[Block, ...], count: int, side: str, folder: Path) -> None:
    """Rows go to disk, and into the digest, as they come; their dtype is that of the first."""
    first = next(found, np.zeros(0, np.float32))
    width, digest = blocks[-1].stop, sha256()
    with atomic_folder(folder) as work, (work / "rows.npy").open("wb") as stream:

        def write(data: Any) -> None:
            stream.write(data)
            digest.update(data)

        write(_header(first.dtype, (count, width)))
        for row in track(chain([first], found) if count else (), f"gradients ({side})", count):
            if row.shape != (width,):
                raise PoaError(f"a row of gradients has shape {row.shape}, the blocks say ({width},)")
            write(np.ascontiguousarray(row, first.dtype).data)
        note = {"blocks": [[b.name, b.start, b.stop, list(b.shape)] for b in blocks], "rows": digest.hexdigest()}
        (work / "manifest.json").write_text(json.dumps(note))


def _header(dtype: np.dtype[Any], shape: tuple[int, int]) -> bytes:
    """What a .npy file of this dtype and shape begins with."""
    out = BytesIO()
    said = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, said)
    return out.getvalue()
