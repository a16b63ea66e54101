"""Which methods and contributors the document speaks of, in which order, and which method leads."""

from __future__ import annotations

from collections.abc import Mapping

from poa.report.document import Node

_POLICIES = {"openledger-printed": "OpenLedger’s printed rule", "net-epoch": "poa’s rule (net-epoch/1)"}


def methods(document: Node) -> list[str]:
    """Every method named anywhere, in document order."""
    truth = document.part("truth")
    named: list[str] = [*document.parts("methods"), *document.parts("shares")]
    named += [] if truth is None else list(truth.parts("predicted"))
    for answer in document.rows("answers"):
        for key in ("heat", "records", "shares"):
            held = answer.part(key)
            named += [] if held is None else list(held.value)
    return list(dict.fromkeys(named))


def fidelity(document: Node) -> dict[str, tuple[float, float | None, float | None]]:
    """Rank correlation with retraining (mean, low, high) of the methods that have one."""
    out: dict[str, tuple[float, float | None, float | None]] = {}
    for name, card in document.parts("methods").items():
        measured = card.part("spearman_vs_truth")
        mean = None if measured is None else measured.number("mean")
        if measured is not None and mean is not None:
            out[name] = (mean, measured.number("low"), measured.number("high"))
    return out


def lead(document: Node) -> str | None:
    """The method that the page leads with: best against retraining, else the first with shares, else the first."""
    known, shares = fidelity(document), document.parts("shares")
    with_shares = {name: mean for name, (mean, _, _) in known.items() if not shares or name in shares}
    if with_shares:
        return max(with_shares, key=lambda name: with_shares[name])
    return next(iter(shares), None) or next(iter(methods(document)), None)


def unit(document: Node, method: str) -> str:
    """Unit of a method's scores; empty where its card names none or says that only order counts."""
    card = document.parts("methods").get(method)
    named = "" if card is None else card.text("unit")
    return "" if named == "uncalibrated" else named


def shares(document: Node) -> dict[str, dict[str, float]]:
    """Signed sums over the batch: method → contributor → sum."""
    whole = document.part("shares")
    return {} if whole is None else {name: whole.numbers(name) for name, _ in whole.places()}


def relative(sums: Mapping[str, float]) -> dict[str, float]:
    """Signed sums as fractions of all influence, Σ|s|; all zero where there is none."""
    total = sum(abs(value) for value in sums.values())
    return {name: value / total if total else 0.0 for name, value in sums.items()}


def policy_title(name: str) -> str:
    """A pay rule as a person would call it."""
    return _POLICIES.get(name, name.replace("_", " "))
