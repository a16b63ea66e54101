"""The built-in datanets: determinism, fields, cache; on one small package, to be quick."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from poa.datanets import installed_docs as module
from poa.datanets.installed_docs import general_docs, general_docs_digest, installed_docs
from poa.errors import CorpusError
from poa.files import cache_home


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POA_CACHE", str(tmp_path))
    return tmp_path


def test_records_of_one_package_and_a_cache_that_is_not_believed_when_changed(fresh: Path) -> None:
    corpus = installed_docs(("networkx",))
    assert len(corpus) > 1000
    assert sum(len(record.text) for record in corpus) > 500_000
    assert {record.datanet for record in corpus} == {"networkx"}
    assert {record.licence for record in corpus} == {"BSD-3-Clause"}
    assert {"networkx.algorithms", "networkx.classes"} <= set(corpus.contributors)
    assert [record.registered for record in corpus] == list(range(len(corpus)))
    assert all(200 <= len(record.text) <= 900 for record in corpus)
    assert all(record.text == " ".join(record.text.split()) for record in corpus)
    assert not any(">>>" in record.text for record in corpus)
    files = list((fresh / "docs").iterdir())
    assert len(files) == 1
    before = files[0].stat().st_mtime_ns
    assert installed_docs(("networkx",)) == corpus
    assert files[0].stat().st_mtime_ns == before
    files[0].write_bytes(files[0].read_bytes()[:-50])
    assert installed_docs(("networkx",)) == corpus
    assert files[0].stat().st_mtime_ns != before
    pq.write_table(pq.read_table(files[0]).slice(1), files[0])
    assert installed_docs(("networkx",)) == corpus


def test_unknown_package() -> None:
    with pytest.raises(CorpusError, match="'no-such-package' is not installed"):
        installed_docs(("no-such-package",))


def test_general_docs_exclude_the_datanets(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GENERAL", ("captum", "absent-package"))
    monkeypatch.setattr(
        module.sysconfig, "get_paths", lambda: {"stdlib": str(Path(module.ast.__file__).parent / "json")}
    )
    texts = general_docs()
    assert len(texts) == len(set(texts)) > 50
    assert all(200 <= len(text) <= 4000 for text in texts)
    assert any("JSON" in text for text in texts)
    assert general_docs() == texts
    assert len(general_docs_digest()) == 64
    assert not {"numpy", "scipy", "scikit-learn", "networkx"} & set(module._GENERAL)
    assert cache_home() == fresh
