"""Canonical form, MinHash bits and candidate search against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poa.datanets.canonical import canonical, containment_distance, exact_form, jaccard_distance, shingles, words
from poa.datanets.fingerprints import BITS, containment_candidates, fingerprint, lexical_candidates
from poa.records import Corpus, Record


def overlapping(seed: int, shared: int, own: int) -> tuple[str, str]:
    draw = [f"t{number}" for number in np.random.default_rng(seed).permutation(100_000)[: shared + 2 * own]]
    return " ".join(draw[: shared + own]), " ".join(draw[:shared] + draw[shared + own :])


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("The  CAT\n sat", "the cat sat"),
        ("<p>The <b>cat</b> sat</p>", "the cat sat"),
        ("the **cat** _sat_", "the cat sat"),
        ("the c\u200bat s\u00adat", "the cat sat"),
        ("ｔｈｅ ｃａｔ ｓａｔ", "the cat sat"),
        ("[the cat](http://x.y/z) sat", "the cat sat"),
        ("AT&amp;T", "at&t"),
        ("Straße", "strasse"),
        ("x < 3 and y > 2", "x < 3 and y 2"),
    ],
)
def test_canonical_form_sees_through_disguises(disguised: str, plain: str) -> None:
    assert canonical(disguised) == plain


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text(alphabet=st.sampled_from("aB é\tﬁ１Ｚ\u200bß*_"), max_size=40))
def test_canonical_form_is_stable(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)


def test_exact_form_tells_prompt_from_text_and_labels_apart() -> None:
    same = Record("a", "World", prompt="Hello"), Record("b", "world", prompt="  hello")
    other = Record("c", "hello world"), Record("d", "world", prompt="hello", label=1)
    assert exact_form(same[0]) == exact_form(same[1])
    assert len({exact_form(record) for record in (*same, *other)}) == 3


def test_scripts_without_spaces_are_read_by_character() -> None:
    assert words(Record("a", "人工知能は")) == ["人", "工", "知", "能", "は"]
    assert words(Record("b", "***")) == ["*", "*", "*"]


def test_distances_by_hand() -> None:
    long, short = Record("l", "a b c d e f g h i j"), Record("s", "a b c d e f")
    assert len(shingles(long)) == 6
    assert len(shingles(short)) == 2
    assert jaccard_distance(shingles(long), shingles(short)) == pytest.approx(1 - 2 / 6)
    assert containment_distance(shingles(short), shingles(long)) == 0
    assert containment_distance(shingles(long), shingles(short)) == pytest.approx(4 / 6)


@pytest.mark.parametrize(("shared", "own"), [(200, 0), (180, 20), (100, 100), (0, 200)])
def test_bits_estimate_jaccard(shared: int, own: int) -> None:
    pairs = [overlapping(seed, shared, own) for seed in range(12)]
    corpus = Corpus.from_texts([f"{text}" for pair in pairs for text in pair if own]) if own else None
    if corpus is None:
        prints = fingerprint(Corpus([Record("a", pairs[0][0]), Record("b", pairs[0][0].upper())]))
        assert prints.similarity(0, 1) == 1.0
        return
    prints = fingerprint(corpus)
    errors = []
    for pair in range(12):
        i, j = 2 * pair, 2 * pair + 1
        truth = 1 - jaccard_distance(shingles(corpus[i]), shingles(corpus[j]))
        p = (1 - truth) / 2
        errors.append((prints.similarity(i, j) - truth) / (2 * np.sqrt(p * (1 - p) / BITS)))
    assert max(np.abs(errors)) < 4
    assert 0.4 < np.std(errors) < 1.8


def test_bits_depend_on_content_alone(honest: Corpus) -> None:
    whole, part = fingerprint(honest), fingerprint(honest[7:9])
    assert np.array_equal(whole.bits[7:9], part.bits)
    assert whole.exact[7:9] == part.exact
    assert 0.4 < np.unpackbits(whole.bits).mean() < 0.6


def test_candidates_miss_nothing_that_brute_force_finds() -> None:
    rng = np.random.default_rng(3)
    base = [f"v{number}" for number in rng.permutation(400)]
    texts = []
    for _ in range(60):
        start, length = int(rng.integers(0, 40)), int(rng.integers(12, 80))
        edited = list(base[start : start + length])
        for place in rng.integers(0, length, int(rng.integers(0, 3))):
            edited[place] = f"n{int(rng.integers(1000))}"
        texts.append(" ".join(edited))
    corpus = Corpus.from_texts(texts)
    prints, sets = fingerprint(corpus), [shingles(record) for record in corpus]
    lexical, inside = lexical_candidates(prints, 0.3), containment_candidates(prints, 0.1)
    near = contained = 0
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            if i != j and jaccard_distance(a, b) <= 0.3:
                near += 1
                assert j in lexical[i]
            if i != j and containment_distance(a, b) <= 0.1:
                contained += 1
                assert j in inside[i]
    assert near > 20
    assert contained > 50
