"""Arrays in a folder: one .npy file each and a manifest, written last, that promises every file's digest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from poa.digests import file_digest, plain_digest
from poa.errors import Corrupt, Mismatch, PoaError
from poa.files import atomic_folder

Array = npt.NDArray[Any]
MANIFEST = "manifest.json"


def save_arrays(folder: Path, schema: str, arrays: Mapping[str, Array], note: Mapping[str, object]) -> None:
    """Write `arrays` and the plain data `note` to `folder` in one step.

    A folder that exists is replaced only if it is empty or holds the same schema; anything else is somebody's data and
    raises `PoaError`.
    """
    if folder.exists() and not _replaceable(folder, schema):
        raise PoaError(f"{folder} exists and is no {schema} folder; choose a new path")
    with atomic_folder(folder) as work:
        files: dict[str, object] = {}
        for name, array in sorted(arrays.items()):
            path = work / f"{name}.npy"
            np.save(path, array, allow_pickle=False)
            files[path.name] = {
                "sha256": file_digest(path),
                "bytes": path.stat().st_size,
                "dtype": array.dtype.name,
                "shape": list(array.shape),
            }
        body = {"schema": schema, "files": files, "note": dict(note)}
        (work / MANIFEST).write_text(json.dumps(body | {"root": plain_digest(body)}, indent=1, sort_keys=True))


def load_arrays(
    folder: Path, schema: str, names: Iterable[str], check: bool
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Memory-mapped, read-only arrays and the note that `save_arrays` wrote.

    Raises `PoaError` where there is no such folder, `Mismatch` for another schema, and `Corrupt`, naming the file, for
    a missing file, a wrong size, type or shape and (with `check`) a wrong digest.
    """
    body = _manifest(folder, schema)
    files = cast("dict[str, Any]", body["files"])
    wanted = {f"{name}.npy": name for name in names}
    if set(files) != set(wanted):
        raise Corrupt(f"{folder / MANIFEST} lists {sorted(files)}; a {schema} folder has {sorted(wanted)}")
    return {name: _array(folder / file, files[file], check) for file, name in wanted.items()}, body["note"]


def _manifest(folder: Path, schema: str) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        body: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise PoaError(f"{folder} is no {schema} folder: cannot read {MANIFEST} ({error.strerror})") from error
    except ValueError as error:
        raise Corrupt(f"{path} is not JSON: {error}") from error
    if not isinstance(body, dict) or "schema" not in body:
        raise Mismatch(f"{path} is not the manifest of a {schema} folder")
    found = cast("dict[str, Any]", body)
    if found["schema"] != schema:
        raise Mismatch(f"{folder} holds {found['schema']!r}, not {schema!r}")
    root = found.pop("root", None)
    if plain_digest(found) != root or not isinstance(found.get("files"), dict):
        raise Corrupt(f"{path} does not have the digest that it promises")
    return found


def _array(path: Path, promised: dict[str, Any], check: bool) -> Array:
    if not path.is_file():
        raise Corrupt(f"{path} is missing")
    if path.stat().st_size != promised["bytes"]:
        raise Corrupt(f"{path} has {path.stat().st_size} bytes; its manifest promises {promised['bytes']}")
    if check and file_digest(path) != promised["sha256"]:
        raise Corrupt(f"{path} does not have the digest that its manifest promises")
    try:
        array: Array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError as error:
        raise Corrupt(f"{path} is no readable .npy file: {error}") from error
    if array.dtype.name != promised["dtype"] or list(array.shape) != promised["shape"]:
        raise Corrupt(f"{path} holds {array.dtype.name}{list(array.shape)}; its manifest promises otherwise")
    return array


def _replaceable(folder: Path, schema: str) -> bool:
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        body: Any = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(body, dict) and cast("dict[str, Any]", body).get("schema") == schema
