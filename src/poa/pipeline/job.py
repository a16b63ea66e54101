"""One job of `poa run`: configuration in, summary, scores, ledger and report out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from poa import methods
from poa.datanets.snapshot import Snapshot
from poa.errors import PoaError
from poa.evaluation.cards import require_card, results_folder
from poa.evaluation.contributors import ContributorTruth, leave_one_out
from poa.factory.bases import base
from poa.factory.finetune import finetune
from poa.factory.measuring import nats_per_token, tuned_and_base
from poa.factory.recipe import LoRARecipe
from poa.factory.run import LoRARun
from poa.factory.workers import one_thread
from poa.files import cache_home, write_atomic
from poa.gaming import attack
from poa.pipeline.answers import Responses, gather, user_texts
from poa.pipeline.attribution import Attribution, attribute
from poa.pipeline.instances import made
from poa.pipeline.selection import Chosen, choose
from poa.pipeline.settings import Answers, Select, Stages, read
from poa.pipeline.summary import published
from poa.records import Corpus


@dataclass
class Clock:
    """Seconds per stage, and one line per stage on stderr."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        print(f"poa: {name} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
        print(f"poa: {name} took {self.seconds[name]:.1f} s", file=sys.stderr, flush=True)


@dataclass(frozen=True, eq=False)
class Route:
    """What the first stages produced and the later ones read."""

    config: dict[str, Any]
    out: Path
    clock: Clock
    stages: Stages
    answers: Answers
    chosen: Chosen
    snapshot: Snapshot
    run: LoRARun
    responses: Responses
    attributions: dict[str, Attribution]
    truth: ContributorTruth | None
    heldout: dict[str, float]


def run_job(config: dict[str, Any], out: Path) -> dict[str, Any]:
    """Run one resolved configuration and write `summary.json` (and what the stages ask for) into `out`.

    One torch thread: results do not depend on the number of cores, and retraining runs one process per core.
    """
    with one_thread():
        return _job(config, out)


def _job(config: dict[str, Any], out: Path) -> dict[str, Any]:
    logger = made(config["logger"]).start(config["name"], config, out, config["name"])
    stages = read(Stages, config["stages"], "stages")
    route = _route(config, out, stages)
    summary = _summary(route)
    if stages.pay:
        from poa.pipeline.settling import settle_route

        summary |= settle_route(route)
    if stages.report:
        from poa.pipeline.document import write_report

        with route.clock.stage("report"):
            write_report(route, summary)
    summary["seconds"] = route.clock.seconds | {"total": round(sum(route.clock.seconds.values()), 3)}
    plain = published(summary)
    write_atomic(out / "summary.json", json.dumps(plain, indent=1, sort_keys=True).encode())
    logger.log({"heldout_nll/tuned": route.heldout["tuned"], "heldout_nll/base": route.heldout["base"]})
    logger.table("methods", [{"method": name, **row} for name, row in plain["methods"].items()])
    logger.artifact(f"{config['name']}-scores", "scores", sorted((out / "scores").glob("*.safetensors")))
    logger.finish()
    _remember(route)
    print(f"poa: results in {out}", file=sys.stderr)
    return plain


def _route(config: dict[str, Any], out: Path, stages: Stages) -> Route:
    clock = Clock()
    if type(config["seed"]) is not int or config["seed"] < 0:
        raise PoaError(f"seed is {config['seed']!r}, must be an integer of 0 or more")
    if stages.pay and not made(config["policy"], _convert_="object").payable:
        raise PoaError(f"policy {config['choices']['policy']} is for comparison only; choose a payable one to pay by")
    payer = made(config["method"], "method")
    if stages.pay and not stages.allow_uncarded:
        require_card(config["choices"]["method"], payer, results_folder())
    for name in stages.attacks:
        attack(name)  # a misspelt one is refused before anything is trained
    answers = read(Answers, config["answers"], "answers")
    chosen_methods = {config["choices"]["method"]: payer}
    chosen_methods |= {
        name: methods.method(name, **stages.settings.get(name, {}))
        for name in stages.compare
        if name not in chosen_methods
    }
    recipe: LoRARecipe = made(config["recipe"], "recipe", _convert_="object")
    with clock.stage("base"):
        parent = base(config["model"]["base"])  # made or fetched here, so that its time is not counted as training
        user_texts(parent.task(), answers)  # a text that does not fit is refused before anything is trained
    with clock.stage("intake"):
        corpus: Corpus = made(config["datanet"])
        chosen = choose(corpus, read(Select, config["select"], "select"))
        snapshot = Snapshot.of(chosen.train)
    with clock.stage("tune"):
        run = finetune(snapshot, base=config["model"]["base"], recipe=recipe)
        snapshot.save(out / "snapshot")  # not earlier: a refused recipe or record leaves nothing behind
    with clock.stage("answers"):
        responses = gather(run, chosen, answers, config["seed"])
        tuned, before = tuned_and_base(run, chosen.queries)
        heldout = {
            "base": nats_per_token(run.task, chosen.queries, before),
            "tuned": nats_per_token(run.task, chosen.queries, tuned),
        }
    attributions: dict[str, Attribution] = {}
    for name, method in chosen_methods.items():
        parts = responses.all_parts if name == config["choices"]["method"] else responses.parts
        with clock.stage(f"method {name}"):
            attributions[name] = attribute(name, method, run, parts)
            attributions[name].scores.save(out / "scores" / f"{name}.safetensors")
    truth = None
    if stages.truth:
        with clock.stage("truth"):
            truth = leave_one_out(run, responses.queries, seeds=stages.truth)
    return Route(config, out, clock, stages, answers, chosen, snapshot, run, responses, attributions, truth, heldout)


def _summary(route: Route) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for name, found in route.attributions.items():
        agreement = None
        if route.truth is not None:
            interval = route.truth.agreement(found.scores)
            agreement = {"mean": interval.value, "low": interval.low, "high": interval.high}
        rows[name] = {"seconds": found.seconds, "spearman_vs_truth": agreement, "identity": repr(found.method)}
    chosen = route.attributions[route.config["choices"]["method"]]
    return {
        "heldout_nll": route.heldout,
        "methods": rows,
        "digests": {
            "snapshot": route.snapshot.root,
            "adapter": route.run.adapter_digest,
            "run": route.run.digest,
            "scores": chosen.scores.digest,
        },
    }


def _remember(route: Route) -> None:
    """Let `poa trace` and `poa serve` find the newest run of an experiment without being told."""
    experiment = route.config["choices"].get("experiment")
    if experiment is not None:
        note = json.dumps({"run": str(route.run.folder), "out": str(route.out)}).encode()
        write_atomic(cache_home() / str(experiment) / "latest.json", note)
