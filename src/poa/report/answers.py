"""Section: the answers, shaded by influence, underlined where they are verbatim, with the records behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from poa.report import charts, numerals, passage, standing
from poa.report.document import Node
from poa.report.frame import absent, behind, section, standfirst, table
from poa.report.markup import Html, el, join
from poa.report.passage import Passage, Source, Span
from poa.report.scales import STEPS

KINDS = {
    "held-out": "held-out text",
    "generated": "written by the model",
    "user": "your question",
    "placebo": "placebo",
}
LONG = 320
MOST_BARS = 10


def answers(document: Node) -> Html:
    """One card an answer; the first is open."""
    found = document.rows("answers")
    if not found:
        return section("answers", "The answers, word by word", absent("answers with their influence"))
    names = standing.methods(document)
    units = {name: standing.unit(document, name) for name in names}
    cards = [_card(answer, i, names, units, standing.lead(document)) for i, answer in enumerate(found)]
    intro = standfirst(
        "Shading shows which words of an answer the training data moved: ",
        el("b", "blue", class_="p3"),
        " words became likelier because of the records, ",
        el("b", "orange, striped", class_="n3"),
        " words less likely. An ",
        el("span", "underline", class_="credited"),
        " is a different kind of evidence: those words stand in the training data exactly so; "
        "a small bar marks where another such match begins. ",
        "A match shows presence, not cause, which is why the two are kept apart.",
    )
    return section("answers", "The answers, word by word", intro, *cards)


def switches(count: int) -> Html:
    """Style rules by which the chosen radio button picks one of `count` methods; no script is needed."""
    rules: list[str] = []
    for k in range(count):
        chosen = f'.answer:has(.pick[value="{k}"]:checked)'
        rules.append(f'{chosen} .panel:not([data-m="{k}"]){{display:none}}')
        rules += [
            f'{chosen} .t[data-h{k}="{sign}{step}"]{{background:var(--{sign}{step})}}'
            for sign in "pn"
            for step in range(1, STEPS + 1)
        ]
    return Html("\n".join(rules))


def _card(answer: Node, number: int, names: Sequence[str], units: Mapping[str, str], lead: str | None) -> Html:
    text, anchor = passage.read(answer), f"a{number + 1}"
    records, sums = answer.listed("records"), _sums(answer)
    mine = [name for name in names if name in text.heat or name in records or name in sums]
    chosen = lead if lead in mine else next(iter(mine), None)
    kind = answer.text("kind")
    badge = el("span", KINDS.get(kind, kind), class_=f"kind {'placebo' if kind == 'placebo' else ''}".strip())
    title = answer.text("prompt").strip() or answer.text("text").strip()
    heading = el("h3", el("span", f"{number + 1}. ", class_="count"), _cut(title, 110), dir="auto")
    return el(
        "details",
        el(
            "summary",
            badge,
            heading,
            el("span", _gist(answer, text, sums.get(chosen or "", {}), chosen), class_="gist"),
        ),
        _asked(answer),
        _picker(anchor, mine, names, chosen),
        el("p", passage.drawn(text, names, units, anchor), **_reading(bool(text.heat))),
        _legend(text, names, units),
        _sources(text.spans, anchor),
        *(_panel(name, names.index(name), records.get(name), sums.get(name), units[name]) for name in mine),
        _numbers(text, mine) if text.heat else None,
        class_="answer",
        id=anchor,
        open=number == 0,
    )


def _reading(heat: bool) -> dict[str, str | int | None]:
    told = "Answer text. The left and right arrow keys read out the influence on each word." if heat else None
    return {
        "class_": "passage",
        "dir": "auto",
        "tabindex": 0 if heat else None,
        "role": "group" if heat else None,
        "aria_label": told,
    }


def _gist(answer: Node, text: Passage, sums: Mapping[str, float], chosen: str | None) -> str:
    """One line on a closed card: what there is to see inside."""
    said: list[str] = []
    gain = _gain(answer)
    if gain is not None:
        said.append(f"training moved it by {numerals.signed(gain)} nats")
    if sums and answer.text("kind") != "placebo" and (best := max(sums.items(), key=lambda item: item[1]))[1] > 0:
        said.append(f"helped most by {best[0]} ({chosen})")
    if text.spans:
        said.append(f"{numerals.counted(len(text.spans), 'verbatim span')}")
    return " · ".join(said)


def _asked(answer: Node) -> Html:
    prompt, contributor = answer.text("prompt").strip(), answer.text("contributor")
    gain, measured = _gain(answer), answer.part("measurement")
    facts: list[str] = []
    if measured is not None and gain is not None:
        facts.append(
            f"Log-probability of this text: {numerals.plain(measured.number('base'), 4)} nats before training, "
            f"{numerals.plain(measured.number('tuned'), 4)} after ({numerals.signed(gain)})."
        )
    if contributor:
        facts.append(f"Held out from {contributor}; the model was not trained on it.")
    if answer.text("kind") == "placebo":
        facts.append("A placebo: no record can have helped here, so what is shown is noise.")
    asked = (
        el("blockquote", el("span", "Prompt", class_="tag"), prompt, dir="auto", class_="prompt") if prompt else None
    )
    return join([asked or Html(), el("p", " ".join(facts), class_="facts") if facts else Html()])


def _gain(answer: Node) -> float | None:
    measured = answer.part("measurement")
    base = None if measured is None else measured.number("base")
    tuned = None if measured is None else measured.number("tuned")
    return None if base is None or tuned is None else tuned - base


def _picker(anchor: str, mine: Sequence[str], names: Sequence[str], chosen: str | None) -> Html | None:
    if not mine:
        return None
    buttons = [
        el(
            "label",
            el(
                "input",
                type="radio",
                class_="pick",
                name=f"{anchor}-method",
                value=names.index(name),
                checked=name == chosen,
            ),
            el("span", name),
        )
        for name in mine
    ]
    return el("fieldset", el("legend", "Seen by method"), *buttons, class_="methods")


def _legend(text: Passage, names: Sequence[str], units: Mapping[str, str]) -> Html | None:
    if not text.heat:
        return el("p", "No influence per word was computed for this answer.", class_="absent")
    tops = passage.peaks(text)
    steps = [
        el("span", word, class_=f"key {step}")
        for step, word in (("n4", "hurt −"), ("n2", ""), ("z", "0"), ("p2", ""), ("p4", "+ helped"))
    ]
    strongest = [
        el(
            "span",
            f"Full colour = {numerals.plain(tops[name], 2)} {units[name]}".rstrip() + " on one word.",
            class_="panel",
            data_m=k,
        )
        for k, name in enumerate(names)
        if name in text.heat
    ]
    silent = [
        el("span", "This method gives no value per word.", class_="panel", data_m=k)
        for k, name in enumerate(names)
        if name not in text.heat
    ]
    readout = el("output", "Point at a word, tap it, or use the arrow keys to read its numbers.", class_="readout")
    return join([el("p", el("span", *steps, class_="keys"), *strongest, *silent, class_="legend"), readout])


def _sources(spans: Sequence[Span], anchor: str) -> Html | None:
    if not spans:
        return el("p", "No verbatim span of this answer was found in the training data.", class_="facts")
    items = [_span(span, i + 1, anchor) for i, span in enumerate(spans)]
    return join([el("h4", "Found word for word in the training data"), el("ol", *items, class_="sources")])


def _span(span: Span, number: int, anchor: str) -> Html:
    facts = [numerals.counted(span.length, "token") if span.length is not None else ""]
    facts.append(f"{numerals.counted(span.count, 'time')} in the corpus" if span.count is not None else "")
    facts.append(f"chance of such a match {numerals.power(span.chance)}" if span.chance is not None else "")
    standing_ = "informative" if span.credited else "commonplace"
    back = el("a", "↑ to the text", href=f"#{anchor}-ref{number}", class_="back")
    head = el(
        "p",
        el("b", standing_, class_="credited" if span.credited else "seen"),
        " · ".join(["", *filter(None, facts)]),
        " ",
        back,
    )
    first, rest = span.sources[:2], span.sources[2:]
    more = (
        el("details", el("summary", f"{numerals.counted(len(rest), 'more record')}"), *map(_quotation, rest))
        if rest
        else None
    )
    return el("li", head, *map(_quotation, first), more, id=f"{anchor}-span{number}")


def _quotation(source: Source) -> Html:
    words = el("span", _tail(source.before), el("mark", source.match), _cut(source.after, 120))
    who = el("cite", source.contributor, " · ", el("code", source.record))
    return el("blockquote", words, who, dir="auto")


def _panel(name: str, index: int, records: Sequence[Node] | None, sums: Mapping[str, float] | None, unit: str) -> Html:
    ranked = [_record(record, unit) for record in records or ()]
    listed = el("ol", *ranked, class_="records") if ranked else absent(f"top records by {name}")
    left = el("div", el("h4", f"Records that moved this answer most, by {name}"), listed)
    right = el("div", el("h4", f"By contributor ({unit or 'method’s own unit'})"), _bars(sums, name)) if sums else None
    return el("div", left, right, class_="panel pair", data_m=index)


def _bars(sums: Mapping[str, float], name: str) -> Html:
    order = sorted(sums, key=lambda who: -abs(sums[who]))[:MOST_BARS]
    rows = [
        charts.Bar(who, sums[who], numerals.signed(sums[who], 2)) for who in sorted(order, key=lambda who: -sums[who])
    ]
    left = len(sums) - len(rows)
    note = el("p", f"and {numerals.counted(left, 'contributor')} with less", class_="facts") if left else None
    return join([charts.bars(rows, f"Signed influence by contributor, {name}"), note or Html()])


def _record(record: Node, unit: str) -> Html:
    score, text = record.number("score"), record.text("text")
    sign = "helped" if (score or 0) >= 0 else "hurt"
    where = " · ".join(filter(None, [record.text("datanet"), record.text("record_id")]))
    who = el(
        "p",
        el("b", record.text("contributor")),
        " ",
        el("small", where),
        " ",
        el("span", f"{sign} {numerals.signed(score, 2)}", class_=f"score {sign}", title=unit or None),
    )
    if len(text) <= LONG:
        return el("li", who, el("p", text, class_="excerpt", dir="auto"))
    start = _cut(text, LONG)
    return el("li", who, el("details", el("summary", start, dir="auto"), el("p", text, class_="excerpt", dir="auto")))


def _numbers(text: Passage, mine: Sequence[str]) -> Html:
    shown = [name for name in mine if name in text.heat]
    rows = [
        [str(i + 1), text.text[start:end], *(numerals.signed(text.heat[name][i]) for name in shown)]
        for i, (start, end) in enumerate(text.tokens)
    ]
    return behind(
        "Influence on each token as a table",
        table("Influence on each token by method", ["#", "token", *shown], rows, 2),
    )


def _sums(answer: Node) -> dict[str, dict[str, float]]:
    whole = answer.part("shares")
    return {} if whole is None else {name: whole.numbers(name) for name, _ in whole.places()}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most].rstrip()}…"


def _tail(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"…{text[-most:].lstrip()}"
