"""What committed results measured of each method: its card, as far as there is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poa.errors import PoaError


@dataclass(frozen=True)
class Card:
    """Agreement with retraining in one committed result: mean Spearman over queries and its interval.

    Not the seconds of the result: methods of one run share gradients, and the first to ask pays for all.
    """

    result: str
    identity: str
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = f"[{self.low:+.2f}, {self.high:+.2f}]"
        return f"Spearman {self.mean:+.2f} {interval} with retraining ({self.result})"


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
            # Results of another kind (a table, a benchmark) name no methods.
            measured: dict[str, Any] = result.get("methods", {})
            for name, row in measured.items():
                if row.get("spearman_vs_truth") is not None:
                    low, high = map(float, row["interval"])
                    mean = float(row["spearman_vs_truth"])
                    card = Card(path.stem, str(row["identity"]), mean, low, high)
                    found[name] = (*found.get(name, ()), card)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PoaError(f"{path} is not a committed result: {type(error).__name__}: {error}") from error
    return found
