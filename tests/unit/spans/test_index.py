"""SpanIndex: layout in time, refusals, the folder on disk and what happens to it when a byte changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poa.digests import plain_digest
from poa.errors import Corrupt, Mismatch, PoaError
from poa.spans import Document, SpanIndex, trace
from poa.spans.index import SCHEMA
from poa.spans.stored import load_arrays, save_arrays

NAMES = ("text", "offsets", "registered", "owner_of", "owners", "owner_ends")
NAMES += ("record_ids", "record_id_ends", "suffixes", "minima")
DOCUMENTS = [
    Document("later", "zoë", 7, [1, 2, 3, 4, 1, 2]),
    Document("first", "ann", 2, [3, 4, 1, 2, 0, 0]),
    Document("empty", "ann", 5, []),
]


@pytest.fixture
def index() -> SpanIndex:
    return SpanIndex.build(DOCUMENTS, 5, "tokenizer", "run")


def names(index: SpanIndex) -> list[str]:
    return [index.record_ids[i] for i in range(len(index))]


def test_documents_lie_in_order_of_registration(index: SpanIndex) -> None:
    sep = 0xFFFF
    assert index.text.tolist() == [sep, 3, 4, 1, 2, 0, 0, sep, sep, 1, 2, 3, 4, 1, 2]
    assert names(index) == ["first", "empty", "later"]
    assert [index.owner(i) for i in range(3)] == ["ann", "ann", "zoë"]
    assert index.registered.tolist() == [2, 5, 7]
    assert index.tokens(2).tolist() == [1, 2, 3, 4, 1, 2]
    assert index.document_of(np.arange(15)).tolist() == [0] * 7 + [1] + [2] * 7


def test_equal_times_are_ordered_by_content_digest_whatever_the_order_given() -> None:
    same = [Document("a", "x", 3, [1], "ff"), Document("b", "y", 3, [2], "00"), Document("c", "z", 3, [1], "ff")]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        assert names(SpanIndex.build([same[i] for i in order], 5, "t", "r")) == ["b", "a", "c"]


def test_without_a_digest_the_tokens_decide() -> None:
    plain = [("a", "x", 3, [1, 2]), ("b", "y", 3, [2, 1]), ("c", "z", 3, [0])]
    assert names(SpanIndex.build(plain, 5, "t", "r")) == names(SpanIndex.build(plain[::-1], 5, "t", "r"))


@pytest.mark.parametrize(("vocabulary", "kind"), [(1, np.uint16), (65_535, np.uint16), (65_536, np.uint32)])
def test_the_token_type_keeps_the_separator_free(vocabulary: int, kind: type, tmp_path: Path) -> None:
    largest = vocabulary - 1
    index = SpanIndex.build([("a", "x", 1, [largest, 0, largest]), ("b", "y", 2, [0, largest])], vocabulary, "t", "r")
    assert index.text.dtype == kind
    assert index.separator == np.iinfo(kind).max
    assert index.tokens(0).tolist() == [largest, 0, largest]
    first = trace(index, [0, largest, largest])[0]
    assert (first.start, first.end) == (0, 3 if vocabulary == 1 else 2)
    index.save(tmp_path / "index")
    assert SpanIndex.load(tmp_path / "index").digest == index.digest
    if kind is np.uint16:
        with pytest.raises(PoaError, match=r"output: token 65535 at position 1 is the separator"):
            trace(index, [0, 65_535])


def test_an_index_of_nothing(tmp_path: Path) -> None:
    for documents in ([], [("a", "x", 1, [])]):
        index = SpanIndex.build(documents, 5, "t", "r")
        index.save(tmp_path / "index")
        assert trace(SpanIndex.load(tmp_path / "index"), [1, 2]) == trace(index, []) == ()


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (
            [("a", "x", 1, [1, 5])],
            r"record 'a': token 5 at position 1 is outside the vocabulary of 5; ids must be 0 to 4",
        ),
        ([("a", "x", 1, [-1])], r"record 'a': token -1 at position 0 is outside"),
        ([("a", "x", 1, [0, 65_535])], r"record 'a': token 65535 at position 1 is the separator"),
        ([("a", "x", 1, [0.5])], r"record 'a': tokens must be a flat sequence of integers, not float64"),
        ([("a", "x", 1, [[1, 2]])], r"record 'a': tokens must be a flat sequence"),
        ([("a", "x", 1, [True])], r"record 'a': tokens must be a flat sequence of integers, not bool"),
        ([("a", "x", 1, [2**70])], r"record 'a': tokens must be a flat sequence"),
        ([("a", "x", 2**63, [1])], r"record 'a': registered is 9223372036854775808"),
        ([("a", "x", 1, [1]), ("a", "y", 2, [2])], r"record 'a' occurs more than once"),
        ([("a\ud800", "x", 1, [1])], r"is not valid UTF-8"),
    ],
)
def test_bad_documents_are_refused_by_name(documents: Any, message: str) -> None:
    with pytest.raises(PoaError, match=message):
        SpanIndex.build(documents, 5, "t", "r")


@pytest.mark.parametrize("vocabulary", [0, -1, (1 << 24) + 1])
def test_a_vocabulary_has_a_size(vocabulary: int) -> None:
    with pytest.raises(PoaError, match="vocab_size"):
        SpanIndex.build([], vocabulary, "t", "r")


def test_saved_and_loaded_it_is_the_same(index: SpanIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "deep" / "index")
    for check in (True, False):
        again = SpanIndex.load(tmp_path / "deep" / "index", check=check)
        assert again.digest == index.digest
        assert repr(again) == repr(index)
        assert "3 documents, 2 owners, 12 tokens" in repr(index)
        for name in ("text", "suffixes", "minima", "offsets", "registered", "owner_of"):
            array = getattr(again, name)
            assert array.dtype == getattr(index, name).dtype
            assert np.array_equal(array, getattr(index, name))
            assert not array.flags.writeable
        for query in ([1, 2, 3], [4, 1, 2, 0], [0, 0, 0, 0]):
            assert trace(again, query) == trace(index, query)
    index.save(tmp_path / "deep" / "index")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["index"]


def test_the_digest_names_everything_that_answers(index: SpanIndex) -> None:
    def other(documents: list[Document], *rest: Any) -> str:
        return SpanIndex.build(documents, *rest).digest

    same = other(DOCUMENTS[::-1], 5, "tokenizer", "run")
    assert same == index.digest
    first, *others = DOCUMENTS
    different = [
        other([first._replace(owner="eve"), *others], 5, "tokenizer", "run"),
        other([first._replace(record_id="later2"), *others], 5, "tokenizer", "run"),
        other([first._replace(registered=8), *others], 5, "tokenizer", "run"),
        other([first._replace(tokens=[1]), *others], 5, "tokenizer", "run"),
        other(DOCUMENTS, 6, "tokenizer", "run"),
        other(DOCUMENTS, 5, "tokenizer2", "run"),
        other(DOCUMENTS, 5, "tokenizer", "run2"),
    ]
    assert len({same, *different}) == 8


@pytest.mark.parametrize("name", [f"{name}.npy" for name in NAMES] + ["manifest.json"])
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_one_changed_byte_is_noticed_and_named(index: SpanIndex, tmp_path: Path, name: str, where: float) -> None:
    index.save(tmp_path / "index")
    path = tmp_path / "index" / name
    data = bytearray(path.read_bytes())
    at = int(where * (len(data) - 1))
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises((Corrupt, Mismatch), match=name.replace(".", r"\.")):
        SpanIndex.load(tmp_path / "index")


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_missing_and_cut_files_are_noticed_even_unchecked(
    index: SpanIndex, tmp_path: Path, name: str, check: bool
) -> None:
    index.save(tmp_path / "index")
    path = tmp_path / "index" / f"{name}.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(Corrupt, match=rf"{name}\.npy has {len(whole) - 1} bytes"):
        SpanIndex.load(tmp_path / "index", check=check)
    path.unlink()
    with pytest.raises(Corrupt, match=rf"{name}\.npy is missing"):
        SpanIndex.load(tmp_path / "index", check=check)


BAD: dict[str, list[Any]] = {
    "text": [lambda a: np.where(a == 1, 0xFFFF, a).astype(a.dtype), lambda a: np.where(a == 1, 9, a).astype(a.dtype)],
    "suffixes": [
        lambda a: a[::-1].copy(),
        lambda a: np.where(a == 3, 99, a).astype(a.dtype),
        lambda a: np.where(a == 3, -1, a).astype(a.dtype),
        lambda a: np.where(a == 3, 4, a).astype(a.dtype),
        lambda a: a[:-1],
        lambda a: a.astype(np.int64),
    ],
    "minima": [lambda a: a + 1, lambda a: a[:0]],
    "offsets": [lambda a: a[::-1].copy(), lambda a: a + 1, lambda a: a[1:], lambda a: a.astype(np.int32)],
    "registered": [lambda a: a[::-1].copy(), lambda a: a[1:]],
    "owner_of": [lambda a: a + 1, lambda a: a - 1],
    "owner_ends": [lambda a: a + 1, lambda a: a[::-1].copy()],
    "record_id_ends": [lambda a: a[:-1], lambda a: a * 2],
    "owners": [lambda a: np.where(a > 127, 0xFF, a).astype(a.dtype)],
}


@pytest.mark.parametrize(("name", "change"), [(name, change) for name, some in BAD.items() for change in some])
def test_a_forged_folder_with_right_digests_cannot_lead_outside_the_text(
    index: SpanIndex, tmp_path: Path, name: str, change: Any
) -> None:
    index.save(tmp_path / "index")
    arrays, note = load_arrays(tmp_path / "index", SCHEMA, NAMES, check=True)
    save_arrays(tmp_path / "forged", SCHEMA, arrays | {name: change(arrays[name])}, note)
    said = {"owners": "owner_ends"}.get(name, name)
    with pytest.raises(Corrupt, match=rf"{said}\.npy"):
        SpanIndex.load(tmp_path / "forged")


@pytest.mark.parametrize("note", [{}, {"vocab_size": "5", "tokenizer_digest": "", "run_digest": ""}])
def test_a_forged_note_is_refused(index: SpanIndex, tmp_path: Path, note: dict[str, object]) -> None:
    index.save(tmp_path / "index")
    arrays, _ = load_arrays(tmp_path / "index", SCHEMA, NAMES, check=True)
    save_arrays(tmp_path / "forged", SCHEMA, arrays, note)
    with pytest.raises(Corrupt, match=r"manifest\.json: its note must give vocab_size"):
        SpanIndex.load(tmp_path / "forged")


def test_pickled_arrays_are_never_read(index: SpanIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    path = tmp_path / "index" / "text.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    manifest.pop("root")
    manifest["files"]["text.npy"] |= {"bytes": path.stat().st_size}
    (tmp_path / "index" / "manifest.json").write_text(json.dumps(manifest | {"root": plain_digest(manifest)}))
    with pytest.raises(Corrupt, match=r"text\.npy is no readable \.npy file"):
        SpanIndex.load(tmp_path / "index", check=False)


def test_folders_that_are_no_index(index: SpanIndex, tmp_path: Path) -> None:
    with pytest.raises(PoaError, match=r"is no poa\.spans/1 folder: cannot read manifest\.json"):
        SpanIndex.load(tmp_path)
    save_arrays(tmp_path / "other", "something/1", {}, {})
    with pytest.raises(Mismatch, match=r"holds 'something/1', not 'poa\.spans/1'"):
        SpanIndex.load(tmp_path / "other")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("text")
    for target in ("home", "other", "file"):
        with pytest.raises(PoaError, match=r"exists and is no poa\.spans/1 folder"):
            index.save(tmp_path / target)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"
    (tmp_path / "new").mkdir()
    index.save(tmp_path / "new")
    assert SpanIndex.load(tmp_path / "new").digest == index.digest
