"""Committed results: read, and made from finished runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

from poa.errors import PoaError
from poa.files import write_atomic

NEEDED = ("name", "command", "environment", "seconds", "heldout_nll", "methods", "digests")


def load(path: Path) -> dict[str, Any]:
    """One committed result; raises `PoaError` naming the first missing key."""
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PoaError(f"{path.name} is not a readable result: {error}") from error
    for key in NEEDED:
        if key not in result:
            raise PoaError(
                f"{path.name} has no {key!r}; write it with `python experiments/collect.py record RUN_FOLDER`"
            )
    return result


def kind(path: Path) -> str:
    """What a committed result is of: "run" (a finished `poa run`), or what its `kind` says."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PoaError(f"{path.name} is not a readable result: {error}") from error
    return str(found.get("kind", "run"))


def record(run: Path, name: str | None, command: str | None, results: Path) -> Path:
    """Copy the summary of the run in folder `run`, with the command, library versions and the machine's size."""
    import yaml

    from poa.benchmarks._figures import environment
    from poa.fidelity.job import JOB

    if not (run / "summary.json").is_file():
        raise PoaError(f"{run} holds no finished run: it has no summary.json")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    if summary.get("kind") == JOB:
        raise PoaError(f"{run} is a job of experiment=fidelity: collect.py fidelity {run} joins such jobs")
    if not (run / "config.yaml").is_file():
        raise PoaError(f"{run} holds no config.yaml, which says what was run")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    name = name or str(config["name"])
    result = summary | {"name": name, "command": command or command_of(config), "environment": environment()}
    text = json.dumps(result, indent=1, sort_keys=True, allow_nan=False) + "\n"
    for private in {str(Path.home()), str(run.resolve().parent)} - {"/"}:
        if private in text:
            raise PoaError(f"the summary of {run.name} names a folder of this machine ({private})")
    target = results / f"{name}.json"
    write_atomic(target, text.encode())
    return target


def record_fidelity(folders: Sequence[Path], commands: Sequence[str], results: Path) -> Path:
    """Join the jobs of a sweep (all seeds and methods of some tasks) into one result."""
    from poa.benchmarks._figures import environment
    from poa.fidelity.result import result

    target = results / "fidelity.json"
    told = result(folders, "; ".join(commands), environment())
    told |= {"commit": commit(results)}
    told["figures"] |= auto_cells(results)
    write_atomic(target, (json.dumps(told, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())
    return target


def commit(folder: Path) -> str | None:
    """At which the jobs were joined: of the repository around `folder`, None where there is none."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def fidelity_figures(results: Path) -> dict[str, Any]:
    """The figures of fidelity.json, none where it is not there."""
    path = results / "fidelity.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else {}
    return found


def auto_cells(results: Path) -> dict[str, Any]:
    """Of the cells (task, method, draw) of damping.json, those whose default is within .03 of the best damping.

    Wilson's 95 % interval of a proportion. Empty where that result is not there.
    """
    path = results / "damping.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    count, share, z = len(found["cells"]), float(found["figures"]["auto_damping_cells"]), 1.96
    middle, spread = share + z**2 / (2 * count), z * sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((middle + sign * spread) / (1 + z**2 / count) for sign in (-1, 1))
    return {"auto_cells": {"value": share, "low": low, "high": min(1.0, high), "cells": count, "of": path.name}}


def command_of(config: Mapping[str, Any]) -> str:
    """`poa run experiment=NAME`, if the preset alone composes to `config`; refused where overrides changed it."""
    from poa.commands import composition

    preset = config.get("choices", {}).get("experiment")
    if preset is None:
        raise PoaError("this run has no experiment preset; say how it was made with --command")
    with composition.opened(composition.conf_folder()) as app:
        _, (job,) = composition.compose(app, [f"experiment={preset}"], sweep=False)
    told = {key: value for key, value in config.items() if key not in ("out", "name", "job", "choices")}
    plain = {key: value for key, value in job.config.items() if key not in ("out", "name", "job", "choices")}
    if told != plain:
        wrong = sorted(key for key in told.keys() | plain.keys() if told.get(key) != plain.get(key))
        raise PoaError(f"this run differs from experiment={preset} in {', '.join(wrong)}; give the --command")
    return f"poa run experiment={preset}"
