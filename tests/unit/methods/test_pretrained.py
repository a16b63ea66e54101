"""Every index is a folder that can be handed on: the same bytes come back, through one door."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import poa
from poa import methods
from poa.conformance import digits_mlp, text_bigram
from poa.conformance.subjects import subject
from poa.conformance.views import isolated
from poa.errors import Corrupt, Mismatch, MissingExtra, PoaError, Unsupported
from poa.methods import BM25, GradDot, load_index


@pytest.mark.parametrize("name", methods.available())
@pytest.mark.parametrize("make", [digits_mlp, text_bigram], ids=lambda make: make.__name__)
def test_what_was_handed_on_gives_the_same_bytes(tmp_path: Path, name: str, make: Any) -> None:
    case = make()
    with isolated(case.run) as view:
        try:
            index: Any = subject(name).fit(view)
        except Unsupported as reason:
            pytest.skip(str(reason))
        expected = index.attribute(case.queries)
        for _ in range(2):  # a second time it replaces itself, card included
            index.save_pretrained(tmp_path / "index")
        for again in (type(index).from_pretrained(tmp_path / "index", view), load_index(tmp_path / "index", view)):
            assert type(again) is type(index)
            found = again.attribute(case.queries)
            assert found.values.tobytes() == expected.values.tobytes()
            assert (found.method, found.unit) == (expected.method, expected.unit)
    card = (tmp_path / "index" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: poa\n")
    assert f"on {len(case.run.corpus)} training records" in card
    assert index.run_digest in card


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    GradDot().fit(digits_mlp().run).save_pretrained(tmp_path / "index")
    return tmp_path / "index"


def test_the_public_door_is_this_one() -> None:
    assert poa.load_index is load_index


def test_another_run_another_kind_and_altered_bytes_are_refused(saved: Path) -> None:
    with pytest.raises(Mismatch, match="belongs to run"):
        load_index(saved, text_bigram().run)
    index_class: Any = type(BM25().fit(text_bigram().run))
    with pytest.raises(Mismatch, match="of kind 'linear', not 'bm25'"):
        index_class.from_pretrained(saved, digits_mlp().run)
    manifest = saved / "manifest.json"
    manifest.write_text(manifest.read_text().replace("linear", "square"))
    with pytest.raises(Corrupt, match="does not have the digest"):
        load_index(saved, digits_mlp().run)


def test_a_kind_that_nobody_announced_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from poa.indexes import save_index

    save_index(tmp_path / "index", "length", {"lengths": np.ones(2)}, {})
    run = digits_mlp().run
    with pytest.raises(Mismatch, match=r"of kind 'length', must be one of linear, .*spans"):
        load_index(tmp_path / "index", run)
    announced = EntryPoint("length", f"{__name__}:Lengths", "poa.indexes")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Lengths.__module__])
    monkeypatch.setattr(methods, "entry_points", lambda group: [announced] if group == "poa.indexes" else [])
    assert load_index(tmp_path / "index", run) == (tmp_path / "index", run)


class Lengths:
    """A kind of index that another package brings."""

    @staticmethod
    def load(folder: Path, run: Any) -> Any:
        return folder, run


def test_where_there_is_no_index(tmp_path: Path) -> None:
    run = digits_mlp().run
    with pytest.raises(PoaError, match="holds no index"):
        load_index(tmp_path, run)
    (tmp_path / "file").write_text("")
    for source in (tmp_path / "file", "nothing-here", "./no/where", "a/b/c"):
        with pytest.raises(PoaError, match=r"holds no index: it is neither a folder nor a hub name \(owner/name\)"):
            load_index(source, run)


def test_the_hub_is_asked_for_owner_and_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def deliver(name: str, **options: Any) -> str:
        asked.update({"name": name} | options)
        return str(saved)

    case = digits_mlp()
    with pytest.raises(PoaError, match="'owner/index' is no folder here and the hub did not deliver it"):
        load_index("owner/index", case.run)  # offline
    monkeypatch.setattr(huggingface_hub, "snapshot_download", deliver)
    values = load_index("owner/index", case.run, revision="main").attribute(case.queries).values
    assert values.tobytes() == load_index(saved, case.run).attribute(case.queries).values.tobytes()
    assert (asked["name"], asked["revision"]) == ("owner/index", "main")
    assert "*.pkl" in asked["ignore_patterns"]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"pip install 'poa\[hub\]'"):
        load_index("owner/index", case.run)


def test_the_manifest_says_what_it_is(saved: Path) -> None:
    body = json.loads((saved / "manifest.json").read_text())["body"]
    assert (body["schema"], body["kind"]) == ("poa.index/1", "linear")
