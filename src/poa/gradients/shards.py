"""A store of features on disk: shards of rows that are each whole or absent, made by any number of processes.

A build can be killed at any moment and called again: finished shards stay. Processes that share a folder each make
their part of the shards (`torchrun`: RANK and WORLD_SIZE), and `merge` seals the store once all are there. The bytes
do not depend on how many processes there were or how often they were killed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from poa.digests import file_digest, plain_digest
from poa.errors import Corrupt, Mismatch, PoaError
from poa.files import alone, atomic_folder, write_atomic
from poa.gradients.capture import Block, Capture, capturing
from poa.gradients.encodings import Encoding, Int8, encoding
from poa.gradients.projection import placed
from poa.progress import track

if TYPE_CHECKING:
    from poa.gradients.projection import Projection
    from poa.protocols import TrainingRun
    from poa.records import Record

VERSION = 1
MANIFEST, SEALED = "manifest.json", "store.json"


@dataclass(frozen=True)
class Plan:
    """What a store holds: features of a run's records at one checkpoint.

    projection: of the gradients (None: as they are). encoding: float32, float16, int8 or rank1. rows: records a shard.
    fast: batches of four sorted by length, with the fused pass (see `capturing`): features agree with the default,
    one record at a time, to rounding and not to the byte.
    """

    checkpoint: int = -1
    projection: Projection | None = None
    encoding: str = "float32"
    rows: int = 1024
    side: str = "train"
    coordinates: str = "adapter"
    fast: bool = False

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise PoaError(f"a shard of {self.rows} records: must be 1 or more")

    def plain(self, run: TrainingRun) -> dict[str, Any]:
        """Everything that the bytes depend on."""
        if not -len(run.checkpoints) <= self.checkpoint < len(run.checkpoints):
            raise PoaError(f"checkpoint {self.checkpoint} of a run that keeps {len(run.checkpoints)}")
        made: Any = self.projection
        return {
            "version": VERSION,
            "run": run.digest,
            "step": run.checkpoints[self.checkpoint],
            "projection": None if made is None else {"kind": made.kind, "settings": asdict(made)},
            "encoding": self.encoding,
            "rows": self.rows,
            "side": self.side,
            "coordinates": self.coordinates,
            "fast": self.fast,
            "records": [[record.id, record.digest] for record in run.corpus],
        }


def build(run: TrainingRun, folder: str | Path, plan: Plan, share: tuple[int, int] | None = None) -> Path:
    """Make the shards of one process that are not there yet; the only process also merges.

    share: (which, of how many processes); None reads RANK and WORLD_SIZE, else (0, 1). Raises `Mismatch` where the
    folder holds a store of something else.
    """
    place = Path(folder)
    which, many = _share() if share is None else share
    if not 0 <= which < many:
        raise PoaError(f"process {which} of {many}: must be 0 to {many - 1}")
    identity = plain_digest(plan.plain(run))
    _claim(place, plan, run, identity)
    mine = range(which, _count(run, plan), many)
    missing = [number for number in mine if not _finished(place, number, identity)]
    for number in missing:
        for left in place.glob(f".{_path(place, number).name}.*"):  # of a process that was killed here
            shutil.rmtree(left)
    if missing:
        with capturing(run.task, run.model(plan.checkpoint), plan.coordinates, fused=plan.fast) as capture:
            for number in track(missing, "shards", len(missing)):
                _shard(run, place, plan, identity, number, capture)
    if many == 1:
        merge(place)
    return place


def merge(folder: str | Path) -> None:
    """Seal a store whose shards are all there. Raises `PoaError` that names one that is missing."""
    place = Path(folder)
    claim = _claimed(place)
    shards: list[str] = []
    for number in range(claim["shards"]):
        if not _finished(place, number, claim["identity"]):
            raise PoaError(f"{place} lacks shard {number} of {claim['shards']}: build it, then merge")
        shards.append(file_digest(_path(place, number) / MANIFEST))
    seal(place, claim, shards)


def seal(place: Path, claim: dict[str, Any], shards: list[str]) -> None:
    """Write store.json: what the store is, the digest of every shard's manifest, and the digest of both."""
    body = {"claim": claim, "shards": shards}
    write_atomic(place / SEALED, json.dumps(body | {"digest": plain_digest(body)}, sort_keys=True).encode())


@dataclass(frozen=True, eq=False)
class Store:
    """A sealed store: `shards[i][name]` are memory-mapped arrays of an encoding's parts."""

    folder: Path
    claim: dict[str, Any]
    blocks: tuple[Block, ...]
    encoding: Encoding
    shards: tuple[dict[str, npt.NDArray[Any]], ...]

    @staticmethod
    def open(folder: str | Path, run: TrainingRun | None = None, *, check: bool = True) -> Store:
        """Raises `PoaError` for what is not sealed, `Mismatch` for another run, `Corrupt` for changed bytes.

        check: read every byte once to compare digests; without it only manifests are compared.
        """
        place = Path(folder)
        sealed = _sealed(place)
        claim = sealed["claim"]
        if run is not None and claim["run"] != run.digest:
            raise Mismatch(f"{place} holds features of run {claim['run']}, not {run.digest}")
        shards: list[dict[str, npt.NDArray[Any]]] = []
        for number, digest in enumerate(sealed["shards"]):
            path = _path(place, number)
            if not (path / MANIFEST).is_file() or file_digest(path / MANIFEST) != digest:
                raise Corrupt(f"{path / MANIFEST} is not the one that was sealed")
            files = json.loads((path / MANIFEST).read_text())["files"]
            for name, promised in files.items():
                if check and file_digest(path / name) != promised:
                    raise Corrupt(f"{path / name} does not have the digest that its manifest promises")
            shards.append({Path(name).stem: np.asarray(np.load(path / name, mmap_mode="r")) for name in files})
        blocks = tuple(Block(name, a, b, (shape[0], shape[1])) for name, a, b, shape in claim["blocks"])
        return Store(place, claim, blocks, encoding(claim["encoding"], blocks), tuple(shards))

    @property
    def count(self) -> int:
        return int(self.claim["count"])

    @property
    def width(self) -> int:
        """Features of a record."""
        return self.blocks[-1].stop

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for shard in self.shards for array in shard.values())

    @cached_property
    def scales(self) -> tuple[npt.NDArray[np.float32], ...]:
        """Per shard the scale of every row of bytes."""
        if not isinstance(self.encoding, Int8):
            raise PoaError(f"a store of {self.encoding.name} has no scales")
        return tuple(self.encoding.scales(shard["low"]) for shard in self.shards)

    def rows(self) -> Iterator[npt.NDArray[np.float32]]:
        """Decoded features, a shard at a time, in the order of the manifest."""
        return (self.encoding.decode(shard) for shard in self.shards)


