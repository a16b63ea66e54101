"""The page: sections in order, style and script inline, a policy that forbids every request."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from poa.files import write_atomic
from poa.report import standing
from poa.report.answers import answers, switches
from poa.report.attacks import attacks
from poa.report.colophon import colophon, limits
from poa.report.document import Node
from poa.report.influence import influence
from poa.report.intake import intake
from poa.report.lede import lede
from poa.report.markup import Html, el, trusted
from poa.report.payout import payout
from poa.report.recorded import recorded
from poa.report.training import training
from poa.report.truth import truth

_CONTENTS = (
    ("intake", "What went in"),
    ("model", "The model"),
    ("answers", "The answers"),
    ("influence", "Who shaped them"),
    ("truth", "Checked by retraining"),
    ("attacks", "What cheats would earn"),
    ("payout", "Who is paid"),
    ("ledger", "The record"),
    ("limits", "Limits"),
)

# Hatching for what is held back; defined once, referred to by the style sheet.
_PATTERNS = trusted(
    '<svg class="unseen" width="0" height="0" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch-ground" width="6" height="6"></rect><rect class="hatch-line" width="2" height="6"></rect>'
    "</pattern></defs></svg>"
)


def render(document: Mapping[str, Any]) -> str:
    """One self-contained HTML page from a report document (docs: the schema of `poa.report`).

    Absent parts are named as not computed. Raises `PoaError` naming the path of a value of the wrong type, a span
    that is not verbatim, heat that does not fit the tokens, or a payout that does not add up to its fee. The same
    document gives the same bytes.
    """
    node = Node(document)
    title = node.text("title", "Whose data shaped these answers?")
    script = _asset("page.js")
    style = _asset("page.css") + "\n" + switches(len(standing.methods(node)))
    body = [
        el("a", "Skip to the report", href="#intake", class_="skip"),
        _PATTERNS,
        el("header", _made(node), el("h1", title), lede(node), _contents()),
        el(
            "main",
            *(
                part(node)
                for part in (intake, training, answers, influence, truth, attacks, payout, recorded, limits, colophon)
            ),
        ),
        el("script", trusted(script)),
    ]
    head = [
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_policy(script)),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", trusted(style)),
    ]
    return "<!doctype html>\n" + el("html", el("head", *head), "\n", el("body", *body), lang="en") + "\n"


def write(document: Mapping[str, Any], path: str | Path) -> None:
    """Write the rendered page to `path`, whole or not at all."""
    write_atomic(Path(path), render(document).encode())


def _made(node: Node) -> Html:
    day = node.text("created")
    return el("p", " · ".join(filter(None, ["Proof of attribution", day])), class_="eyebrow")


def _contents() -> Html:
    return el(
        "nav",
        el("ol", *(el("li", el("a", title, href=f"#{name}")) for name, title in _CONTENTS)),
        aria_label="Contents",
    )


def _policy(script: str) -> str:
    """Nothing may be loaded; the one script is named by its digest."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = ("default-src 'none'", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'")
    return "; ".join((*allowed, "base-uri 'none'", "form-action 'none'"))


def _asset(name: str) -> str:
    return files("poa.report").joinpath(name).read_text(encoding="utf-8")
