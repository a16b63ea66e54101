"""A realistic report document: 8 contributors, 6 methods, 6 answers of about 100 tokens."""

from __future__ import annotations

import copy
import math
import random
import re
from typing import Any

import pytest

PEOPLE = {
    "scipy.stats": "scipy", "scipy.optimize": "scipy", "numpy.linalg": "numpy", "numpy.random": "numpy",
    "sklearn.cluster": "scikit-learn", "sklearn.linear_model": "scikit-learn", "networkx.algorithms": "networkx",
    "networkx.generators": "networkx",
}  # fmt: skip
METHODS: dict[str, Any] = {
    "EK-FAC": ("gradient", "nats", 41.2, (0.81, 0.62, 0.93), "EKFAC(damping=0.1)", "Grosse et al. 2023"),
    "TRAK": ("gradient", "uncalibrated", 12.8, (0.64, 0.35, 0.82), "TRAK(dimension=2048)", "Park et al. 2023"),
    "GradCos": ("gradient", "uncalibrated", 9.1, (0.48, 0.1, 0.72), "GradCos()", "Charpiat et al. 2019"),
    "BM25": ("lexical", "uncalibrated", 0.4, (0.31, -0.08, 0.58), "BM25(k1=1.2, b=0.75)", "Robertson & Zaragoza 2009"),
    "RepSim": ("semantic", "uncalibrated", 2.2, (0.22, -0.2, 0.5), "RepSim()", "Pezeshkpour et al. 2021"),
    "Random": ("baseline", "uncalibrated", 0.0, None, "Random(seed=0)", "–"),
}  # fmt: skip
SENTENCES = (
    "The covariance matrix is estimated from the samples, and its inverse is used to whiten the data before the fit.",
    "If the array is not contiguous, a copy is made; the returned values are always in the order of the input.",
    "A warning is issued when the algorithm does not converge within the given number of iterations.",
    "Each node of the graph is visited once, and the predecessors are kept so that a path can be rebuilt afterwards.",
    "The null hypothesis is that both samples are drawn from the same continuous distribution.",
    "Centroids are updated until the change in inertia falls below the tolerance that the caller has chosen.",
)
SIGNATURE = "— poa.example/demo " + "Az3grlgtzPICa5OS" * 6
CHECKPOINT = "\n".join(("poa.example/demo", "132", "d3" * 21 + "c=", "", SIGNATURE))
KINDS = ("held-out", "generated", "held-out", "user", "generated", "placebo")
PROMPTS = (
    "Returns\n-------\nstatistic : float",
    "How is the covariance matrix whitened?",
    "linkage(y, method='single')",
    "What does it mean when the solver does not converge?",
    "Explain shortest paths",
    "zqx vvorp 88 ;; glim",
)


def _text(rng: random.Random) -> str:
    return " ".join(rng.sample(SENTENCES, 5))


def _tokens(text: str) -> list[list[int]]:
    return [[found.start(), found.end()] for found in re.finditer(r"\s?\w+|[^\w\s]", text)]


def _span(
    text: str, tokens: list[list[int]], first: int, length: int, credited: bool, who: list[str]
) -> dict[str, Any]:
    start, end = tokens[first][0], tokens[first + length - 1][1]
    start += text[start] == " "
    documents = [
        {
            "record_id": f"{name}/{100 + i}",
            "contributor": name,
            "before": "As described in the notes of the function, ",
            "match": text[start:end].replace(" ", "\n    ", 1),
            "after": " See the references for the derivation and for the cases in which this is not so.",
        }
        for i, name in enumerate(who)
    ]
    return {
        "start": start, "end": end, "length": length, "count": len(who), "p_value": 3.1e-9 if credited else 0.02,
        "credited": credited, "documents": documents,
    }  # fmt: skip


def _answer(rng: random.Random, i: int) -> dict[str, Any]:
    text = _text(rng)
    tokens = _tokens(text)
    people = list(PEOPLE)
    heat = {
        name: [rng.gauss(0.02, 0.06) * (2.5 if rng.random() < 0.1 else 1) for _ in tokens]
        for name in METHODS
        if name not in ("BM25", "Random")
    }
    shares = {name: {who: rng.gauss(0.4 if k < 3 else 0.02, 0.3) for k, who in enumerate(people)} for name in METHODS}
    records = {
        name: [
            {
                "record_id": f"{who}/{rng.randrange(400)}", "contributor": who, "datanet": PEOPLE[who],
                "score": score, "text": " ".join(rng.sample(SENTENCES, 2 + 2 * (k % 2))),
            }
            for k, (who, score) in enumerate(zip(rng.sample(people, 5), (0.61, 0.42, 0.3, 0.11, -0.23), strict=True))
        ]
        for name in METHODS
    }  # fmt: skip
    spans = [
        _span(text, tokens, 4, 11, True, people[:4]),
        _span(text, tokens, 11, 9, False, people[2:3]),
        _span(text, tokens, 50, 8, True, people[5:6]),
    ]
    return {
        "id": f"q{i}", "kind": KINDS[i], "prompt": PROMPTS[i], "text": text,
        "contributor": people[i] if KINDS[i] == "held-out" else "",
        "measurement": {"base": -412.4, "tuned": -380.2 + 9 * i if KINDS[i] != "placebo" else -412.1},
        "tokens": tokens, "heat": heat,
        "spans": [] if KINDS[i] == "placebo" else spans, "records": records, "shares": shares,
    }  # fmt: skip


