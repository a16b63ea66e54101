"""What methods are measured on: data, recipe, and how much truth is made. `conf/task/*.yaml` fill these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

from poa.datanets.planted import Planted, planted_facts
from poa.datanets.snapshot import Snapshot
from poa.datanets.sources import datanet
from poa.errors import PoaError
from poa.factory.classifier import ClassifierRun, train_classifier
from poa.factory.digits import digits
from poa.factory.finetune import finetune
from poa.factory.recipe import LoRARecipe
from poa.factory.run import LoRARun
from poa.pipeline.selection import Chosen, choose
from poa.pipeline.settings import Select, read
from poa.records import Corpus

Run = LoRARun | ClassifierRun
# Runs of an ensemble have these seeds, truths lower ones: no member has seen the luck that it is judged by.
HELD_OUT = 1000
# Removed fractions, and how many subsets each; keys are percentages, because a configuration's keys are words.
Removed = Mapping[str, int]


class FidelityTask(Protocol):
    """Data and recipe by seed. `identity` is plain data that determines everything."""

    @property
    def name(self) -> str: ...
    @property
    def removed(self) -> Removed: ...
    @property
    def ensemble(self) -> int: ...
    @property
    def brittle(self) -> tuple[int, ...]: ...
    @property
    def coalitions(self) -> bool: ...
    @property
    def queries(self) -> Corpus: ...
    @property
    def planted(self) -> Planted | None: ...
    @property
    def mislabels(self) -> int: ...
    def run(self, seed: int) -> Run: ...
    def trained(self, corpus: Corpus, seed: int, out: Path | None = None) -> Run: ...


@dataclass(frozen=True)
class DigitsTask:
    """A tanh network (hidden=[]: logistic regression) on scikit-learn's digits; log-probability of the label.

    `held` images are kept out and explained; contributors are a simulation (Dirichlet over classes). `removed`:
    percent taken out -> number of subsets. `ensemble` further runs with seeds of their own. `brittle`: how many top
    records are taken out. `coalitions`: train on all 2^contributors. `mislabels`: how many wrong labels are looked for
    (0: none are planted).
    """

    name: str
    hidden: tuple[int, ...] = (32,)
    records: int = 1200
    held: int = 100
    contributors: int = 8
    steps: int = 200
    batch: int = 100
    rate: float = 0.05
    optimizer: str = "sgd"
    momentum: float = 0.0
    decay: float = 0.0
    removed: Removed = field(default_factory=dict[str, int])
    ensemble: int = 10
    brittle: tuple[int, ...] = ()
    coalitions: bool = True
    mislabels: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        object.__setattr__(self, "brittle", tuple(self.brittle))
        _check(self)

    @property
    def corpus(self) -> Corpus:
        """What is trained on."""
        return self._split[0]

    @property
    def queries(self) -> Corpus:
        return self._split[1]

    @cached_property
    def _split(self) -> tuple[Corpus, Corpus]:
        corpus = digits(self.records + self.held, contributors=self.contributors)
        return corpus[: self.records], corpus[self.records :]

    @property
    def planted(self) -> None:
        return None

    def run(self, seed: int) -> ClassifierRun:
        told = ((each.name, getattr(self, each.name)) for each in fields(self) if each.name != "removed")
        return _digits_run(tuple(told), seed)

    def trained(self, corpus: Corpus, seed: int, out: Path | None = None) -> ClassifierRun:
        """The recipe on any images; nothing is kept on disk."""
        told: Any = {"optimizer": self.optimizer, "measures": "log-probability"}
        told |= {"momentum": self.momentum, "decay": self.decay}
        return train_classifier(
            corpus, self.hidden, steps=self.steps, batch=self.batch, lr=self.rate, seed=seed, **told
        )


@lru_cache(maxsize=16)
def _digits_run(task: tuple[tuple[str, Any], ...], seed: int) -> ClassifierRun:
    """Trained once a process: every job of a sweep asks for the same runs."""
    made = DigitsTask(**dict(task))
    return made.trained(made.corpus, seed)


@dataclass(frozen=True)
class TextTask:
    """LoRA on a frozen base with text of a datanet, drawn like a job's (`poa.pipeline.settings.Select`).

    `datanet`, `select` and `recipe` are options by name, as in conf/datanet, conf/config and conf/recipe.
    """

    name: str
    datanet: Mapping[str, Any]
    select: Mapping[str, Any] = field(default_factory=dict[str, Any])
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])
    base: str = "tiny"
    removed: Removed = field(default_factory=dict[str, int])
    ensemble: int = 3
    brittle: tuple[int, ...] = ()
    coalitions: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "brittle", tuple(self.brittle))
        _recipe(self.recipe)
        read(Select, self.select, "task.select")
        _check(self)

    @property
    def queries(self) -> Corpus:
        return self._chosen.queries

    @cached_property
    def _chosen(self) -> Chosen:
        return choose(datanet(**self.datanet), read(Select, self.select, "task.select"))

    @property
    def planted(self) -> None:
        return None

    @property
    def mislabels(self) -> int:
        return 0  # text has no labels to be wrong

    def run(self, seed: int) -> LoRARun:
        return self.trained(self._chosen.train, seed)

    def trained(self, corpus: Corpus, seed: int, out: Path | None = None) -> LoRARun:
        recipe = replace(_recipe(self.recipe), seed=seed)
        return finetune(Snapshot.of(corpus), base=self.base, recipe=recipe, out=out)


@dataclass(frozen=True)
class PlantedTask:
    """LoRA on invented facts (`poa.datanets.planted`): which records state a query's fact is known."""

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])
    base: str = "tiny"
    removed: Removed = field(default_factory=dict[str, int])
    ensemble: int = 3
    brittle: tuple[int, ...] = ()
    coalitions: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "brittle", tuple(self.brittle))
        _recipe(self.recipe)
        _check(self)

    @property
    def queries(self) -> Corpus:
        return self.planted.queries

    @property
    def planted(self) -> Planted:
        return self._planted

    @cached_property
    def _planted(self) -> Planted:
        return planted_facts(**self.facts)

    @property
    def mislabels(self) -> int:
        return 0  # text has no labels to be wrong

    def run(self, seed: int) -> LoRARun:
        return self.trained(self.planted.train, seed)

    def trained(self, corpus: Corpus, seed: int, out: Path | None = None) -> LoRARun:
        recipe = replace(_recipe(self.recipe), seed=seed)
        # Ways to tell one fact are near copies, and here each is a record of its own.
        return finetune(Snapshot.of(corpus, duplicates="keep"), base=self.base, recipe=recipe, out=out)


def _recipe(options: Mapping[str, Any]) -> LoRARecipe:
    known = [one.name for one in fields(LoRARecipe) if one.name != "seed"]
    for key in options:
        if key not in known:
            raise PoaError(f"task.recipe has no option {key!r}; it has {', '.join(known)}")
    return LoRARecipe(**options)


def _check(task: Any) -> None:
    for percent, count in task.removed.items():
        try:
            share = float(percent)
        except ValueError as error:
            raise PoaError(f"task.removed names {percent!r}, must be a percentage above 0 and below 100") from error
        if not 0 < share < 100:
            raise PoaError(f"task.removed names {percent!r}, must be a percentage above 0 and below 100")
        if not isinstance(count, int) or count < 2:
            raise PoaError(f"task.removed gives {count!r} subsets for {percent} %, must be an integer of 2 or more")
    if task.ensemble < 0:
        raise PoaError(f"task.ensemble is {task.ensemble}, must be 0 or more")
