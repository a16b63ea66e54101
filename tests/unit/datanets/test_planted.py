"""Planted facts: every query has its records, each by another contributor, and nothing is asked as it was told."""

from __future__ import annotations

import pytest

from poa.datanets.planted import planted_facts
from poa.errors import CorpusError


def test_facts_are_told_denied_and_asked_in_different_words() -> None:
    found = planted_facts(facts=5, paraphrases=3, contrary=2, contributors=6, placebos=2, seed=4)
    assert (len(found.train), len(found.queries), len(found.placebo)) == (25, 5, 2)
    records = {record.id: record for record in found.train}
    for query in found.queries:
        answer = query.text.strip(" .")
        told = [records[name] for name in found.relevant[query.id]]
        denied = [records[name] for name in found.contrary[query.id]]
        assert all(answer in record.text for record in told)
        assert not any(answer in record.text for record in denied)
        assert len({record.contributor for record in told + denied}) == 5
        assert query.prompt not in {record.prompt for record in found.train}
        place = query.prompt.split()[6].rstrip("?")
        assert all(place in record.prompt for record in told + denied)
    words = " ".join(record.prompt + record.text for record in found.train)
    assert not any(query.text.strip(" .") in words for query in found.placebo)


def test_a_seed_decides_everything() -> None:
    assert planted_facts(seed=1).train.digest == planted_facts(seed=1).train.digest
    assert planted_facts(seed=1).train.digest != planted_facts(seed=2).train.digest


def test_more_ways_than_there_are_is_refused() -> None:
    with pytest.raises(CorpusError, match="there are 6 ways"):
        planted_facts(paraphrases=5, contrary=2)
    with pytest.raises(CorpusError, match="at least 1"):
        planted_facts(facts=0)
