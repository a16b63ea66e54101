"""The built-in datanets: prose from the docstrings of installed packages, read from source and never imported."""

from __future__ import annotations

import ast
import platform
import sysconfig
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata, version
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from poa.datanets.prose import LONGEST, SHORTEST, passages
from poa.digests import plain_digest
from poa.errors import CorpusError
from poa.files import cache_home, write_atomic
from poa.progress import track
from poa.records import Corpus, Record

EXTRACTOR = "2"  # part of every cache key: raise it when the same sources would give other prose
DATANETS = ("numpy", "scipy", "scikit-learn", "networkx")
_MODULES = {"scikit-learn": "sklearn"}
# Read for pretraining only. None of them is a datanet, so that a base model has seen English about software but no
# contributed record. torch._numpy and torch._refs repeat NumPy's own sentences and are left out.
_GENERAL = ("torch", "sympy", "pandas", "matplotlib", "captum", "huggingface-hub")
_GENERAL_SKIPPED = ("torch/_numpy/", "torch/_refs/", "torch/_vendor/")
_UNREAD_FOLDERS = frozenset(
    ("tests", "test", "testing", "site-packages", "externals", "_vendor", "lib2to3", "__pycache__")
)
_GENERAL_LONGEST = 4000

Columns = dict[str, list[str]]


def installed_docs(packages: Sequence[str] = DATANETS) -> Corpus:
    """One record per passage of docstring prose (200 to 900 characters) of the named distributions.

    datanet = distribution, contributor = sub-package (`scipy.stats`; files at the top belong to the package itself),
    licence from the distribution's metadata, id = `module.object:passage`, registered = position in sorted path
    order. Contributors are a simulation: nobody registered these texts. Kept in the cache per package versions.
    Raises `CorpusError` for a package that is not installed.
    """
    names = tuple(packages)
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            raise CorpusError(f"package {name!r} is not installed; install it or leave it out of `packages`") from None
    key = _cache_key("installed", names, versions, LONGEST)
    columns = _cached(f"installed-docs-{key[:16]}.parquet", lambda: _record_columns(names))
    rows = zip(*columns.values(), strict=True)
    return Corpus(
        Record(name, text, contributor=contributor, datanet=datanet, licence=licence, registered=position)
        for position, (name, text, contributor, datanet, licence) in enumerate(rows)
    )


def general_docs() -> list[str]:
    """Longer prose texts (200 to 4,000 characters) of the standard library and other installed packages, for
    pretraining; exact repetitions removed, order fixed. What is not installed is skipped."""
    versions = {name: found for name in _GENERAL if (found := _version(name)) is not None}
    key = _cache_key("general", tuple(versions), versions, _GENERAL_LONGEST)
    return _cached(f"general-docs-{key[:16]}.parquet", lambda: {"text": _general_texts(tuple(versions))})["text"]


def general_docs_digest() -> str:
    """SHA-256 of the texts of `general_docs`: equal digests are equal pretraining corpora."""
    return plain_digest(general_docs())


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cache_key(kind: str, names: tuple[str, ...], versions: dict[str, str], longest: int) -> str:
    return plain_digest([kind, EXTRACTOR, platform.python_version(), names, versions, longest])


def _cached(name: str, make: Callable[[], Columns]) -> Columns:
    """String columns from the cache; a file whose bytes lost their promised digest is made anew."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = cache_home() / "docs" / name
    if path.is_file() and (kept := _promised(path)) is not None:
        return kept
    columns = make()
    table = pa.table(columns).replace_schema_metadata({"poa.digest": plain_digest(columns)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())
    return columns


def _promised(path: Path) -> Columns | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError):
        return None
    columns: Columns = table.to_pydict()
    promise = (table.schema.metadata or {}).get(b"poa.digest", b"").decode()
    return columns if promise == plain_digest(columns) else None


def _record_columns(distributions: tuple[str, ...]) -> Columns:
    columns: Columns = {name: [] for name in ("id", "text", "contributor", "datanet", "licence")}
    for distribution in distributions:
        root = _package_folder(_MODULES.get(distribution, distribution.replace("-", "_")))
        licence = _licence(distribution)
        seen: Counter[str] = Counter()
        for path in track(_sources(root), f"read {distribution}"):
            parts = path.relative_to(root.parent).with_suffix("").parts
            contributor = ".".join(parts[: 2 if len(parts) > 2 else 1])
            module = ".".join(parts).removesuffix(".__init__")
            for owner, literal in docstrings(path.read_bytes()):
                name = f"{module}.{owner}".rstrip(".")[:180]
                for text in passages(literal):
                    seen[name] += 1
                    row = (f"{name}:{seen[name]}", text, contributor, distribution, licence)
                    for column, value in zip(columns.values(), row, strict=True):
                        column.append(value)
    return columns


def _general_texts(distributions: tuple[str, ...]) -> list[str]:
    roots = [Path(sysconfig.get_paths()["stdlib"])]
    roots += [_package_folder(_MODULES.get(name, name.replace("-", "_"))) for name in distributions]
    texts: dict[str, None] = {}
    paths = [path for root in roots for path in _sources(root)]
    for path in track(paths, "read installed documentation"):
        if not any(part in path.as_posix() for part in _GENERAL_SKIPPED):
            for _, literal in docstrings(path.read_bytes()):
                texts.update(dict.fromkeys(passages(literal, _GENERAL_LONGEST)))
    return list(texts)


def docstrings(source: bytes) -> Iterator[tuple[str, str]]:
    """(qualified name of the enclosing definition, literal) of every docstring-like literal of a Python file.

    Docstrings, and any other plain literal of several lines and 200 characters or more: NumPy, SciPy and torch hand
    much of their documentation to helper functions. A file that is not valid Python gives nothing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's files are not ours to report
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            return
    yield from _literals(tree, "")


def _literals(node: ast.AST, owner: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if getattr(child, "lineno", 0) == getattr(child, "end_lineno", None):
            continue  # a literal of several lines is never inside a node of one line
        if isinstance(child, ast.Constant):
            if isinstance(child.value, str) and len(child.value) >= SHORTEST and "\n" in child.value:
                yield owner, child.value
        elif isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _literals(child, f"{owner}.{child.name}".lstrip("."))
        elif not isinstance(child, ast.JoinedStr | ast.operator | ast.expr_context):
            yield from _literals(child, owner)


def _package_folder(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise CorpusError(f"package {module!r} has no source folder to read")
    return Path(spec.origin).parent


def _sources(root: Path) -> list[Path]:
    """Python files below `root` without tests and vendored copies, in sorted order of their relative paths."""
    found = [path for path in root.rglob("*.py") if not _UNREAD_FOLDERS.intersection(path.relative_to(root).parts)]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _licence(distribution: str) -> str:
    """SPDX name of the distribution's own licence; terms after AND are those of code that it bundles."""
    about: Message = cast("Message", metadata(distribution))
    text = str(about.get("License-Expression") or about.get("License") or "")
    if text and len(text) <= 80 and "\n" not in text:
        return text.split(" AND ")[0]
    if "BSD" in text or any("BSD" in line for line in about.get_all("Classifier") or []):
        return "BSD-3-Clause"
    return "unknown"