def _policy(
    payable: bool, parts: dict[str, int], pool: int, weights: list[float], held: dict[str, int]
) -> dict[str, Any]:
    left = pool - sum(held.values())
    payees = {who: int(left * weight / sum(weights)) for who, weight in zip(PEOPLE, weights, strict=True)}
    carry = left - sum(payees.values())
    return {"parts": parts, "payees": payees, "residuals": held, "carry": carry, "payable": payable}


def sample() -> dict[str, Any]:
    """The whole document; deterministic."""
    rng = random.Random(7)
    people = list(PEOPLE)
    answers = [_answer(rng, i) for i in range(6)]
    effect = dict(zip(people, (2.9, 1.8, 1.1, 0.7, 0.3, 0.05, -0.2, -0.6), strict=True))
    names = list(METHODS)
    apart = [[1.0 if i == j else round(0.85 - 0.22 * abs(i - j), 3) for j in range(6)] for i in range(6)]
    parts = {"platform": 100_000, "model": 200_000, "stakers": 200_000}
    return {
        "title": "Whose documentation taught this model to answer?",
        "created": "2026-02-11 14:20 UTC",
        "command": "poa run experiment=demo",
        "version": "0.1.0",
        "seconds": {"intake": 3.4, "training": 61.0, "methods": 66.1, "truth": 212.0, "payout": 0.02, "ledger": 0.4},
        "intake": {
            "datanets": [
                {
                    "name": net, "records": 600, "contributors": 2, "licences": ["BSD-3-Clause"], "tokens": 61_200,
                    "exact_duplicates": 14, "near_duplicates": 31, "clusters": 562,
                }
                for net in dict.fromkeys(PEOPLE.values())
            ],
            "contributors": [
                {"id": who, "datanet": net, "records": 300, "tokens": 52_000 - 5_700 * i}
                for i, (who, net) in enumerate(PEOPLE.items())
            ],
            "snapshot": {"root": "9f" * 32, "digest": "3c" * 32, "records": 2160, "heldout": 240},
            "examples": [
                {"kept": SENTENCES[2], "dropped": SENTENCES[2].replace("given", "allowed"), "reason": "Jaccard 0.91"}
            ],
        },
        "model": {
            "name": "tiny-gpt2", "parameters": 1_312_000, "adapter_parameters": 36_864, "base_digest": "ab" * 32,
            "adapter_digest": "cd" * 32, "heldout_nll": {"base": 4.31, "tuned": 3.87},
            "loss": [[step, 3.6 + 1.1 * math.exp(-step / 60) + rng.gauss(0, 0.04)] for step in range(0, 300, 3)],
        },
        "methods": {
            name: {
                "family": family, "unit": unit, "seconds": seconds, "identity": identity, "citation": citation,
                "spearman_vs_truth": None if rho is None else {"mean": rho[0], "low": rho[1], "high": rho[2]},
            }
            for name, (family, unit, seconds, rho, identity, citation) in METHODS.items()
        },
        "answers": answers,
        "shares": {name: {who: sum(a["shares"][name][who] for a in answers) for who in people} for name in METHODS},
        "agreement": {"methods": names, "spearman": apart},
        "truth": {
            "seeds": 5, "queries": 6, "contributors": people, "effect": effect,
            "stderr": {who: 0.2 + 0.05 * i for i, who in enumerate(people)},
            "predicted": {
                name: {who: effect[who] * 0.6 * (1 - 0.15 * k) + rng.gauss(0, 0.15 + 0.25 * k) for who in people}
                for k, name in enumerate(METHODS)
            },
            "ceiling": 0.94,
        },
        "attacks": [
            {"policy": policy, "attack": attack, "share_before": 0.097, "share_after": after}
            for policy, shares in (
                ("openledger-printed", (0.289, 0.534, 0.31)),
                ("net-epoch", (0.007, 0.0, 0.021)),
            )
            for attack, after in zip(("copier", "noise_farm", "boilerplate_farm"), shares, strict=True)
        ],
        "payout": {
            "fee": 1_000_000, "currency": "micro-credits",
            "policies": {
                "openledger-printed": _policy(False, parts, 500_000, [9, 8, 7, 6, 6, 5, 4, 3], {}),
                "net-epoch": _policy(
                    True, parts, 500_000, [9, 6, 4, 2, 1, 0, 0, 0],
                    {"base model": 121_400, "unattributed": 60_210, "below threshold": 18_005},
                ),
            },
        },
        "placebo": {"queries": 20, "paid": 1_310, "real_paid": 300_380, "ratio": 0.00436},
        "ledger": {
            "origin": "poa.example/demo", "size": 132, "root": "77" * 32,
            "checkpoint": CHECKPOINT,
            "verified": True, "message": "132 entries, signature and every inclusion proof checked",
            "receipt_id": "r-000127",
        },
        "limits": ["One small model on documentation text; nothing here says how the methods do on larger ones."],
    }  # fmt: skip


_SAMPLE = sample()


@pytest.fixture
def document() -> dict[str, Any]:
    """A fresh copy of the sample document."""
    return copy.deepcopy(_SAMPLE)
