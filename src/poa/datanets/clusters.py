"""Star clusters of copies: each record belongs to the earliest record that it repeats, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from poa.datanets.canonical import containment_distance, exact_form, jaccard_distance, shingles
from poa.datanets.fingerprints import Fingerprints, Indices, containment_candidates, fingerprint, lexical_candidates
from poa.datanets.pixels import shift_candidates, shift_distance
from poa.errors import PoaError
from poa.records import Corpus, Record

MINIMUM_CONTAINED = 8  # shingles: a stock phrase of a dozen words may stand in anybody's text


@dataclass(frozen=True)
class Tau:
    """Largest distance at which a record still counts as a copy, per kind of fingerprint.

    jaccard: 1 - J of 5-word shingles. containment: share of the later record's shingles that the earlier one lacks.
    pixels: relative distance of feature rows over one-pixel moves. At the default 0.25 about 1 % of the installed
    documentation's honest records lie within tau of another sub-package's (templates, mirrored functions); that is
    the false-positive rate to expect, and `poa.datanets.calibration` measures it per datanet.
    """

    jaccard: float = 0.25
    containment: float = 0.1
    pixels: float = 0.1

    def __post_init__(self) -> None:
        for name in ("jaccard", "containment", "pixels"):
            value: float = getattr(self, name)
            if not 0 <= value < 1:
                raise PoaError(f"tau.{name} is {value}, must be at least 0 and below 1")


@dataclass(frozen=True)
class Membership:
    """Why a record is in its cluster: `distance` <= `tau` to the record `witness`, by the fingerprint `kind`.

    kind: "first" (the cluster's own first record), "exact", "jaccard", "containment" or "pixels".
    """

    kind: str
    distance: float
    tau: float
    witness: str


@dataclass(frozen=True)
class Clusters:
    """One label and one reason per record, in corpus order; a label is the id of the cluster's first record."""

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    memberships: tuple[Membership, ...]
    tau: Tau

    @cached_property
    def members(self) -> dict[str, tuple[str, ...]]:
        """Ids per cluster label, in corpus order."""
        out: dict[str, list[str]] = {}
        for name, label in zip(self.ids, self.labels, strict=True):
            out.setdefault(label, []).append(name)
        return {label: tuple(names) for label, names in out.items()}


def priority(record: Record) -> tuple[int, str, str]:
    """Sort key of ownership: registered earlier, then content digest, then id."""
    return record.registered, record.digest, record.id


def holds(membership: Membership, record: Record, witness: Record) -> bool:
    """Replay a reason from the two records alone: is the distance as stated, within tau, and the witness earlier?"""
    if membership.witness != witness.id:
        return False
    if membership.kind == "first":
        return record.id == witness.id
    found = _distance(membership.kind, record, witness)
    return priority(witness) < priority(record) and found == membership.distance and found <= membership.tau


def _distance(kind: str, record: Record, witness: Record) -> float:
    if kind == "exact":
        return 0.0 if exact_form(record) == exact_form(witness) else 1.0
    if bool(record.features) != bool(witness.features) or record.label != witness.label:
        return 1.0
    if kind == "pixels":
        return shift_distance(record.features, witness.features)
    compare = {"jaccard": jaccard_distance, "containment": containment_distance}.get(kind)
    return 1.0 if compare is None else compare(shingles(record), shingles(witness))


def clusters(corpus: Corpus, tau: Tau | None = None, prints: Fingerprints | None = None) -> Clusters:
    """Stars around first records: a record joins the earliest first record within tau, never a chain of copies.

    A later record repeats an earlier one when their canonical forms are equal, when their Jaccard distance is within
    tau, or when nearly all of the *later* one already stands in the earlier one. A later record that holds a short
    earlier one and much besides stays its own: otherwise one sentence registered early would own every text that
    quotes it. Records with different labels are never copies: a mislabelled copy would be paid from its victim.
    """
    tau = tau or Tau()
    search = _Search(corpus, tau, prints or fingerprint(corpus))
    labels: dict[int, int] = {}
    reasons: dict[int, Membership] = {}
    for form in search.order:
        centre, reason = form, Membership("first", 0.0, 0.0, corpus[form].id)
        for other in search.earlier(form):
            if labels.get(other) == other and (found := search.repeats(form, other)) is not None:
                centre, reason = other, found
                break
        labels[form], reasons[form] = centre, reason
    for i, form in enumerate(search.form_of):
        if i != form:
            labels[i] = labels[form]
            first = reasons[form].kind == "first"
            reasons[i] = Membership("exact", 0.0, 0.0, corpus[form].id) if first else reasons[form]
    rows = range(len(corpus))
    return Clusters(corpus.ids, tuple(corpus[labels[i]].id for i in rows), tuple(reasons[i] for i in rows), tau)


def components(corpus: Corpus, tau: Tau | None = None) -> list[int]:
    """One component number per record: records connected by any chain of copies, in either direction.

    For held-out splits, where chains are wanted: no record of one component is a near copy of one of another.
    """
    search = _Search(corpus, tau or Tau(), fingerprint(corpus))
    parent = list(range(len(corpus)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for form in search.order:
        for other in search.all(form):
            if root(form) != root(other) and search.repeats(form, other):
                parent[root(form)] = root(other)
    return [root(form) for form in search.form_of]


class _Search:
    """Candidate pairs between distinct exact forms, and their exact verification."""

    def __init__(self, corpus: Corpus, tau: Tau, prints: Fingerprints) -> None:
        if prints.ids != corpus.ids:
            raise PoaError("the fingerprints belong to another corpus")
        self.corpus, self.tau = corpus, tau
        self._shingles: dict[int, frozenset[tuple[str, ...]]] = {}
        self._hashed: dict[int, frozenset[int]] = {}
        by_priority = sorted(range(len(corpus)), key=lambda i: priority(corpus[i]))
        first: dict[str, int] = {}
        for i in by_priority:
            first.setdefault(prints.exact[i], i)
        self.form_of = [first[form] for form in prints.exact]
        self.order = [i for i in by_priority if self.form_of[i] == i]
        self._rank = {form: rank for rank, form in enumerate(self.order)}
        self._prints = _rows(prints, self.order)
        self._near = self._candidates(self._prints)

    def _candidates(self, prints: Fingerprints) -> list[Indices]:
        """By rank: the ranks that this record may repeat."""
        lexical = lexical_candidates(prints, self.tau.jaccard)
        inside = containment_candidates(prints, self.tau.containment)
        near = [np.concatenate(found) for found in zip(lexical, inside, strict=True)]
        for i, j in self._pixel_candidates():
            near[i] = np.append(near[i], j)
            near[j] = np.append(near[j], i)
        return [np.unique(found) for found in near]

    def _pixel_candidates(self) -> Iterator[tuple[int, int]]:
        groups: dict[tuple[int, int], list[int]] = {}
        for rank, form in enumerate(self.order):
            if features := self.corpus[form].features:
                groups.setdefault((len(features), self.corpus[form].label), []).append(rank)
        for ranks in groups.values():
            rows = np.array([self.corpus[self.order[rank]].features for rank in ranks])
            for i, j in shift_candidates(rows, self.tau.pixels):
                yield ranks[i], ranks[j]

    def earlier(self, form: int) -> Iterator[int]:
        """Candidates of higher priority, the earliest first."""
        near = self._near[self._rank[form]]
        return (self.order[other] for other in near[near < self._rank[form]].tolist())

    def all(self, form: int) -> Iterator[int]:
        """Every other record that this one may repeat."""
        near = self._near[self._rank[form]]
        return (self.order[other] for other in near[near != self._rank[form]].tolist())

    def repeats(self, later: int, witness: int) -> Membership | None:
        """The reason why one record counts as a copy of the other, by exact distance."""
        record, other, name = self.corpus[later], self.corpus[witness], self.corpus[witness].id
        if bool(record.features) != bool(other.features) or record.label != other.label:
            return None
        if record.features:
            distance = shift_distance(record.features, other.features)
            return Membership("pixels", distance, self.tau.pixels, name) if distance <= self.tau.pixels else None
        if not self._plausible(self._rank[later], self._rank[witness]):
            return None
        a, b = self._shingles_of(later), self._shingles_of(witness)
        if (distance := jaccard_distance(a, b)) <= self.tau.jaccard:
            return Membership("jaccard", distance, self.tau.jaccard, name)
        if len(a) >= MINIMUM_CONTAINED and (distance := containment_distance(a, b)) <= self.tau.containment:
            return Membership("containment", distance, self.tau.containment, name)
        return None

    def _plausible(self, later: int, witness: int) -> bool:
        """Whether the hashed shingles, which are much faster to compare, come within tau."""
        for rank in (later, witness):
            if rank not in self._hashed:
                self._hashed[rank] = frozenset(self._prints.shingles[rank].tolist())
        a, b = self._hashed[later], self._hashed[witness]
        shared = len(a & b)
        union = len(a) + len(b) - shared
        near = union - shared <= self.tau.jaccard * union + 1e-6
        return near or len(a) - shared <= self.tau.containment * len(a) + 1e-6

    def _shingles_of(self, i: int) -> frozenset[tuple[str, ...]]:
        if i not in self._shingles:
            self._shingles[i] = shingles(self.corpus[i])
        return self._shingles[i]


def _rows(prints: Fingerprints, rows: list[int]) -> Fingerprints:
    picked: Indices = np.asarray(rows, np.int64)
    return Fingerprints(
        tuple(prints.ids[i] for i in rows),
        tuple(prints.exact[i] for i in rows),
        prints.bits[picked],
        tuple(prints.shingles[i] for i in rows),
    )
