"""The page as a whole: one file, nothing loaded, everything named, the same every time."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from poa.report import render, write

VOID = {"meta", "input", "br", "wbr"}
HOSTILE = (
    """"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}"""
    "</style></title>--><!--`${x}`&amp;&#60;\u202e\x00"
)
TAME = re.sub(r"[<>\"'&=`\x00]", "x", HOSTILE)
METHODS = {"EK-FAC", "TRAK", "GradCos", "BM25", "RepSim", "Random"}


class Page(HTMLParser):
    """Tags with attributes, in order; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[tuple[str, str]] = []
        self.comments = 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"repeated attribute in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.words.append((self.open[-1], data))

    def handle_comment(self, data: str) -> None:
        self.comments += 1

    def every(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.tags for key, value in attributes.items() if key == name]

    def text(self, *, of: str = "") -> str:
        return " ".join(
            " ".join(data for tag, data in self.words if tag not in ("style", "script") and of in ("", tag)).split()
        )


def test_nothing_is_requested(document: dict[str, Any]) -> None:
    page = Page(render(document))
    loading = {
        "src",
        "srcset",
        "action",
        "formaction",
        "poster",
        "data",
        "xlink:href",
        "ping",
        "background",
        "manifest",
    }
    assert {name for _, attributes in page.tags for name in attributes} & loading == set()
    assert all(target.startswith("#") for target in page.every("href"))
    forbidden = {"link", "img", "iframe", "object", "embed", "base", "form", "audio", "video", "source", "image", "use"}
    assert {tag for tag, _ in page.tags} & forbidden == set()
    assert page.every("style") == []
    assert not re.search(r"https?://", render({}))


def test_the_policy_names_the_script_by_its_digest(document: dict[str, Any]) -> None:
    text = render(document)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    page = Page(text)
    (policy,) = (a["content"] or "" for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert f"script-src 'sha256-{digest}'" in policy
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_ids_are_unique_and_every_reference_resolves(document: dict[str, Any]) -> None:
    page = Page(render(document))
    ids = page.every("id")
    assert len(set(ids)) == len(ids)
    wanted = {target.removeprefix("#") for target in page.every("href")} | set(page.every("aria-labelledby"))
    assert wanted <= set(ids)


@pytest.mark.parametrize("full", [True, False])
def test_headings_descend_one_level_at_a_time(document: dict[str, Any], full: bool) -> None:
    page = Page(render(document if full else {}))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_drawing_is_named_or_hidden_with_its_number_beside_it(document: dict[str, Any]) -> None:
    page = Page(render(document))
    outer = [a for tag, a in page.tags if tag == "svg" and (a.get("width") == "100%" and "viewbox" not in a)]
    assert len(outer) > 50
    assert all(a.get("aria-hidden") == "true" or (a.get("role") == "img" and a.get("aria-label")) for a in outer)


def test_figures_have_captions_and_plots_have_tables(document: dict[str, Any]) -> None:
    text = render(document)
    for found in re.findall(r"<figure>.*?</figure>", text, re.S):
        assert "<figcaption>" in found
        if 'class="scatter"' in found or 'class="line"' in found or "bond" in found:
            assert re.search(r"<details class=\"numbers\">.*<table>", found, re.S)


def test_the_lede_carries_the_key_numbers(document: dict[str, Any]) -> None:
    document["shares"]["EK-FAC"] = {"scipy.stats": 3.0, "numpy.linalg": 1.0, "numpy.random": -2.0}
    text = render(document)
    (lede,) = re.findall(r'<p class="lede">(.*?)</p>', text)
    words = re.sub("<.*?>", "", lede)
    for said in (
        "scipy.stats",
        "75 %",
        "ahead of numpy.linalg with 25 %",
        "0.81",
        "0.62 to 0.93",
        "0.94",
        "300,382",
        "was verified",
    ):
        assert said in words
    assert lede.count("<span>") == 3


def test_a_failed_verification_is_said_at_the_top_and_below(document: dict[str, Any]) -> None:
    document["ledger"] |= {"verified": False, "message": "root differs at entry 7"}
    text = Page(render(document)).text()
    assert "but the ledger that records it did not verify" in text
    assert "✗ Not verified root differs at entry 7" in text
    assert "✗ no" in text
    assert "✓ Verified" not in text


def test_lead_method_is_the_best_against_retraining(document: dict[str, Any]) -> None:
    document["methods"]["BM25"]["spearman_vs_truth"] = {"mean": 0.9, "low": 0.8, "high": 0.95}
    assert "BM25, the method closest to retraining," in Page(render(document)).text()


@pytest.mark.parametrize(
    "key",
    ["intake", "model", "methods", "answers", "shares", "agreement", "truth", "attacks", "payout", "placebo", "ledger"],
)
def test_an_absent_part_is_said_to_be_absent(document: dict[str, Any], key: str) -> None:
    before = Page(render(document)).text()
    assert "Not computed in this run" not in before.replace("Not computed in this run: top records", "")
    del document[key]
    assert "Not computed in this run" in Page(render(document)).text()


def test_an_empty_document_is_a_page_that_says_so() -> None:
    page = Page(render({}))
    assert page.text().count("Not computed in this run") >= 9
    assert "nan" not in page.text().lower().split()


def test_answers_without_heat_spans_or_methods(document: dict[str, Any]) -> None:
    document["answers"] = [{"id": "q", "kind": "user", "text": "Just this."}]
    text = Page(render(document)).text()
    assert "Just this." in text
    assert "No influence per word was computed for this answer." in text


def test_each_method_of_an_answer_can_be_chosen(document: dict[str, Any]) -> None:
    page = Page(render(document))
    picks = [a for tag, a in page.tags if tag == "input"]
    assert len(picks) == 6 * 6
    assert sum("checked" in a for a in picks) == 6
    style = next(data for tag, data in page.words if tag == "style")
    used = {(name, value) for _, a in page.tags for name, value in a.items() if name.startswith("data-h")}
    assert len(used) > 20
    for name, value in used:
        assert f'.t[{name}="{value}"]{{background:var(--{value})}}' in style


def test_the_same_document_gives_the_same_bytes(document: dict[str, Any]) -> None:
    again = json.loads(json.dumps(document))
    assert render(document) == render(again)
    assert document == again


def test_write_is_whole_or_nothing(document: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report.html"
    write(document, target)
    assert target.read_text(encoding="utf-8") == render(document)
    document["payout"]["fee"] += 1
    with pytest.raises(Exception, match="must equal the fee exactly"):
        write(document, target)
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def _spoilt(value: Any, poison: str, key: str = "") -> Any:
    """The document with `poison` after every string and every name; offsets stay right, quotations verbatim."""
    if isinstance(value, str):
        return f"{value}{poison}"
    if isinstance(value, list):
        return [_spoilt(item, poison) for item in value]
    if isinstance(value, dict):
        named = key in {"methods", "heat", "records", "shares", "predicted", "policies", "parts", "payees", "residuals"}
        named |= key in {"effect", "stderr", "seconds"} or key in METHODS
        return {(f"{name}{poison}" if named else name): _spoilt(item, poison, name) for name, item in value.items()}
    return value


def _poisoned(document: dict[str, Any], poison: str) -> dict[str, Any]:
    spoilt = _spoilt(document, poison)
    for name in METHODS:
        card = document["methods"][name]
        mended = {key: _spoilt(item, poison, key) if isinstance(item, str) else item for key, item in card.items()}
        spoilt["methods"][f"{name}{poison}"] = mended
    for before, after in zip(document["answers"], spoilt["answers"], strict=True):
        for old, new in zip(before["spans"], after["spans"], strict=True):
            for kept, found in zip(old["documents"], new["documents"], strict=True):
                found["match"] = kept["match"]
    return spoilt


def test_hostile_text_adds_no_tag_and_no_attribute(document: dict[str, Any]) -> None:
    hostile, tame = (Page(render(_poisoned(document, poison))) for poison in (HOSTILE, TAME))
    shape = [[(tag, sorted(attributes)) for tag, attributes in page.tags] for page in (hostile, tame)]
    assert shape[0] == shape[1]
    assert hostile.comments == 0
    shown = HOSTILE.replace("\x00", "\u2400")
    assert hostile.text().count("".join(shown.split(" ")[0])) > 100


def test_hostile_text_inside_a_passage(document: dict[str, Any]) -> None:
    text = f"{HOSTILE} and {HOSTILE}".replace("\x00", "")
    document["answers"] = [
        {
            "id": HOSTILE, "kind": HOSTILE, "prompt": HOSTILE, "text": text,
            "tokens": [[0, 9], [9, 40], [40, len(text)]],
            "heat": {HOSTILE: [1, -1, 0.5]},
            "spans": [{"start": 3, "end": 60, "documents": [{"record_id": HOSTILE, "match": text[3:60]}]}],
        }
    ]  # fmt: skip
    page = Page(render(document))
    assert page.comments == 0
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in {tag for tag, _ in page.tags}
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]


def test_a_lone_surrogate_and_controls_still_make_a_page(tmp_path: Path) -> None:
    write({"title": "a\ud800b\x00c"}, tmp_path / "r.html")
    assert "<h1>a\ufffdb\u2400c</h1>" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_rendering_needs_no_heavy_library() -> None:
    code = "import sys, poa.report; print([m for m in ('torch', 'numpy', 'pandas', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
