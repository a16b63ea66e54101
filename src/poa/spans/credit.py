"""Rule P: every covered token goes to whoever registered an informative span that covers it first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from poa.errors import Mismatch, PoaError
from poa.spans.calibrate import Calibration
from poa.spans.index import SpanIndex
from poa.spans.information import Unigram, require_vocabulary, shortest_windows
from poa.spans.masks import Commons, common_property, from_input

Array = npt.NDArray[Any]
OWNER, WITHDRAWN, FROM_INPUT, COMMONS, UNATTRIBUTED = "owner", "withdrawn", "from_input", "commons", "unattributed"


@dataclass(frozen=True)
class Priority:
    """Rule P with everything it depends on besides index, request and output.

    theta: least information of a span that earns, in 1/1024 bit, above `unigram.cap` so that no single token earns.
    mask_theta: the same for the masks; None means theta. theta is calibrated per index and so follows contributions;
    a fixed mask_theta keeps the masks apart from them, and makes coverage fall whenever theta rises.
    """

    unigram: Unigram
    theta: int
    commons: Commons | None = None
    mask_theta: int | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        for name, value in (("theta", self.theta), ("mask_theta", self.mask_theta)):
            if value is not None and value <= self.unigram.cap:
                cap = self.unigram.cap
                raise PoaError(
                    f"{name} is {value}; it must be above the unigram cap of {cap}, or one token earns alone"
                )
        if self.calibration is not None and self.calibration.theta != self.theta:
            raise Mismatch(f"theta is {self.theta}, its calibration says {self.calibration.theta}")

    @staticmethod
    def calibrated(
        calibration: Calibration, unigram: Unigram, commons: Commons | None = None, mask_theta: int | None = None
    ) -> Priority:
        return Priority(unigram, calibration.theta, commons, mask_theta, calibration)


@dataclass(frozen=True)
class CreditedWindow:
    """Output tokens [start, end), first registered as part of `record_id`; `tokens` are those it wins.

    position: where the window starts in the record, in tokens. withdrawn: its weight goes to that account instead.
    """

    start: int
    end: int
    owner: str
    record_id: str
    position: int
    tokens: tuple[int, ...]
    weight: int
    withdrawn: bool


@dataclass(frozen=True)
class SpanCredit:
    """One output's weight, split: owners and the four accounts add up to `total` exactly.

    owners: by name, positive. accounts: per token "owner", "withdrawn", "from_input", "commons" or "unattributed"
    (shown as "no source"). windows: in order of start. digests: of index, unigram, commons and decoys where there are.
    """

    owners: Mapping[str, int]
    from_input: int
    commons: int
    withdrawn: int
    unattributed: int
    total: int
    accounts: tuple[str, ...]
    windows: tuple[CreditedWindow, ...]
    theta: int
    mask_theta: int
    alpha: float | None
    digests: Mapping[str, str]


def credit(
    index: SpanIndex,
    output_tokens: Sequence[int] | Array,
    rule: Priority,
    *,
    passages: Sequence[Sequence[int] | Array] = (),
    weights: Sequence[int] | None = None,
    withdrawn: Collection[str] = (),
) -> SpanCredit:
    """Split the weight of `output_tokens` among owners and accounts under rule P.

    In this order: tokens of informative windows that stand in `passages` (the request's own text and what was
    retrieved) are `from_input`; of the rest, those that enough frozen reference documents hold are `commons`; masked
    tokens carry 0 bits from then on. Every other token goes wholly to the earliest registered document that holds any
    span of `theta` or more that covers it, else to `unattributed`. weights: int[m] of 0 or more, default 1 each.
    withdrawn: record ids that keep their place in time but pay into that account. Raises `PoaError` for wrong tokens or
    weights and `Mismatch` where rule and index do not belong together.
    """
    _require(index, rule)
    output = index.encode(output_tokens, "output")
    given = _weights(weights, output.size)
    bits = rule.unigram.information(output).copy()
    mask_theta = rule.theta if rule.mask_theta is None else rule.mask_theta
    accounts: Array = np.full(output.size, UNATTRIBUTED, object)
    if passages:
        copied = from_input(index, output, bits, mask_theta, passages)
        accounts[copied], bits[copied] = FROM_INPUT, 0
    if rule.commons is not None:
        shared = common_property(rule.commons, output, bits, mask_theta) & (accounts == UNATTRIBUTED)
        accounts[shared], bits[shared] = COMMONS, 0
    won = _windows(index, output, bits, rule.theta, accounts == UNATTRIBUTED, given, frozenset(withdrawn))
    owners: Counter[str] = Counter()
    for window in won:
        accounts[list(window.tokens)] = WITHDRAWN if window.withdrawn else OWNER
        owners[window.owner] += 0 if window.withdrawn else window.weight
    sums = {name: int(given[accounts == name].sum()) for name in (FROM_INPUT, COMMONS, WITHDRAWN, UNATTRIBUTED)}
    return SpanCredit(
        {owner: owners[owner] for owner in sorted(owners) if owners[owner]},
        sums[FROM_INPUT],
        sums[COMMONS],
        sums[WITHDRAWN],
        sums[UNATTRIBUTED],
        int(given.sum()),
        tuple(accounts.tolist()),
        won,
        rule.theta,
        mask_theta,
        None if rule.calibration is None else rule.calibration.alpha,
        _digests(index, rule),
    )


def _windows(
    index: SpanIndex, output: Array, bits: Array, theta: int, open_: Array, weights: Array, withdrawn: frozenset[str]
) -> tuple[CreditedWindow, ...]:
    from poa.spans.claims import claimed
    from poa.spans.search import first_positions, intervals, reach

    starts, ends = shortest_windows(bits, theta)
    there = ends <= reach(index, output)[starts]
    starts, ends = starts[there], ends[there]
    first = first_positions(index, *intervals(index, output, starts, ends))
    order = np.lexsort((ends, starts, first))
    winner = np.where(open_, claimed(starts[order], ends[order], output.size), -1)
    out: list[CreditedWindow] = []
    for i in np.unique(winner[winner >= 0]).tolist():
        pick = int(order[i])
        document = int(index.document_of(first[pick]))
        tokens = np.flatnonzero(winner == i)
        record_id = index.record_ids[document]
        out.append(
            CreditedWindow(
                int(starts[pick]),
                int(ends[pick]),
                index.owner(document),
                record_id,
                int(first[pick] - index.offsets[document] - 1),
                tuple(tokens.tolist()),
                int(weights[tokens].sum()),
                record_id in withdrawn,
            )
        )
    return tuple(sorted(out, key=lambda window: (window.start, window.end)))


def _require(index: SpanIndex, rule: Priority) -> None:
    require_vocabulary(index, rule.unigram)
    if rule.calibration is not None:
        rule.calibration.require(index, rule.unigram)
    if rule.commons is not None:
        other = rule.commons.index
        if (other.tokenizer_digest, other.vocab_size) != (index.tokenizer_digest, index.vocab_size):
            raise Mismatch("the commons index was made with another tokenizer than the span index")


def _weights(weights: Sequence[int] | None, m: int) -> npt.NDArray[np.int64]:
    if weights is None:
        return np.ones(m, np.int64)
    given: Array = np.asarray(weights) if len(weights) else np.zeros(0, np.int64)
    if given.shape != (m,) or given.dtype.kind not in "iu" or bool((given < 0).any()):
        raise PoaError(f"weights must be {m} integers of 0 or more, one per output token")
    return given.astype(np.int64)


def _digests(index: SpanIndex, rule: Priority) -> dict[str, str]:
    out = {"index": index.digest, "unigram": rule.unigram.digest}
    if rule.commons is not None:
        out["commons"] = rule.commons.index.digest
    if rule.calibration is not None:
        out["decoys"] = rule.calibration.decoy_digest
    return out
