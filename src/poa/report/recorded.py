"""Section: the ledger's head, what was verified, and what that does and does not prove."""

from __future__ import annotations

from poa.report import numerals
from poa.report.document import Node
from poa.report.frame import absent, said, section, standfirst, verdict
from poa.report.markup import Html, el, join


def recorded(document: Node) -> Html:
    """Ledger head and verification."""
    found = document.part("ledger")
    if found is None:
        return section("ledger", "The record of it all", absent("a ledger entry"))
    facts = [
        ("Ledger", found.text("origin", numerals.NONE)),
        ("Entries", numerals.whole(found.integer("size"))),
        ("Root", found.text("root", numerals.NONE)),
        ("Receipt", found.text("receipt_id", numerals.NONE)),
    ]
    checked, message = found.flag("verified"), found.text("message")
    if checked is None:
        outcome = absent("verification of the ledger")
    else:
        word = "Verified" if checked else "Not verified"
        outcome = el("p", verdict(checked, word), f" {message}" if message else None, class_="outcome")
    note = found.text("checkpoint")
    return section(
        "ledger",
        "The record of it all",
        standfirst(
            "Data, training, scores and payments are entries in a log to which one can only add. Its signed head below "
            "commits to every entry: whoever keeps it will notice if anything is changed later."
        ),
        outcome,
        el("dl", *(join([el("dt", name), el("dd", el("code", value))]) for name, value in facts), class_="digests"),
        el("h3", "Signed head") if note else None,
        el("pre", note, tabindex=0) if note else absent("a signed head"),
        said(
            "This proves that the numbers were recorded and not changed since. It does not prove that they are right; "
            "for that, see the retraining check."
        ),
    )
