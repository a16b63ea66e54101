"""What cheats would earn: outcomes of attacks, computed once per configuration and checked when read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from poa.digests import plain_digest
from poa.errors import Corrupt
from poa.factory.run import LoRARun
from poa.factory.versions import library_versions
from poa.factory.workers import workers
from poa.files import cache_home, write_atomic
from poa.gaming import Attack, Outcome, Rule, compare
from poa.records import Corpus


def outcomes(
    run: LoRARun, corpus: Corpus, queries: Corpus, attacks: Sequence[Attack], rules: Sequence[Rule], fee: int
) -> list[Outcome]:
    """`poa.gaming.compare` on the base and recipe of `run`, worlds side by side on all cores."""
    plain = [run.parent.digest, run.recipe.plain(), corpus.digest, queries.digest, fee, library_versions()]
    key = plain_digest(["attacks/1", *plain, [repr(attack) for attack in attacks], [repr(rule) for rule in rules]])
    path = cache_home() / "attacks" / f"{key[:32]}.json"
    if not path.is_file():
        with workers() as pool:
            found = compare(corpus, queries, attacks, rules, run.parent.name, run.recipe, fee, pool=pool)
        rows = [asdict(outcome) for outcome in found]
        write_atomic(path, json.dumps({"rows": rows, "seal": plain_digest(rows)}, indent=1).encode())
    return _read(path)


def _read(path: Path) -> list[Outcome]:
    try:
        kept = json.loads(path.read_bytes())
        rows, seal = kept["rows"], kept["seal"]
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{path} holds no outcomes: {error}; delete it") from error
    if plain_digest(rows) != seal:
        raise Corrupt(f"{path} does not have the digest that it promises; delete it")
    return [Outcome(**row) for row in rows]
