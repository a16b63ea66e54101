"""Names and options become corpora; errors name what is wrong."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from poa.datanets.sources import SOURCES, datanet
from poa.errors import CorpusError, PoaError
from poa.records import Corpus, Record

ROOT = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("POA_SHARED", ROOT.parent / "shared"))


def test_unknown_names_and_options() -> None:
    with pytest.raises(PoaError, match="did you mean 'medquad'"):
        datanet("medqaud")
    with pytest.raises(PoaError, match="no option 'paht'; it knows path"):
        datanet("jsonl", paht="x")
    with pytest.raises(PoaError, match="needs the option 'path'"):
        datanet("medquad")
    with pytest.raises(CorpusError, match="does not exist"):
        datanet("medquad", path="nowhere/medquad.jsonl.gz")


def test_medquad_fields(tmp_path: Path) -> None:
    rows = [
        {"id": "1-1", "source": "GARD", "question": "What is A?", "answer": "A is one."},
        {"id": "1-1", "source": "GARD", "question": "What is A?", "answer": "A is one."},
        {"id": "1-2", "source": "CDC", "question": "What is B?", "answer": "B is two."},
    ]
    path = tmp_path / "medquad.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    corpus = datanet("medquad", path=path)
    assert len(set(corpus.ids)) == 3
    assert [(row.prompt, row.text, row.contributor, row.datanet, row.licence, row.registered) for row in corpus] == [
        (row["question"], row["answer"], row["source"], "medquad", "CC-BY-4.0", place) for place, row in enumerate(rows)
    ]
    path.write_bytes(gzip.compress(b'{"question": "a", "answer": "b"}'))
    with pytest.raises(CorpusError, match=r"medquad.jsonl.gz:1: no column 'source' \(mapped to contributor\)"):
        datanet("medquad", path=path)


def test_the_real_medquad() -> None:
    path = SHARED / "data" / "medquad.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"MedQuAD is not at {path}")
    corpus = datanet("medquad", path=path)
    assert len(corpus) == 16407
    counts = {source: corpus.contributors.count(source) for source in set(corpus.contributors)}
    assert counts["GHR"] == 5430
    assert counts["CDC"] == 270
    assert len(counts) == 9


def test_files_and_default_datanet(tmp_path: Path) -> None:
    corpus = Corpus([Record("a", "one"), Record("b", "two", datanet="own")])
    corpus.to_jsonl(tmp_path / "x.jsonl")
    corpus.to_csv(tmp_path / "x.csv")
    corpus.to_parquet(tmp_path / "x.parquet")
    for kind in ("jsonl", "csv", "parquet"):
        assert datanet(kind, path=tmp_path / f"x.{kind}") == corpus
        assert datanet(kind, path=tmp_path / f"x.{kind}", name_as="net").datanets == ("net", "own")
    swapped = datanet("jsonl", path=tmp_path / "x.jsonl", columns={"text": "id"})
    assert [row.text for row in swapped] == ["a", "b"]
    with pytest.raises(CorpusError, match="columns maps 'text' to 3"):
        datanet("jsonl", path=tmp_path / "x.jsonl", columns={"text": 3})


def test_every_configuration_names_a_source_and_its_options() -> None:
    import inspect

    from omegaconf import OmegaConf

    seen = set()
    for path in sorted((ROOT / "conf" / "datanet").glob("*.yaml")):
        config = OmegaConf.load(path)
        assert config["_target_"] == "poa.datanets.sources.datanet"
        options = {str(key) for key in config} - {"_target_", "_convert_", "name"}
        assert options <= set(inspect.signature(SOURCES[config["name"]]).parameters)
        seen.add(config["name"])
    assert seen >= {"installed-docs", "medquad", "jsonl", "hub"}
