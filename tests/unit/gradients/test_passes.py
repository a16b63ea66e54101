"""Several passes over the same gradients, whatever of them was kept."""

from __future__ import annotations

import pytest
import torch

from poa.conformance import digits_mlp, isolated, text_bigram
from poa.gradients.factors import tensors
from poa.gradients.passes import Fisher, Passes

CASES = {"digits-mlp": digits_mlp, "bigram": text_bigram}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("positions", [(-1,), (0, -1)])
def test_every_pass_gives_the_same_whatever_memory_there_is(case: str, positions: tuple[int, ...]) -> None:
    with isolated(CASES[case]().run) as run:
        count = 2 * len(positions) * len(run.corpus)
        whole = list(Passes(run, positions, Fisher(draws=2), 0).once("all"))
        one = sum(part.nbytes for factors in whole[0].factors.values() for each in factors for part in tensors(each))
        for room in (0, 7 * one, (count // 2 + 3) * one, 10 * count * one):
            passes = Passes(run, positions, Fisher(draws=2), room)
            for _ in range(3):
                found = list(passes.once("again"))
                assert len(found) == count
                for mine, other in zip(found, whole, strict=True):
                    for name, factors in mine.factors.items():
                        for first, second in zip(factors, other.factors[name], strict=True):
                            assert torch.equal(first.dense(), second.dense())


def test_memory_is_bounded_by_the_room_given() -> None:
    with isolated(digits_mlp().run) as run:
        (first, *_) = Passes(run, (-1,), Fisher(), 0).once("one")
        one = sum(part.nbytes for factors in first.factors.values() for each in factors for part in tensors(each))
        passes = Passes(run, (-1,), Fisher(), 10 * one)
        list(passes.once("first"))
        assert 1 <= len(passes.kept) <= 10
        none = Passes(run, (-1,), Fisher(), 0)
        list(none.once("first"))
        assert not none.kept
