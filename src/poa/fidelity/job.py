"""One job of `experiment=fidelity`: one method on one task at one seed, against retraining."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from poa.digests import plain_digest
from poa.ensemble import pooled
from poa.errors import PoaError, Unsupported
from poa.factory.workers import one_thread
from poa.fidelity.quantities import OWN, quantities
from poa.fidelity.rows import ROWS, Row, write_rows
from poa.fidelity.tasks import HELD_OUT, FidelityTask, Run
from poa.fidelity.truth import TaskTruth
from poa.files import alone, cache_home, write_atomic
from poa.pipeline.attribution import Attribution, attribute
from poa.pipeline.instances import made
from poa.scores import Scores

# What `summary.json` calls a job.
JOB = "fidelity_job"
SCORES, POOLED, CONTRIBUTORS, TRUTH = (
    "scores.safetensors",
    "ensemble.safetensors",
    "contributors.safetensors",
    "truth.poa",
)


def run_fidelity(config: dict[str, Any], out: Path) -> dict[str, Any]:
    """Scores, truth, rows.parquet and summary.json into `out`. The same configuration gives the same scores and truth.

    One torch thread: results do not depend on the number of cores. A method that does not apply to the task is not an
    error: the summary says why.
    """
    with one_thread():
        return _job(config, out)


def _job(config: dict[str, Any], out: Path) -> dict[str, Any]:
    seed = config["seed"]
    if type(seed) is not int or not 0 <= seed < HELD_OUT:
        raise PoaError(f"seed is {seed!r}, must be an integer from 0 to {HELD_OUT - 1}: ensembles have those above")
    task: FidelityTask = made(config["task"], "task", _convert_="all")
    method, choice = made(config["method"], "method"), str(config["choices"]["method"])
    logger = made(config["logger"]).start(f"{task.name}-{choice}-{seed}", config, out, config["name"])
    told: dict[str, Any] = {
        "kind": JOB,
        "task": task.name,
        "method": choice,
        "label": label(choice, method),
        "identity": repr(method),
        "seed": seed,
    }
    try:
        told |= _measured(task, method, choice, seed, out)
    except Unsupported as error:
        told["refused"] = str(error)
        print(f"poa: {told['label']} does not apply to {task.name}: {error}", file=sys.stderr)
    rows: list[Row] = told.pop("rows", [])
    named = {name: told[name] for name in ("task", "method", "label", "seed")}
    write_rows(out / ROWS, [{**named, **row} for row in rows])
    write_atomic(out / "summary.json", json.dumps(told, indent=1, sort_keys=True).encode())
    logger.log({f"{row['quantity']}/{row['scope']}/{row['removed'] or 'all'}": row["value"] for row in rows})
    logger.table("rows", rows)
    logger.artifact(f"{task.name}-{choice}-{seed}", "scores", [out / name for name in (SCORES, POOLED, TRUTH, ROWS)])
    logger.finish()
    if "refused" not in told:
        found = ", ".join(f"{row['value']:.2f} at {row['removed']} %" for row in rows if _own_lds(row))
        print(f"{task.name}, {told['label']}, seed {seed}: LDS {found}; {out}", flush=True)
    return told


def _own_lds(row: Row) -> bool:
    return (row["quantity"], row["scope"]) == ("lds", OWN)


def label(choice: str, method: Any) -> str:
    """The method's name and the settings that are not its defaults: "influence, checkpoints=last".

    Its seed is the job's and not told.
    """
    default = type(method)()
    changed = [
        f"{field.name}={getattr(method, field.name)}"
        for field in fields(method)
        if field.init and field.name != "seed" and getattr(method, field.name) != getattr(default, field.name)
    ]
    return ", ".join([choice, *changed])


def _measured(task: FidelityTask, method: Any, choice: str, seed: int, out: Path) -> dict[str, Any]:
    run = task.run(seed)
    # First, so that a method that does not apply is refused before any retraining.
    own = attribute(choice, method, run, [task.queries])
    own.scores.save(out / SCORES)
    members = [attribute(choice, method, task.run(HELD_OUT + place), [task.queries]) for place in range(task.ensemble)]
    together, payees = _pooled(members) if members else (None, None)
    if together is not None and payees is not None:
        together.save(out / POOLED)
        payees.save(out / CONTRIBUTORS)
    truth = TaskTruth.of(task, run, [seed])
    truth.save(out / TRUTH)
    return {
        "rows": quantities(task, method, run, seed, own.scores, together, payees, truth),
        "card": _card(task, method, run, own),
        "digests": {"run": run.digest, "scores": own.scores.digest},
    }


def _pooled(members: list[Attribution]) -> tuple[Scores, Scores]:
    """Means over members with standard errors, by record and by payee; a payee's are those of the members' sums."""
    meta = {"members": [str(one.scores.meta["run"]) for one in members]}
    tables = [one.scores for one in members], [one.scores.by("payee") for one in members]
    records, payees = (replace(pooled(parts), meta=meta) for parts in tables)
    return records, payees


def _card(task: FidelityTask, method: Any, run: Run, own: Attribution) -> dict[str, float]:
    """What scores cost: seconds, the same in trainings of the task, and bytes that an index keeps per record."""
    once = _kept(["training/1", repr(task)], lambda: _training_seconds(task, run))
    stored = _kept(["index/1", repr(method), repr(task)], lambda: _stored_bytes(method, run))
    return {"seconds": own.seconds, "trainings": own.seconds / once, "bytes_per_record": stored / len(run.corpus)}


def _kept(key: list[str], measure: Callable[[], float]) -> float:
    """A number that is measured once for all seeds and methods of a machine."""
    path = cache_home() / "fidelity" / plain_digest(key)[:32]
    with alone(path):
        if not path.is_file():
            write_atomic(path, repr(measure()).encode())
    return float(path.read_text())


def _training_seconds(task: FidelityTask, run: Run) -> float:
    """One training past every cache."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        task.trained(run.corpus, HELD_OUT - 1, Path(folder) / "run")
        return time.perf_counter() - began


def _stored_bytes(method: Any, run: Run) -> float:
    """Bytes of the saved index."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "index"
        method.fit(run).save(target)
        return float(sum(path.stat().st_size for path in target.rglob("*") if path.is_file()))
