"""Corpora on disk: exact round trips, and files that are refused whole with the place of every fault."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa import tables
from poa.errors import CorpusError, MissingExtra, PoaError
from poa.records import Corpus, Record

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
RECORDS = st.builds(
    Record,
    id=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,9}\Z"),
    text=TEXT.map(lambda text: f"{text}."),
    prompt=TEXT,
    contributor=TEXT,
    datanet=TEXT,
    licence=TEXT,
    registered=st.integers(0, 2**63 - 1),
    features=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(tuple),
    label=st.integers(-(2**63), 2**63 - 1),
)
CORPORA = st.lists(RECORDS, min_size=1, max_size=5, unique_by=lambda row: row.id).map(Corpus)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.csv", "x.parquet"])
def test_round_trip(name: str) -> None:
    kind = name.split(".")[1]

    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(CORPORA)
    def law(corpus: Corpus) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            getattr(corpus, f"to_{kind}")(path)
            assert getattr(Corpus, f"from_{kind}")(path) == corpus
            assert os.listdir(folder) == [name]

    law()


def test_equal_corpora_give_equal_bytes(tmp_path: Path) -> None:
    corpus = Corpus.from_texts(["a", "b"])
    for name in ("x.jsonl.gz", "x.parquet"):
        corpus_bytes = []
        for copy in ("1", "2"):
            getattr(corpus, f"to_{name.split('.')[1]}")(tmp_path / copy / name)
            corpus_bytes.append((tmp_path / copy / name).read_bytes())
        assert corpus_bytes[0] == corpus_bytes[1]


@pytest.mark.filterwarnings("default")  # the datasets library's own deprecations are not ours
def test_dataset_folder_and_hub_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the hub extra is not installed")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    corpus = Corpus([Record("a", "täxt", "p", "c", "d", "l", 5, (1.5, -2.0), 7), Record("b", "two")])
    corpus.to_dataset_folder(tmp_path / "saved")
    assert Corpus.from_dataset_folder(tmp_path / "saved") == corpus
    with pytest.raises(CorpusError, match="is no dataset folder"):
        Corpus.from_dataset_folder(tmp_path)
    hub = tmp_path / "hub"
    corpus.to_parquet(hub / "data" / "train-00000-of-00001.parquet")
    assert Corpus.from_hub(str(hub)) == corpus
    assert [row.text for row in Corpus.from_hub(str(hub), text="id")] == ["a", "b"]
    with pytest.raises(CorpusError, match="could not be loaded"):
        Corpus.from_hub(str(hub), split="test")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    tmp_path.joinpath("x").mkdir()
    for act in (
        lambda: Corpus.from_hub("name"),
        lambda: Corpus.from_dataset_folder(tmp_path / "x"),
        lambda: Corpus.from_texts(["a"]).to_dataset_folder(tmp_path / "y"),
    ):
        with pytest.raises(MissingExtra, match=r"pip install 'poa\[hub\]'"):
            act()


def refused(read: Callable[..., Corpus], path: Path, reason: str, **columns: str) -> None:
    with pytest.raises(CorpusError) as caught:
        read(path, **columns)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "x.jsonl holds no records"),
        (b"\n \n", "x.jsonl holds no records"),
        (b'{"id": "a", "text": "t"}\n{"id": ', "x.jsonl:2: not valid JSON"),
        (b"[1, 2]\n", "x.jsonl:1: expected a JSON object, found list"),
        (b'{"text": 5}', "x.jsonl:1: text is 5, expected a string"),
        (b'{"text": "t", "label": true}', "x.jsonl:1: label is True, expected an integer"),
        (b'{"text": "t", "label": 1.0}', "x.jsonl:1: label is 1.0, expected an integer"),
        (b'{"features": [1, "x"]}', "x.jsonl:1: features is [1, 'x'], expected a list of numbers"),
        (b'{"features": [NaN]}', "x.jsonl:1: features contain NaN or infinity"),
        (b'{"features": [1' + b"0" * 400 + b"]}", "x.jsonl:1: features contain a number too large"),
        (b'{"text": "a", "text": "b"}', "x.jsonl:1: not valid JSON: key 'text' appears twice"),
        (b'{"id": "a", "text": "t"}\n\n{"id": "a", "text": "u"}', "x.jsonl:3: id 'a' was already used at"),
        (b'{"text": "\\ud800"}', "x.jsonl:1: text is not valid UTF-8"),
        (b'{"text": "\xff"}', "x.jsonl is not UTF-8: byte 10"),
        (b'{"body": "t"}', "x.jsonl:1: no column 'text' (map one with text=...); there are body"),
        (b'{"text": ""}', "x.jsonl:1: text is empty"),
        (b'{"text": "t", "registered": 9223372036854775808}', "x.jsonl:1: registered is 9223372036854775808"),
        (b"[" * 100_000, "x.jsonl:1: not valid JSON"),
    ],
)
def test_bad_jsonl(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    refused(Corpus.from_jsonl, tmp_path / "x.jsonl", reason)


def test_many_bad_rows_are_counted_and_nothing_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(['{"text": "good"}'] + ['{"text": ""}'] * 20))
    refused(Corpus.from_jsonl, tmp_path / "x.jsonl", "x.jsonl:9: text is empty (and 12 more)")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "x.csv holds no records"),
        (b"id,text\n", "x.csv holds no records"),
        (b"id,text\na,b,c\n", "x.csv:2: expected 2 columns"),
        (b'id,text\na,"two\nlines"\nb\n', "x.csv:4: expected 2 columns"),
        (b"text,label\nt,x\n", "x.csv:2: label is 'x', expected an integer"),
        (b"text,label\nt,1_0\n", "x.csv:2: label is '1_0', expected an integer"),
        (b"features\n1 2\n", "x.csv:2: features is '1 2', expected a JSON list"),
        (b"id,text,text\na,b,c\n", "x.csv:1: column 'text' appears twice"),
        (b'id,text\na,"open\n', "x.csv:2: not valid CSV"),
        (b"id,text\na,b\na,c\n", "x.csv:3: id 'a' was already used at"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    refused(Corpus.from_csv, tmp_path / "x.csv", reason)


def test_csv_columns_numbers_bom_and_long_cells(tmp_path: Path) -> None:
    long = "word " * 40_000
    (tmp_path / "x.csv").write_text(f"\ufeffbody,y,when\n{long},3,\nb,,4\n", encoding="utf-8")
    corpus = Corpus.from_csv(tmp_path / "x.csv", text="body", label="y", registered="when")
    assert [(row.text, row.label, row.registered) for row in corpus] == [(long, 3, 0), ("b", -1, 4)]
    refused(Corpus.from_csv, tmp_path / "x.csv", "x.csv:2: no column 'z' (mapped to label)", text="body", label="z")


def test_bad_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    refused(Corpus.from_parquet, path, "does not exist")
    path.write_bytes(b"PAR1 nonsense")
    refused(Corpus.from_parquet, path, "is not a readable parquet file")
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"]}), path)
    refused(Corpus.from_parquet, path, "row 1: id is 1, expected a string")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    refused(Corpus.from_parquet, path, "holds no records")
    pq.write_table(pa.table({"text": ["a", None]}), path)
    refused(Corpus.from_parquet, path, "row 2: text is empty")


def test_columns(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"q": "why", "a": "because", "id": "r"}\n')
    assert Corpus.from_jsonl(path, text="a", prompt="q") == Corpus([Record("r", "because", "why")])
    named = Corpus.from_jsonl(path, text="a", prompt="q", id="")
    assert named.ids == Corpus.from_texts(["because"], prompt="why").ids
    refused(Corpus.from_jsonl, path, "no field 'contributer'; did you mean 'contributor'?", contributer="q")
    refused(
        Corpus.from_jsonl, path, "x.jsonl:1: no column 'answer' (mapped to text); there are q, a, id", text="answer"
    )


def test_ids_from_content(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in "xyx"))
    assert Corpus.from_jsonl(tmp_path / "x.jsonl").ids == Corpus.from_texts("xyx").ids


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    refused(Corpus.from_jsonl, tmp_path / "none.jsonl", "none.jsonl does not exist")
    refused(Corpus.from_jsonl, tmp_path, "is a folder")
    whole = gzip.compress(b'{"text": "' + os.urandom(400).hex().encode() + b'"}')
    path = tmp_path / "x.jsonl.gz"
    for damaged in (whole[:-30], b"not gzip", whole[:40] + bytes(60) + whole[100:]):
        path.write_bytes(damaged)
        refused(Corpus.from_jsonl, path, "cannot be read")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "x.jsonl"
    target.mkdir()
    with pytest.raises(PoaError, match="cannot write"):
        Corpus.from_texts(["a"]).to_jsonl(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.jsonl"]
