"""Every method that a peer and poa both have, on the same checkpoints, records and losses: do the scores agree?

    .venv-peers/bin/python experiments/peers/parity.py [--only WORD]

prints a table and, as its last line, one JSON object: per pair the mean per-query Spearman correlation of the two score
matrices ("rank") and the Frobenius norm of their difference relative to poa's ("difference").
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import lru_cache
from typing import Any

import quiet  # noqa: F401

# isort: split
import numpy as np
import torch
from environment import versions
from page import keep
from pairs import PAIRS, Pair, Skipped
from subjects import Subject, digits_subject, logistic_subject
from variants import loss_measured

from language import language_subject
from poa.evaluation.correlation import mean_spearman

COMMAND = ".venv-peers/bin/python experiments/peers/parity.py --write"


@lru_cache(maxsize=4)
def subject(name: str) -> Subject:
    makers = {
        "digits": digits_subject,
        "small digits": lambda: digits_subject(64, 6, 8),
        "logistic": logistic_subject,
        "digits by loss": lambda: loss_measured(digits_subject()),
        "gpt2": lambda: language_subject("conv"),
        "lora": lambda: language_subject("lora"),
    }
    return makers[name]()


def compared(pair: Pair) -> dict[str, Any]:
    """One row of the table."""
    found = subject(pair.subject)
    row: dict[str, Any] = {"peer": pair.peer, "poa": pair.poa, "subject": pair.subject}
    started = time.perf_counter()
    try:
        ours, theirs = pair.scores(found)
    except Skipped as reason:
        return row | {"skipped": str(reason)}
    if not np.isfinite(theirs).all():
        return row | {"finite": False, "note": pair.note}
    if pair.up_to_scale:
        # The peer defines its scores up to a positive factor only.
        theirs = theirs * float((theirs * ours).sum() / (theirs * theirs).sum())
    return row | {
        "rank": round(mean_spearman(theirs, ours), 6),
        "difference": float(f"{np.linalg.norm(theirs - ours) / np.linalg.norm(ours):.2e}"),
        "seconds": round(time.perf_counter() - started, 1),
        "note": pair.note,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default="", help="pairs whose name holds this word")
    options.add_argument("--write", action="store_true", help="keep the result and the table of docs/peers.md")
    given = options.parse_args()
    word = given.only
    torch.set_num_threads(1)
    rows = []
    for pair in PAIRS:
        if word not in f"{pair.peer} {pair.poa} {pair.subject}":
            continue
        row = compared(pair)
        rows.append(row)
        said = row.get("skipped") or {k: row[k] for k in ("rank", "difference", "finite") if k in row}
        print(f"{row['peer']:38} {row['poa']:44} {row['subject']:7} {said}", file=sys.stderr, flush=True)
    result = {"command": COMMAND, "parity": rows, "environment": versions()}
    if given.write:
        keep("parity", result)
    print(json.dumps(result, sort_keys=True, allow_nan=False))


if __name__ == "__main__":
    main()
