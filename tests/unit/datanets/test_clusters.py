"""Stars around first records: planted copies, bridges, containment, honest records, images, replay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poa.datanets.calibration import calibrated_jaccard, honest_distances
from poa.datanets.canonical import jaccard_distance, shingles
from poa.datanets.clusters import Membership, Tau, clusters, components, holds
from poa.datanets.pixels import shift_candidates, shift_distance, shifted
from poa.errors import PoaError
from poa.records import Corpus, Record


def words(start: int, count: int) -> list[str]:
    return [f"x{number}" for number in range(start, start + count)]


def record(name: str, tokens: list[str], registered: int, contributor: str = "a", label: int = -1) -> Record:
    return Record(name, " ".join(tokens), contributor=contributor, registered=registered, label=label)


def test_honest_distinct_records_stay_apart(honest: Corpus) -> None:
    found = clusters(honest)
    assert found.labels == honest.ids
    assert {reason.kind for reason in found.memberships} == {"first"}
    assert len(set(components(honest))) == len(honest)


def test_planted_copies_join_the_earliest_owner(honest: Corpus) -> None:
    first = honest[5]
    edited = first.text.split()
    edited[30] = "changed"
    planted = [
        replace(first, id="shout", text=f"<i>{first.text.upper()}</i>", contributor="thief", registered=100),
        Record("near", " ".join(edited), contributor="thief", registered=101),
        Record("part", " ".join(first.text.split()[:25]), contributor="thief", registered=102),
    ]
    found = clusters(Corpus([*planted, *honest]))
    assert dict(zip(found.ids, found.labels, strict=True)) == {name: name for name in honest.ids} | {
        name: first.id for name in ("shout", "near", "part")
    }
    assert [reason.kind for reason in found.memberships[:3]] == ["exact", "jaccard", "containment"]
    assert found.memberships[1].distance == jaccard_distance(shingles(planted[1]), shingles(first))
    assert found.members[first.id] == ("shout", "near", "part", first.id)


def test_order_of_the_corpus_does_not_matter(honest: Corpus) -> None:
    copies = [replace(row, id=f"copy-{row.id}", registered=row.registered + 50) for row in honest]
    corpus = Corpus([*honest, *copies])
    order = np.random.default_rng(0).permutation(len(corpus))
    one, other = clusters(corpus), clusters(corpus.take(order))
    assert dict(zip(one.ids, one.labels, strict=True)) == dict(zip(other.ids, other.labels, strict=True))


def test_ties_in_time_go_to_the_smaller_digest() -> None:
    pair = [record("one", words(0, 80), 7), record("two", [*words(0, 79), "end"], 7)]
    winner = min(pair, key=lambda row: row.digest).id
    assert clusters(Corpus(pair)).labels == (winner, winner)
    assert clusters(Corpus(pair[::-1])).labels == (winner, winner)


def test_a_bridge_does_not_merge_rivals() -> None:
    rival, bridge, other = words(0, 100), words(10, 100), words(20, 100)
    tau = Tau(jaccard=0.25, containment=0.0)
    for times in ((0, 1, 2), (0, 2, 1), (2, 0, 1)):
        corpus = Corpus(
            record(name, tokens, time)
            for name, tokens, time in zip(("rival", "bridge", "other"), (rival, bridge, other), times, strict=True)
        )
        sets = [shingles(row) for row in corpus]
        assert jaccard_distance(sets[0], sets[1]) <= 0.25 < jaccard_distance(sets[0], sets[2])
        labels = dict(zip(corpus.ids, clusters(corpus, tau).labels, strict=True))
        assert (labels["rival"] == labels["other"]) is (times == (2, 0, 1) and labels["other"] == "bridge")
        assert len(set(components(corpus, tau))) == 1


def test_a_long_record_that_quotes_a_short_earlier_one_is_its_own() -> None:
    short, long = record("short", words(0, 20), 0, "bait"), record("long", words(0, 200), 1, "author")
    assert clusters(Corpus([short, long])).labels == ("short", "long")
    later = replace(short, registered=2)
    assert clusters(Corpus([later, long])).labels == ("long", "long")
    assert len(set(components(Corpus([short, long])))) == 1


def test_a_stock_phrase_is_nobody_s() -> None:
    phrase, text = record("phrase", words(50, 11), 1), record("text", words(0, 200), 0)
    assert clusters(Corpus([phrase, text])).labels == ("phrase", "text")


def test_another_label_is_no_copy() -> None:
    corpus = Corpus([record("one", words(0, 50), 0, label=0), record("two", words(0, 50), 1, label=1)])
    assert clusters(corpus).labels == ("one", "two")


def test_every_reason_can_be_replayed_and_a_changed_one_cannot(honest: Corpus) -> None:
    first = honest[0]
    copies = [
        replace(first, id="exact", registered=90),
        Record("near", f"{first.text} and more", registered=91),
        Record("part", " ".join(first.text.split()[3:30]), registered=92),
    ]
    corpus = Corpus([*honest, *copies])
    found = clusters(corpus)
    rows = {row.id: row for row in corpus}
    for row, reason in zip(corpus, found.memberships, strict=True):
        assert holds(reason, row, rows[reason.witness])
    for row, reason in zip(copies, found.memberships[-3:], strict=True):
        assert not holds(replace(reason, distance=reason.distance + 0.01), row, first)
        assert not holds(reason, row, honest[1])
        assert not holds(reason, replace(row, registered=0, text=row.text), replace(first, registered=1))
    assert not holds(Membership("hearsay", 0.0, 0.5, first.id), copies[0], first)


def test_many_exact_copies_are_cheap_and_one_cluster() -> None:
    text = " ".join(words(0, 100))
    corpus = Corpus(Record(f"r{i}", text, registered=1000 - i) for i in range(1000))
    found = clusters(corpus)
    assert set(found.labels) == {"r999"}
    assert sum(reason.kind == "exact" for reason in found.memberships) == 999


def test_tau_out_of_range() -> None:
    with pytest.raises(PoaError, match=r"tau.jaccard is 1.0"):
        Tau(jaccard=1.0)


def digit(seed: int) -> np.ndarray:
    image = np.zeros((8, 8))
    image[2:6, 2:6] = np.random.default_rng(seed).uniform(1, 16, (4, 4))
    return image


def pixels(name: str, image: np.ndarray, time: int, label: int = 3) -> Record:
    return Record(name, features=tuple(map(float, image.reshape(-1))), label=label, registered=time)


def test_a_moved_image_is_a_copy() -> None:
    image = digit(0)
    moved, noisy, rescaled = np.roll(image, (1, -1), (0, 1)), image + 0.05, image * 0.5
    corpus = Corpus(
        [
            pixels("first", image, 0),
            pixels("moved", moved, 1),
            pixels("noisy", noisy, 2),
            pixels("far", np.roll(image, 2, 0), 3),
            pixels("label", image, 4, label=5),
            pixels("half", rescaled, 5),
            pixels("again", image, 6),
            *(pixels(f"o{seed}", digit(seed), 10) for seed in range(1, 6)),
        ]
    )
    found = clusters(corpus)
    labels = dict(zip(found.ids, found.labels, strict=True))
    assert {name for name, label in labels.items() if label == "first"} == {"first", "moved", "noisy", "again"}
    assert found.memberships[1] == Membership("pixels", 0.0, 0.1, "first")
    assert all(
        holds(reason, row, corpus[corpus.ids.index(reason.witness)])
        for row, reason in zip(corpus, found.memberships, strict=True)
    )


def test_shift_candidates_equal_brute_force() -> None:
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.uniform(0, 16, (20, 16)), rng.uniform(7, 8, (20, 16))])
    wanted = {
        (i, j) for i in range(40) for j in range(i + 1, 40) if shift_distance(tuple(rows[i]), tuple(rows[j])) <= 0.1
    }
    assert wanted
    assert wanted <= set(shift_candidates(rows, 0.1))
    assert shifted(rows[:, :15]).shape == (40, 1, 15)
    assert shift_distance((1.0,), (1.0, 2.0)) == 1.0


def test_honest_distances_equal_brute_force_where_it_matters(honest: Corpus) -> None:
    stolen = " ".join(honest[0].text.split()[:-10] + ["z"] * 10)
    corpus = Corpus([*honest, Record("copy", stolen, contributor="c3", registered=99)])
    sets = [shingles(row) for row in corpus]
    brute = [
        min(
            jaccard_distance(sets[i], sets[j])
            for j in range(len(corpus))
            if corpus[j].contributor != corpus[i].contributor
        )
        for i in range(len(corpus))
    ]
    assert honest_distances(corpus) == pytest.approx(brute)
    rate = 3 / len(corpus)
    assert (honest_distances(corpus) <= calibrated_jaccard(corpus, rate)).sum() <= 3
    assert calibrated_jaccard(corpus, 0.0) < min(brute)
