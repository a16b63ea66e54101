"""Credit: the scores of one response as signed integer fractions of it, and what nobody is credited for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError
from poa.rewards.apportion import largest_remainder
from poa.scores import Scores

UNIT = 10**9
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Positive scores become integers relative to the query's largest one; 2**22 records of 2**40 fit into int64.
_SCALE = 2**40
_MOST_RECORDS = 2**22


@dataclass(frozen=True, eq=False)
class Credit:
    """Who is credited for which fraction of each response, in units of 1e-9 of the response.

    fractions: [Q, C] int64, signed, positive = the payee's records helped; columns follow `payees` (ids ascending).
    base, unattributed, below_threshold: [Q] int64 >= 0, the residual accounts. For every query the fractions and
    the residuals add up to exactly 10^9, and the absolute fractions to at most 10^9, so that one response can move
    no more than its own fee. Raises `PoaError` naming the query otherwise.

    The residuals of a net-negative response exceed 10^9 together: they are 10^9 minus a negative sum. That is
    intended. The negative evidence has to reach the epoch, where it is netted against the positive; forcing the
    residuals under 10^9 would clip it per response, and clipping per response turns noise into pay.
    """

    query_ids: tuple[str, ...]
    payees: tuple[str, ...]
    fractions: Ints
    base: Ints
    unattributed: Ints
    below_threshold: Ints

    def __post_init__(self) -> None:
        check_payees(self.payees, "credit")
        queries = len(self.query_ids)
        shapes = {"fractions": (queries, len(self.payees))}
        shapes |= dict.fromkeys(("base", "unattributed", "below_threshold"), (queries,))
        for name, shape in shapes.items():
            array: npt.NDArray[np.generic] = getattr(self, name)
            if array.shape != shape or array.dtype != np.int64:
                raise PoaError(f"credit: {name} is {array.dtype} {array.shape}, must be int64 {shape}")
        residuals = np.stack([self.base, self.unattributed, self.below_threshold])
        self._refuse("a residual below 0 or above 2e9", np.any((residuals < 0) | (residuals > 2 * UNIT), axis=0))
        # Bounded one by one first, so that the sums below cannot wrap around.
        self._refuse("a fraction beyond 1e9", np.any((self.fractions > UNIT) | (self.fractions < -UNIT), axis=1))
        self._refuse("absolute fractions above 1e9 together", np.abs(self.fractions).sum(axis=1) > UNIT)
        self._refuse("a sum other than 1e9", self.fractions.sum(axis=1) + residuals.sum(axis=0) != UNIT)

    def _refuse(self, what: str, bad: npt.NDArray[np.bool_]) -> None:
        if bad.any():
            raise PoaError(f"credit of query {self.query_ids[int(bad.argmax())]!r} has {what}")


def check_payees(payees: tuple[str, ...], where: str) -> None:
    """Raises `PoaError` beginning with `where` unless the ids are non-empty, ascending and each there once."""
    if "" in payees:
        raise PoaError(f"{where}: a payee id is empty; every record that may be paid for needs a payee")
    for first, second in pairwise(payees):
        if first >= second:
            raise PoaError(f"{where}: payees must ascend, each once; {second!r} follows {first!r}")


def net_credit(by_payee: Scores, tuned: npt.ArrayLike, base: npt.ArrayLike) -> Credit:
    """Signed credit per payee that no response exceeds, and none for what training as a whole did not bring about.

    by_payee: [Q, C] signed scores in nats, one column per payee (`scores.by("payee")`). tuned, base: [Q] total
    log-probability (nats, <= 0) of the response under the tuned model and under the model before tuning.
    With B = -base, tuning moved the fraction m = min(1, |tuned - base| / B) of the response, and payee c is
    credited f_c = s_c / B, all scaled down by m / sum |f| where the evidence claims more than m. Where tuning made
    the response *less* likely, positive evidence counts as 0: what all contributors brought about together is
    tuned - base (the efficiency of Shapley values), so together they cannot have helped. Random words are such
    responses: methods find similar training texts for them as for any other, and without this bound they draw pay.
    Negative evidence stays. Fractions are rounded towards zero; what tuning did not move is `base`, the rest
    `unattributed` (more than m where the evidence is net negative, see `Credit`). The significance gate belongs to
    the epoch, so `below_threshold` is 0 here.
    Raises `PoaError` on uncalibrated scores (their size means nothing, so it must not pay), on unsorted payees, and
    on measurements that are not finite, not <= 0 or not one per query. Source: capped marginal effect, own rule.
    """
    if by_payee.unit != "nats":
        raise PoaError("only scores in nats can be paid; calibrate with scores.scaled(slope, note) first")
    check_payees(by_payee.train_ids, "scores (roll them up with by('payee'))")
    before = _log_probabilities("base", base, by_payee)
    change = _log_probabilities("tuned", tuned, by_payee) - before
    room = np.maximum(-before, np.finfo(np.float64).tiny)
    moved = np.minimum(np.abs(change), room) / room
    claims = np.asarray(by_payee.values, np.float64)
    scores = np.where((change < 0)[:, None], np.minimum(claims, 0.0), claims)
    evidence = _absolute_sums(scores, by_payee.query_ids)
    fractions = np.zeros(scores.shape, np.int64)
    for query, row in enumerate(scores):
        limit = moved[query]
        claimed_too_much = evidence[query] > limit * room[query]
        scaled = row * (limit / evidence[query]) if claimed_too_much else row / room[query]
        fractions[query] = np.trunc(scaled * UNIT).astype(np.int64)
    residual_base = UNIT - np.ceil(moved * UNIT).astype(np.int64)
    unattributed = UNIT - residual_base - fractions.sum(axis=1)
    none = np.zeros(len(by_payee.query_ids), np.int64)
    return Credit(by_payee.query_ids, by_payee.train_ids, fractions, residual_base, unattributed, none)


def printed_credit(by_record: Scores, group: str = "contributor") -> Credit:
    """The rule as OpenLedger's public description prints it: a baseline that the gauntlet attacks, never payable.

    by_record: [Q, N] scores per record in any unit, positive = helped, with labels for `group`. Every record is
    clipped at 0 per query, summed per label and normalised to exactly 10^9 by largest remainder (ties by ascending
    id) over integers: each positive score is taken as floor(2^40 * score / largest score of the query). A query
    without any positive score is all `unattributed`. Raises `PoaError` where the group is unknown, a label is empty,
    or there are more than 4,194,304 records.
    """
    if group not in by_record.groups:
        raise PoaError(f"no group {group!r}; these scores know {sorted(by_record.groups)}")
    if len(by_record.train_ids) > _MOST_RECORDS:
        raise PoaError(f"{len(by_record.train_ids)} records are too many for exact sums; at most {_MOST_RECORDS}")
    labels = by_record.groups[group]
    payees = tuple(sorted(set(labels)))
    position = {payee: column for column, payee in enumerate(payees)}
    columns = np.array([position[label] for label in labels], np.intp)
    fractions = np.zeros((len(by_record.query_ids), len(payees)), np.int64)
    for query, row in enumerate(np.asarray(by_record.values, np.float64)):
        if row.size and row.max() > 0:
            sums = np.zeros(len(payees), np.int64)
            np.add.at(sums, columns, (np.maximum(row, 0) / row.max() * _SCALE).astype(np.int64))
            shares = largest_remainder(UNIT, list(zip(payees, sums.tolist(), strict=True)))
            fractions[query] = [share for _, share in shares]
    none = np.zeros(len(by_record.query_ids), np.int64)
    return Credit(by_record.query_ids, payees, fractions, none, UNIT - fractions.sum(axis=1), none)


def _log_probabilities(name: str, values: npt.ArrayLike, scores: Scores) -> Floats:
    array = np.asarray(values, np.float64)
    if array.shape != (len(scores.query_ids),):
        raise PoaError(
            f"{name} has shape {array.shape}, must be one number for each of {len(scores.query_ids)} queries"
        )
    bad = ~(np.isfinite(array) & (array <= 0))
    if bad.any():
        query = int(bad.argmax())
        raise PoaError(
            f"{name} of query {scores.query_ids[query]!r} is {array[query]}, must be a log-probability (finite, <= 0)"
        )
    return array


def _absolute_sums(scores: Floats, query_ids: tuple[str, ...]) -> list[float]:
    """[Q] correctly rounded sums: the same bytes whatever the order of columns or the batch."""
    sums: list[float] = []
    for name, row in zip(query_ids, np.abs(scores), strict=True):
        try:
            sums.append(math.fsum(row.tolist()))
        except OverflowError as error:
            raise PoaError(f"scores of query {name!r} are too large to add up") from error
    return sums
