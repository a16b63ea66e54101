"""What a job may be told, as frozen dataclasses that the configuration fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from poa.errors import PoaError
from poa.pipeline.typed import check_types

T = TypeVar("T")


@dataclass(frozen=True)
class Select:
    """Which records take part.

    contributors: names, or how many of the largest. Per contributor: `records` to train on, `queries` held out for
    retraining truth and calibration, `responses` held out to be paid for. Texts of `shortest` to `longest` characters.
    """

    contributors: int | tuple[str, ...] = 8
    records: int = 24
    queries: int = 3
    responses: int = 5
    shortest: int = 250
    longest: int = 520
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.contributors, int):
            object.__setattr__(self, "contributors", tuple(self.contributors))
        for name in ("records", "queries"):
            if getattr(self, name) < 1:
                raise PoaError(f"select.{name} is {getattr(self, name)}, must be at least 1")


@dataclass(frozen=True)
class Answers:
    """Further responses to attribute: `generated` continuations of held-out texts and the user's own `texts`."""

    generated: int = 0
    tokens: int = 60
    texts: tuple[str, ...] = ()
    placebo: int = 0
    shown: int = 6

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(self.texts))


@dataclass(frozen=True)
class Stages:
    """What happens beyond attribution.

    compare: further methods by name. truth: seeds to retrain with. attack_times: rows an attack adds, as a multiple
    of the attacker's own. fee: micro-credits per response. allow_uncarded: pay by settings that no committed result has
    measured (the job itself measures them all the same). settings: by name of a compared method, what differs from its
    defaults.
    """

    compare: tuple[str, ...] = ()
    truth: tuple[int, ...] = ()
    attacks: tuple[str, ...] = ()
    attack_times: int = 2
    pay: bool = False
    report: bool = False
    fee: int = 1_000_000
    allow_uncarded: bool = False
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])

    def __post_init__(self) -> None:
        for name in ("compare", "truth", "attacks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in self.settings:
            if name not in self.compare:
                raise PoaError(
                    f"stages.settings names {name}, which stages.compare does not: {', '.join(self.compare)}"
                )
        for seed in self.truth:
            if seed < 0:
                raise PoaError(f"stages.truth holds the seed {seed}, must be 0 or more")
        if (self.pay or self.attacks) and len(self.truth) < 2:
            raise PoaError(
                "stages.pay and stages.attacks need stages.truth, at least two seeds: an unmeasured method may not pay"
            )
        if self.fee < 1:
            raise PoaError(f"stages.fee is {self.fee}, must be at least 1 micro-credit")


def read(kind: type[T], given: Mapping[str, Any], where: str) -> T:
    """`kind` from plain data; an unknown key is refused with the nearest known one, a wrong type by name."""
    known = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            near = get_close_matches(key, known, 1, 0.0)[0]
            raise PoaError(f"{where} has no option {key!r}; did you mean {near!r}?")
    check_types(kind, given, where)
    return kind(**given)