def _sealed(place: Path) -> dict[str, Any]:
    if not (place / SEALED).is_file():
        raise PoaError(f"{place} holds no sealed store: build all shards, then merge")
    try:
        sealed = json.loads((place / SEALED).read_text())
        promised = sealed.pop("digest")
    except (ValueError, KeyError, AttributeError) as error:
        raise Corrupt(f"{place / SEALED} is not a sealed store: {error}") from error
    if plain_digest(sealed) != promised:
        raise Corrupt(f"{place / SEALED} does not have the digest that it was sealed with")
    return sealed


def _share() -> tuple[int, int]:
    given = {name: os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))}
    for name, value in given.items():
        if not value.isdigit():
            raise PoaError(f"{name} is {value!r} in the environment, must be a whole number")
    return int(given["RANK"]), int(given["WORLD_SIZE"])


def _count(run: TrainingRun, plan: Plan) -> int:
    return -(-len(run.corpus) // plan.rows)


def _path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}"


def _claim(place: Path, plan: Plan, run: TrainingRun, identity: str) -> None:
    """Say what the folder is for, once; whoever comes later must want the same."""
    with alone(place):
        if (place / "claim.json").is_file():
            if _claimed(place)["identity"] != identity:
                raise Mismatch(
                    f"{place} is a store of other features (run, checkpoint, settings); choose another folder"
                )
            return
        if place.exists() and any(place.iterdir()):
            raise PoaError(f"{place} exists and holds no store; choose an empty or new folder")
        with capturing(run.task, run.model(plan.checkpoint), plan.coordinates) as capture:
            blocks = capture.blocks if plan.projection is None else plan.projection.layout(capture.blocks)
        encoding(plan.encoding, blocks)  # an unknown one is refused before anything is made
        told = {
            "identity": identity,
            "run": run.digest,
            "encoding": plan.encoding,
            "count": len(run.corpus),
            "shards": _count(run, plan),
            "blocks": [[b.name, b.start, b.stop, list(b.shape)] for b in blocks],
        }
        write_atomic(place / "claim.json", json.dumps(told, sort_keys=True).encode())


def _claimed(place: Path) -> dict[str, Any]:
    try:
        return json.loads((place / "claim.json").read_text())
    except (OSError, ValueError) as error:
        raise PoaError(f"{place} holds no store: {error}") from error


def _finished(place: Path, number: int, identity: str) -> bool:
    manifest = _path(place, number) / MANIFEST
    if not manifest.is_file():
        return False
    try:
        return bool(json.loads(manifest.read_text())["identity"] == identity)
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{manifest} is not a shard's manifest; delete {manifest.parent.name}: {error}") from error


def _shard(run: TrainingRun, place: Path, plan: Plan, identity: str, number: int, capture: Capture) -> None:
    records = list(run.corpus)[number * plan.rows : (number + 1) * plan.rows]
    features = _features(records, plan, capture)
    blocks = capture.blocks if plan.projection is None else plan.projection.layout(capture.blocks)
    with atomic_folder(_path(place, number)) as work:
        files: dict[str, str] = {}
        for name, array in encoding(plan.encoding, blocks).encode(features).items():
            np.save(work / f"{name}.npy", array)
            files[f"{name}.npy"] = file_digest(work / f"{name}.npy")
        (work / MANIFEST).write_text(json.dumps({"identity": identity, "files": files}, sort_keys=True))


def _features(records: Sequence[Record], plan: Plan, capture: Capture) -> npt.NDArray[np.float32]:
    """[n, k] float32 features of some records; a shard's bytes depend on its own records alone."""
    weight = next(capture.model.parameters())
    drawn = None if plan.projection is None else plan.projection.prepared(capture.blocks, weight.dtype)
    prepared = placed(drawn, weight.device)
    sizes = [len(record.features) or len(record.prompt) + len(record.text) for record in records]
    order = np.argsort(sizes, kind="stable") if plan.fast else np.arange(len(records))
    out: npt.NDArray[np.float32] | None = None
    step = 4 if plan.fast else 1
    for start in range(0, len(records), step):
        places = order[start : start + step]
        captured = capture.factors([records[i] for i in places], plan.side)
        rows = captured.rows() if prepared is None else prepared.features(captured)
        if out is None:
            out = np.zeros((len(records), rows.shape[1]), np.float32)
        out[places] = rows.float().cpu().numpy()
    assert out is not None
    return out
