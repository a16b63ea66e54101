"""Section: the counterfactual truth beside the predictions, and the card of each method."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from poa.errors import PoaError
from poa.report import charts, numerals, standing
from poa.report.document import Node
from poa.report.frame import absent, behind, figure, section, standfirst, table
from poa.report.markup import Html, el
from poa.report.scales import Scale

LETTERS = string.ascii_uppercase + string.ascii_lowercase


def truth(document: Node) -> Html:
    """True effects of leaving contributors out, predictions against them, cards."""
    found = document.part("truth")
    intro = standfirst(
        "There is one honest test of such claims: leave a contributor’s data out, train again in the same way, and see "
        "how much worse (or better) the model answers. It is too slow for every answer, so it is done here for a few "
        "contributors and used to grade the methods."
    )
    shown = (
        [absent("retraining without the top contributors")]
        if found is None
        else [_effects(found), *_predictions(document, found)]
    )
    return section("truth", "Checked by retraining", intro, *shown, _cards(document))


def _contributors(found: Node) -> list[str]:
    names = found.texts("contributors") or list(found.numbers("effect"))
    effects = found.numbers("effect")
    missing = [name for name in names if name not in effects]
    if missing:
        raise PoaError(f"report document: truth.effect has no number for contributor {missing[0]!r}; give one in nats")
    return sorted(names, key=lambda name: -effects[name])


def _mark(position: int) -> str:
    return LETTERS[position] if position < len(LETTERS) else "•"


def _effects(found: Node) -> Html:
    effects, errors = found.numbers("effect"), found.numbers("stderr")
    rows = [
        charts.Interval(
            name,
            effects[name],
            effects[name] - 2 * errors[name] if name in errors else None,
            effects[name] + 2 * errors[name] if name in errors else None,
            numerals.with_error(effects[name], 2 * errors[name] if name in errors else None),
            _mark(i),
        )
        for i, name in enumerate(_contributors(found))
    ]
    seeds, queries = found.size("seeds"), found.size("queries")
    ways = f"{numerals.counted(seeds, 'seed')}" if seeds is not None else "an unstated number of seeds"
    asked = f" and {numerals.counted(queries, 'answer')}" if queries is not None else ""
    clear = sum(1 for row in rows if row.low is not None and row.high is not None and (row.low > 0 or row.high < 0))
    return figure(
        "What really happens without each contributor",
        charts.intervals(rows, "True effect of each contributor in nats"),
        f"What a contributor’s data adds to the answers’ log-probability (nats), over {ways}{asked}; right of the "
        f"line = it helped. Whiskers are ± 2 standard errors: {clear} of {len(rows)} effects stand clear of zero.",
    )


def _predictions(document: Node, found: Node) -> list[Html]:
    predicted = {name: part for name in found.parts("predicted") if (part := _of(found, name))}
    if not predicted:
        return [absent("predicted effects to compare with the truth")]
    names = _contributors(found)
    effects, errors = found.numbers("effect"), found.numbers("stderr")
    lead = standing.lead(document)
    order = sorted(predicted, key=lambda name: name != lead)
    panels = [_panel(document, name, predicted[name], names, effects, errors) for name in order]
    rows = [
        [
            f"{_mark(i)} {name}",
            numerals.signed(effects[name], 4),
            numerals.plain(errors.get(name)),
            *(numerals.signed(predicted[method].get(name), 4) for method in order),
        ]
        for i, name in enumerate(names)
    ]
    head = [
        "Contributor",
        "True effect (nats)",
        "Standard error",
        *(f"{name} ({standing.unit(document, name) or 'own unit'})" for name in order),
    ]
    return [
        figure(
            "Predicted against true",
            el("div", *panels, class_="multiples wide"),
            "Each lettered dot is a contributor of the chart above. A good method puts the dots on a rising line: what "
            "it predicts to help most does help most. Only order counts for methods whose unit is not nats.",
            behind("Truth and predictions as a table", table("Truth and predictions", head, rows)),
        )
    ]


def _of(found: Node, method: str) -> dict[str, float]:
    part = found.part("predicted")
    return {} if part is None else part.numbers(method)


def _panel(
    document: Node,
    method: str,
    predicted: Mapping[str, float],
    names: Sequence[str],
    effects: Mapping[str, float],
    errors: Mapping[str, float],
) -> Html:
    points = [
        charts.Point(
            _mark(i),
            f"{name}: predicted {numerals.signed(predicted[name])}, true {numerals.signed(effects[name])} nats",
            predicted[name],
            effects[name],
            2 * errors[name] if name in errors else None,
        )
        for i, name in enumerate(names)
        if name in predicted
    ]
    known = standing.fidelity(document).get(method)
    rank = f" rank correlation {numerals.correlation(known[0])}" if known else ""
    unit = standing.unit(document, method) or "own unit"
    title = f"{method}: predicted against true effect of {len(points)} contributors"
    return el(
        "div",
        el("h4", method, el("small", rank)),
        charts.scatter(points, title, f"predicted ({unit})", "true effect (nats)"),
    )


def _cards(document: Node) -> Html:
    cards = document.parts("methods")
    if not cards:
        return absent("cards of the methods")
    known = standing.fidelity(document)
    numbers = table(
        "Method cards",
        ["Method", "Family", "What it is", "Source", "Unit", "Time"],
        [
            [
                name,
                card.text("family", numerals.NONE),
                el("code", card.text("identity", numerals.NONE)),
                card.text("citation", numerals.NONE),
                card.text("unit", numerals.NONE),
                numerals.seconds(card.number("seconds")),
            ]
            for name, card in cards.items()
        ],
        4,
    )
    folded = behind("What each method is, and what it cost", numbers)
    if not known:
        return figure("How well each method did", absent("rank correlation with retraining"), "", folded)
    found = document.part("truth")
    ceiling = None if found is None else found.number("ceiling")
    order = sorted(cards, key=lambda name: -known[name][0] if name in known else 9)
    rows = [
        charts.Interval(name, *known[name], _range(*known[name]), note=_note(cards[name]))
        for name in order
        if name in known
    ]
    unknown = [name for name in order if name not in known]
    line = f" Dashed, {numerals.correlation(ceiling)}: how well retraining agrees with itself, the best to hope for."
    line = "" if ceiling is None else line
    silent = f" Not graded: {', '.join(unknown)}." if unknown else ""
    return figure(
        "How well each method did",
        charts.intervals(
            rows, "Rank correlation with retraining", Scale(min(-0.1, *_ends(rows)) - 0.05, 1.05), ceiling
        ),
        f"Rank correlation with the true effects and its interval: 1 = perfect order, 0 = chance.{line}{silent}",
        folded,
    )


def _note(card: Node) -> str:
    return " · ".join(
        filter(
            None,
            [
                card.text("family"),
                numerals.seconds(card.number("seconds")) if card.number("seconds") is not None else "",
            ],
        )
    )


def _range(mean: float, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return numerals.correlation(mean)
    return f"{numerals.correlation(mean)} ({numerals.correlation(low)}\u00a0to\u00a0{numerals.correlation(high)})"


def _ends(rows: Sequence[charts.Interval]) -> list[float]:
    return [end for row in rows for end in (row.value, row.low) if end is not None]
