"""The runs that every method is held against: small enough for seconds, real enough to fail on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poa.protocols import TrainingRun
    from poa.records import Corpus


@dataclass(frozen=True, eq=False)
class Case:
    """A training run and queries to ask about it."""

    name: str
    run: TrainingRun
    queries: Corpus


@lru_cache(maxsize=1)
def digits_linear() -> Case:
    """L2-regularised logistic regression on 48 digits of three kinds, nearly converged: leave-one-out is clean."""
    from poa.factory.classifier import train_classifier
    from poa.factory.digits import digits

    corpus = digits(60, contributors=5, classes=(3, 5, 8))
    run = train_classifier(corpus[:48], steps=200, batch=48, lr=0.5, decay=0.01)
    return Case("digits-linear", run, corpus[48:])


@lru_cache(maxsize=1)
def digits_mlp() -> Case:
    """A tanh network on 60 digits in minibatches, the last of an epoch short."""
    from poa.factory.classifier import train_classifier
    from poa.factory.digits import digits

    corpus = digits(68, contributors=5, classes=(0, 1, 2, 3), seed=1)
    run = train_classifier(corpus[:60], hidden=(12,), steps=60, batch=16, lr=0.3)
    return Case("digits-mlp", run, corpus[60:])


@lru_cache(maxsize=1)
def text_bigram() -> Case:
    """A bigram language model on 24 short texts of unequal length, two of them equal."""
    from poa.conformance.bigram import bigram_corpus, train_bigram

    corpus = bigram_corpus(30)
    return Case("text-bigram", train_bigram(corpus[:24]), corpus[24:])
