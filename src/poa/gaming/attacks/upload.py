"""Attack rows as records: names, times and owners as the attacker would register them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from poa.digests import plain_digest
from poa.errors import PoaError
from poa.gaming.view import View
from poa.records import Corpus, Record
from poa.rewards.apportion import integer


def budget(view: View, times: int) -> int:
    """Rows that `times` the attacker's own ones are (beta in GAMING section 2)."""
    return len(view.own) * times


def check_budget(attack: str, times: int, seed: int) -> None:
    """Raises `PoaError` unless `times` is an integer from 1 on and `seed` one from 0 on."""
    integer(times, f"{attack}.times", 1)
    integer(seed, f"{attack}.seed")


def public_texts(view: View, attack: str) -> Corpus:
    """The public corpus; raises `PoaError` where the view lacks it or a record has features in place of text."""
    if not len(view.public):
        raise PoaError(f"{attack} needs knowledge K1 (the public corpus); this view has {view.knowledge}")
    for record in view.public:
        if record.features:
            raise PoaError(f"{attack} writes text; record {record.id!r} has features")
    return view.public


def upload(view: View, attack: str, seed: int, written: Iterable[tuple[Record, str]]) -> tuple[Record, ...]:
    """One record per (model, text): prompt, datanet and licence of the model, the attacker's name, a later time.

    Ids hold a digest of attacker and seed, so that they are legal and collide with nobody's, whatever the names.
    """
    stem = f"{attack}-{plain_digest([view.attacker, seed])[:12]}"
    return tuple(
        replace(model, id=f"{stem}-{i:05d}", text=text, contributor=view.attacker, registered=view.now + i)
        for i, (model, text) in enumerate(written)
    )
