"""Attack rows: deterministic, legal, bounded by their budget, and of the kind that their family says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from poa.datanets.canonical import canonical
from poa.datanets.snapshot import Duplicates, Snapshot
from poa.errors import PoaError
from poa.gaming import ATTACKS, Attack, BoilerplateFarm, Copier, NoiseFarm, View, World, attack, look
from poa.gaming.attacks.boilerplate_farm import GRAM, frequent_runs, licence_sentences
from poa.gaming.attacks.copier import disguised
from poa.records import Corpus, Record
from poa.rewards.policy import Policy

CONF = Path(__file__).parents[3] / "conf" / "attack"
NAMES = list(ATTACKS)
WORDS = st.lists(st.from_regex(r"[a-z]{2,8}[.,;]?", fullmatch=True), min_size=1, max_size=40)


def view_of(corpus: Corpus, attacker: str = "cy", **paid: int) -> View:
    return look(World(corpus, Policy.preset("net-epoch"), paid), attacker, "K1")


def prose(records: int, words: int, contributors: int = 4) -> Corpus:
    """Unrelated texts of `words` words from a vocabulary of 5,000."""
    draws = np.random.default_rng(5).integers(0, 5000, (records, words))
    return Corpus(
        Record(f"r{i}", " ".join(f"w{j}" for j in row) + ".", contributor=f"c{i % contributors}", registered=i)
        for i, row in enumerate(draws.tolist())
    )


def dropped(corpus: Corpus, rows: tuple[Record, ...], duplicates: Duplicates) -> float:
    """Share of `rows` that a snapshot leaves out; no honest record may go with them."""
    gone = {row.id for row in Snapshot.of(corpus + Corpus(rows), duplicates).dropped}
    assert gone <= {row.id for row in rows}
    return len(gone) / len(rows)


# -- what holds for every attack --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("times", [1, 3])
def test_rows_are_legal_uploads_within_the_budget(corpus: Corpus, name: str, times: int) -> None:
    view = view_of(corpus)
    rows = attack(name, times=times).rows(view)
    assert len(rows) == times * len(view.own)
    assert {row.contributor for row in rows} == {"cy"}
    assert min(row.registered for row in rows) > max(record.registered for record in corpus)
    together = corpus + Corpus(rows)  # refuses repeated ids and bad fields
    assert len(together) == len(corpus) + len(rows)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_a_function_of_view_and_seed(corpus: Corpus, name: str) -> None:
    first, again, other = (attack(name, seed=seed).rows(view_of(corpus)) for seed in (3, 3, 4))
    assert first == again
    assert {row.text for row in first} != {row.text for row in other}
    assert not {row.id for row in first} & {row.id for row in other}


def test_ids_are_legal_and_apart_whatever_the_attackers_are_called(corpus: Corpus) -> None:
    strange = Corpus(
        replace(r, contributor={"cy": "ça va? " * 40, "ada": "a b"}.get(r.contributor, "")) for r in corpus
    )
    first = [NoiseFarm().rows(view_of(strange, who)) for who in ("ça va? " * 40, "a b")]
    assert len(Corpus((*first[0], *first[1]))) == len(first[0]) + len(first[1])


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_records_with_features_are_refused(name: str) -> None:
    digits = Corpus([Record("a", features=(1.0,), label=1, contributor="cy")])
    with pytest.raises(PoaError, match=f"{name} writes text; record 'a' has features"):
        attack(name).rows(view_of(digits))


@pytest.mark.parametrize("name", NAMES)
def test_configuration_files_equal_their_python_twins(name: str) -> None:
    made: Any = instantiate(OmegaConf.load(CONF / f"{name}.yaml"), _convert_="object")
    assert made == attack(name)
    assert repr(made) == repr(attack(name))
    assert hash(made) == hash(attack(name))


def test_every_attack_has_a_configuration_file_and_the_reverse() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} == set(NAMES)


def test_families_and_layers_are_those_of_the_catalogue() -> None:
    found = {kind.name: (kind.family, kind.layer) for kind in ATTACKS.values()}
    assert found == {"copier": ("A2", "L2"), "noise_farm": ("A10", "L1"), "boilerplate_farm": ("A13", "L1")}


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("copier", {"times": 0}, "copier.times is 0, must be an integer, 1 or more"),
        ("copier", {"every": 1}, "copier.every is 1"),
        ("noise_farm", {"seed": -1}, "noise_farm.seed is -1"),
        ("boilerplate_farm", {"phrases": 0}, "boilerplate_farm.phrases is 0"),
        ("noise_farm", {"phrases": 3}, "attack noise_farm has no setting 'phrases'; it has times, seed"),
        ("noise_fram", {}, "did you mean 'noise_farm'"),
    ],
)
def test_wrong_settings_are_refused(name: str, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(PoaError, match=message):
        attack(name, **wrong)


# -- copier -----------------------------------------------------------------------------------------------------


def nearest_original(row: Record, corpus: Corpus) -> str:
    """Contributor of the record that shares most words with `row`."""
    counts = Counter(row.text.lower().split())
    return max(corpus, key=lambda record: sum((counts & Counter(record.text.lower().split())).values())).contributor


def test_copier_copies_the_best_paid_other_contributor(corpus: Corpus) -> None:
    for paid, victim in (({"ada": 1, "bob": 2, "cy": 99}, "bob"), ({"ada": 3, "bob": 2}, "ada")):
        rows = Copier(times=1).rows(view_of(corpus, "cy", **paid))
        assert {nearest_original(row, corpus) for row in rows} == {victim}


def test_copier_without_public_pay_takes_the_largest_other_contributor(corpus: Corpus) -> None:
    smaller = corpus.where(lambda record: record.id != "ada-0-0")
    rows = Copier(times=1).rows(view_of(smaller))
    assert {nearest_original(row, smaller) for row in rows} == {"bob"}


def test_copier_needs_a_victim(corpus: Corpus) -> None:
    alone = corpus.where(lambda record: record.contributor == "cy")
    with pytest.raises(PoaError, match="copier needs a victim: 'cy' is the only contributor"):
        Copier().rows(view_of(alone))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(words=WORDS, every=st.integers(2, 60), seed=st.integers(0, 2**32 - 1))
def test_a_disguise_keeps_the_words_and_never_the_canonical_form(words: list[str], every: int, seed: int) -> None:
    text = " ".join(words)
    out = disguised(text, every, np.random.default_rng(seed))
    assert canonical(out) != canonical(text)
    bare = [sorted(word.strip(".,;:!?") for word in canonical(t).split()) for t in (out, text)]
    assert bare[0] == bare[1]


def test_exchanges_are_spaced_and_as_many_as_fit() -> None:
    words = [f"w{i}" for i in range(100)]
    out = disguised(" ".join(words), 20, np.random.default_rng(0)).replace(",", "").lower().split()
    moved = [i for i, (a, b) in enumerate(zip(words, [w.strip(".;!") for w in out], strict=True)) if a != b]
    starts = moved[::2]
    assert [b - a for a, b in pairwise(starts)] == [20] * 4
    assert moved == [place for start in starts for place in (start, start + 1)]


def test_exact_deduplication_misses_every_copy_of_the_default_copier(corpus: Corpus) -> None:
    assert dropped(corpus, Copier().rows(view_of(corpus, bob=1)), "drop-exact") == 0.0


def test_fingerprints_find_copies_by_how_strongly_they_are_disguised() -> None:
    """Of 100 copies of 60-word texts, one each: all without exchanges, nearly all by default, none at every ninth word.

    One exchange costs at most 6 of 56 shingles (J >= 50 / 62 = .81); two cost up to 12 (J = .65 < .75), unless they
    stand at the edges, so the default (one exchange in 50 places of 60, two in the other 10) loses a few.
    """
    corpus = prose(200, 60, contributors=2)
    rates = {every: dropped(corpus, Copier(1, every).rows(view_of(corpus, "c0")), "drop") for every in (1000, 50, 9)}
    assert rates[1000] == 1.0
    assert 0.8 <= rates[50] < 1.0
    assert rates[9] == 0.0


# -- noise farm -------------------------------------------------------------------------------------------------


def test_noise_has_the_public_words_the_own_lengths_and_no_copies(corpus: Corpus) -> None:
    view = view_of(corpus)
    rows = NoiseFarm(times=4).rows(view)
    vocabulary = {word for record in corpus for word in record.text.split()}
    assert {word for row in rows for word in row.text.split()} <= vocabulary
    lengths = [len(record.text.split()) for record in view.own]
    assert [len(row.text.split()) for row in rows] == lengths * 4
    assert dropped(corpus, rows, "drop") == 0.0


def test_noise_words_are_drawn_with_equal_chances() -> None:
    corpus = Corpus(
        [Record("a", "one " * 300 + "two three four", contributor="cy"), Record("b", "five", contributor="ada")]
    )
    rows = NoiseFarm(times=40).rows(view_of(corpus))
    counts = Counter(word for row in rows for word in row.text.split())
    each = sum(counts.values()) / 5
    assert set(counts) == {"one", "two", "three", "four", "five"}
    assert max(abs(count - each) for count in counts.values()) < 5 * each**0.5


# -- boilerplate farm -------------------------------------------------------------------------------------------


def test_boilerplate_is_taken_from_the_corpus_and_reads_its_stock_lines(corpus: Corpus) -> None:
    stock = frequent_runs(corpus, 32) + licence_sentences(corpus, 32)
    assert all(any(phrase in " ".join(r.text.split()) for r in corpus) for phrase in stock)
    assert licence_sentences(corpus, 32) == ["This text is shared under the terms of the village licence."]
    rows = BoilerplateFarm(times=2).rows(view_of(corpus))
    assert all(any(phrase in row.text for phrase in stock) for row in rows)
    assert [len(row.text.split()) for row in rows] == [len(r.text.split()) for r in view_of(corpus).own] * 2


def test_most_frequent_runs_come_first_without_shifts_of_themselves() -> None:
    common = "a b c d e f g h i j k l"
    texts = [f"{common} x{i} y{i} z{i} u{i} v{i} w{i} s{i} t{i}" for i in range(3)]
    runs = frequent_runs(Corpus.from_texts(texts), 3)
    assert runs[0] == "a b c d e f g h"
    for first, second in ((a, b) for i, a in enumerate(runs) for b in runs[:i]):
        fours = [{tuple(run.split()[i : i + 4]) for i in range(GRAM - 3)} for run in (first, second)]
        assert not fours[0] & fours[1]


def test_a_run_counts_once_per_record() -> None:
    repeated = " ".join(["la le li lo lu ma me mi"] * 9)
    shared = "one two three four five six seven eight"
    runs = frequent_runs(Corpus.from_texts([repeated, f"{shared} end", f"{shared} stop"]), 1)
    assert runs == [shared]


def test_short_texts_give_their_whole_texts() -> None:
    assert set(frequent_runs(Corpus.from_texts(["too short", "also short"]), 5)) == {"too short", "also short"}


def test_attacks_satisfy_the_protocol() -> None:
    made: list[Attack] = [Copier(), NoiseFarm(), BoilerplateFarm()]
    assert [a.knowledge for a in made] == ["K1", "K1", "K1"]
