"""Section: the model, what training changed, and how its loss fell."""

from __future__ import annotations

import math

from poa.report import charts, numerals
from poa.report.document import Node
from poa.report.frame import absent, behind, figure, said, section, standfirst, table
from poa.report.markup import Html, el, join

MOST_ROWS = 60


def training(document: Node) -> Html:
    """Sizes, digests, held-out loss before and after, loss curve."""
    model = document.part("model")
    if model is None:
        return section("model", "The model", absent("a training run"))
    intro = standfirst(
        f"{model.text('name') or 'The model'} has {numerals.roughly(model.integer('parameters'))} parameters. ",
        f"Training changed only a small adapter of {numerals.roughly(model.integer('adapter_parameters'))} numbers ",
        "on top of it; all influence on this page is influence on that adapter.",
    )
    return section("model", "The model", intro, _heldout(model), _loss(model), _digests(model))


def _heldout(model: Node) -> Html:
    measured = model.part("heldout_nll")
    base = None if measured is None else measured.number("base")
    tuned = None if measured is None else measured.number("tuned")
    if base is None or tuned is None:
        return absent("the loss on held-out text")
    change = 1 - math.exp(tuned - base)
    verb, word = ("fell", "less") if tuned < base else ("rose", "more")
    return said(
        "On text that it never saw, the loss ",
        el("b", f"{verb} from {numerals.plain(base)} to {numerals.plain(tuned)} nats per token"),
        f": per token the model is {numerals.percent(abs(change))} {word} perplexed than before.",
    )


def _loss(model: Node) -> Html:
    points = model.pairs("loss")
    if len(points) < 2:
        return absent("the loss curve")
    every = math.ceil(len(points) / MOST_ROWS)
    rows = [[numerals.plain(step, 6), numerals.plain(nats, 4)] for step, nats in points[::every]]
    which = "Every step" if every == 1 else f"One step in {every}"
    title = f"Training loss from {numerals.plain(points[0][1])} to {numerals.plain(points[-1][1])} nats per token"
    return figure(
        "Loss while training",
        charts.line(points, title, "training step", "nats per token"),
        "Lower is better: how surprised the model is by each token of the batch it is about to learn from.",
        behind("The loss as a table", table(which, ["Step", "Nats per token"], rows)),
    )


def _digests(model: Node) -> Html:
    named = (("Base model", "base_digest"), ("Adapter", "adapter_digest"))
    return el(
        "dl",
        *(join([el("dt", name), el("dd", el("code", model.text(key, numerals.NONE)))]) for name, key in named),
        class_="digests",
    )
