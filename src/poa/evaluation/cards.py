"""What committed results measured of each method: its card, as far as there is one."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from poa.errors import PoaError


@dataclass(frozen=True)
class Card:
    """Agreement with retraining of a method with these settings (`identity`, its repr) in one committed result.

    measure: what the number and its interval are of. notes: ceiling, coverage, cost, where the result knows them.
    """

    result: str
    identity: str
    mean: float
    low: float
    high: float
    measure: str = "Spearman"
    notes: str = ""

    def __str__(self) -> str:
        interval = f"[{self.low:+.2f}, {self.high:+.2f}]"
        return f"{self.measure} {self.mean:+.2f} {interval} with retraining ({self.result}){self.notes}"


def results_folder() -> Path | None:
    """The results shipped inside the wheel, else the checkout's `experiments/results`; None where there are neither."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "results", package.parents[1] / "experiments" / "results"):
        if folder.is_dir():
            return folder
    return None


def cards(folder: Path | None) -> Mapping[str, tuple[Card, ...]]:
    """By method name the cards that the results in `folder` hold, in the order of file names.

    Raises `PoaError` naming a file that is not a result.
    """
    found: dict[str, tuple[Card, ...]] = {}
    for path in sorted(folder.glob("*.json")) if folder is not None else ():
        try:
            result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            for name, card in _of_tasks(result) if result.get("kind") == "fidelity" else _of_run(path.stem, result):
                found[name] = (*found.get(name, ()), card)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PoaError(f"{path} is not a committed result: {type(error).__name__}: {error}") from error
    return found


def require_card(name: str, method: object, folder: Path | None) -> None:
    """Raise `PoaError` unless a committed result measured this method with these very settings against retraining."""
    found = cards(folder)
    if any(means(card.identity, method) for every in found.values() for card in every):
        return
    own = sorted({card.identity for card in found.get(name, ())})
    known = f"; measured are {', '.join(own)}" if own else ""
    raise PoaError(
        f"{method!r} has no measured card and may not pay{known}. Measure it with `poa run experiment=fidelity "
        f"method={name}`, or pay all the same with stages.allow_uncarded=true"
    )


def means(identity: str, method: object) -> bool:
    """Whether `identity`, a method's repr, says the settings of `method`.

    A result may be older than an option: one that it does not name has its default there.
    """
    if identity == repr(method):
        return True
    try:
        call = ast.parse(identity, mode="eval").body
        if not isinstance(call, ast.Call) or not is_dataclass(method):
            return False
        named = call.func.id if isinstance(call.func, ast.Name) else ""
        told = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError):
        return False
    known = {field.name: told.get(field.name, field.default) for field in fields(method) if field.init}
    own = {name: getattr(method, name) for name in known}
    return named == type(method).__name__ and told.keys() <= known.keys() and known == own


def _of_run(result: str, told: Mapping[str, Any]) -> Iterator[tuple[str, Card]]:
    """Results of another kind (a table, a benchmark) name no methods."""
    measured: dict[str, Any] = told.get("methods", {})
    for name, row in measured.items():
        if row.get("spearman_vs_truth") is not None:
            low, high = map(float, row["interval"])
            # Not its seconds: methods of one run share gradients, and the first to ask pays for all.
            yield name, Card(result, str(row["identity"]), float(row["spearman_vs_truth"]), low, high)


def _of_tasks(told: Mapping[str, Any]) -> Iterator[tuple[str, Card]]:
    """LDS of a run's own scores at the largest fraction that was removed."""
    for task, found in told["tasks"].items():
        for row in found["methods"].values():
            percent = max(row["lds"], key=float)
            cell = row["lds"][percent]["own_run"]
            value, low, high = (float(cell[key]) for key in ("value", "low", "high"))
            measure = f"LDS at {percent} %"
            yield row["method"], Card(task, row["identity"], value, low, high, measure, _notes(row, percent))


def _notes(row: Mapping[str, Any], percent: str) -> str:
    parts: list[str] = []
    if over := row["lds"][percent].get("ensemble_over_ceiling"):
        parts.append(f"ensemble {over['value']:.2f} of the ceiling")
    if intervals := row["contributors"].get("intervals"):
        parts.append(f"90 % intervals cover {intervals['coverage']:.0%}")
    card = row["card"]
    parts.append(f"{card['trainings']:.1f} trainings")
    parts.append(f"{card['bytes_per_record'] / 1000:.1f} kB a record")
    return f": {', '.join(parts)}"
