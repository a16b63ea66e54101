"""The intake report: what came in, what was left out as a copy, and examples a person can judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from poa.datanets.clusters import Clusters, Membership
from poa.records import Corpus

EXAMPLES, EXCERPT = 8, 120


@dataclass(frozen=True)
class Example:
    """One cluster of copies: its first record, who owns it, and the latest of its copies with the reason."""

    cluster: str
    owner: str
    size: int
    contributors: tuple[str, ...]
    copy: str
    reason: Membership
    excerpt: str


@dataclass(frozen=True)
class Intake:
    """Counts over everything submitted. exact and near duplicates are records other than their cluster's first.

    contested: clusters whose records come from more than one contributor.
    """

    records: int
    kept: int
    contributors: Mapping[str, int]
    datanets: Mapping[str, int]
    licences: Mapping[str, int]
    exact_duplicates: int
    near_duplicates: int
    clusters: int
    contested: int
    examples: tuple[Example, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Intake:
        fields: dict[str, Any] = {**value, "examples": tuple(map(_read_example, value["examples"]))}
        return Intake(**fields)

    def __str__(self) -> str:
        without = self.licences.get("", 0)
        return (
            f"{self.records} records from {len(self.contributors)} contributors, {self.kept} kept; "
            f"{self.exact_duplicates} exact and {self.near_duplicates} near duplicates; {self.clusters} clusters, "
            f"{self.contested} with several contributors; {without} records without a licence"
        )


def _read_example(row: Mapping[str, Any]) -> Example:
    fields: dict[str, Any] = {
        **row,
        "contributors": tuple(row["contributors"]),
        "reason": Membership(**row["reason"]),
    }
    return Example(**fields)


def intake(corpus: Corpus, grouped: Clusters, kept: int) -> Intake:
    """Report on `corpus` as clustered by `grouped`, of which `kept` records will be trained on."""
    kinds = Counter(membership.kind for membership in grouped.memberships)
    owners = dict(zip(corpus.ids, corpus.contributors, strict=True))
    several = {label: names for label, names in grouped.members.items() if len(names) > 1}
    shown = sorted(several, key=lambda label: (-len(several[label]), label))[:EXAMPLES]
    return Intake(
        records=len(corpus),
        kept=kept,
        contributors=_counts(corpus.contributors),
        datanets=_counts(corpus.datanets),
        licences=_counts(corpus.groups("licence")),
        exact_duplicates=kinds["exact"],
        near_duplicates=len(corpus) - kinds["exact"] - kinds["first"],
        clusters=len(grouped.members),
        contested=sum(len({owners[name] for name in names}) > 1 for names in several.values()),
        examples=tuple(_example(corpus, grouped, label, several[label]) for label in shown),
    )


def _example(corpus: Corpus, grouped: Clusters, label: str, names: tuple[str, ...]) -> Example:
    rows = {name: row for row, name in enumerate(corpus.ids)}
    last = max((name for name in names if name != label), key=lambda name: (corpus[rows[name]].registered, name))
    return Example(
        cluster=label,
        owner=corpus[rows[label]].contributor,
        size=len(names),
        contributors=tuple(sorted({corpus[rows[name]].contributor for name in names})),
        copy=last,
        reason=grouped.memberships[rows[last]],
        excerpt=corpus[rows[last]].text[:EXCERPT],
    )


def _counts(labels: tuple[str, ...]) -> dict[str, int]:
    return dict(sorted(Counter(labels).items()))
