"""Run an experiment, or a sweep of them, from conf/: `poa run experiment=NAME [key=value ...]`."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from poa.commands import composition
from poa.digests import plain_digest
from poa.errors import PoaError
from poa.files import write_atomic


@dataclass(frozen=True)
class Failed:
    """What a job that met a wrong input returns, so that the other jobs of a sweep still run."""

    overrides: str
    reason: str


def configure(parser: argparse.ArgumentParser) -> None:
    """`-m` sweeps over comma-separated values; `--show` prints what would run."""
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep over values given as key=a,b")
    parser.add_argument("--show", action="store_true", help="print the resolved configuration of every job and stop")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="group=option or group.key=value")


def run(args: argparse.Namespace) -> int:
    """Check and compose every job before the first one starts; output goes to out/name/date/job."""
    with composition.opened(composition.conf_folder()) as app:
        sweep, jobs = composition.compose(app, args.overrides, args.multirun)
        if args.show:
            print("---\n".join(OmegaConf.to_yaml(OmegaConf.create(job.config)) for job in jobs), end="")
            return 0
        lines = [*args.overrides, *_names(jobs, sweep), f"hydra.mode={'MULTIRUN' if sweep else 'RUN'}"]
        folder = composition.output_folder(app, lines, sweep).absolute()
        with _only_if_used(folder):
            if sweep:
                failed = [r.return_value for batch in app.multirun(composition.CONFIG, job, lines) for r in batch]
            else:
                failed = [app.run(composition.CONFIG, job, lines).return_value]
    reasons = [f"{result.overrides}: {result.reason}" for result in failed if isinstance(result, Failed)]
    if len(reasons) == 1 and not sweep:
        raise PoaError(reasons[0].split(": ", 1)[1])
    if reasons:
        raise PoaError(f"{len(reasons)} of {len(jobs)} jobs failed: {'; '.join(reasons)}")
    return 0


def job(composed: DictConfig) -> Any:
    """What Hydra calls for each job: write the resolved configuration, then run the pipeline in its folder."""
    from hydra.core.hydra_config import HydraConfig

    own = HydraConfig.get()
    out = Path(own.runtime.output_dir)
    config = composition.plain(composed)
    chosen: Any = OmegaConf.to_container(own.runtime.choices)
    config["choices"] = {group: name for group, name in chosen.items() if name and not group.startswith("hydra/")}
    before = {entry.name for entry in out.iterdir()}
    try:
        write_atomic(out / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)).encode())
        return _pipeline(config)(config, out)
    except PoaError as error:
        for entry in out.iterdir():  # what an earlier run left here stays
            if entry.name not in before:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        _remove_if_only(out, "config.yaml" if "config.yaml" not in before else "")
        told = [word for word in own.overrides.task if not word.startswith(("name=", "job=", "out="))]
        return Failed(" ".join(told), str(error))


def _pipeline(config: dict[str, Any]) -> Callable[[dict[str, Any], Path], Any]:
    """What runs a configuration: with a task, methods are measured; else a datanet goes the whole route."""
    if "task" in config["choices"]:
        from poa.fidelity.job import run_fidelity

        return run_fidelity
    from poa.pipeline.job import run_job

    return run_job


def _names(jobs: Sequence[composition.Job], sweep: bool) -> list[str]:
    """Overrides for `name` and `job` where neither the user nor a preset set them.

    The job's name follows from its configuration, so that the same command on the same day finds its folder again.
    """
    first = jobs[0]
    identity = plain_digest([{k: v for k, v in one.config.items() if k not in ("out", "name", "job")} for one in jobs])
    lines: list[str] = []
    experiments = {one.choices.get("experiment") for one in jobs}
    if first.config["name"] == "default" and experiments != {None}:
        lines.append(f"name={_slug('-'.join(sorted(str(name) for name in experiments)))}")
    if first.config["job"] == "job":
        what = "sweep" if sweep else f"{first.choices.get('method', 'job')}-seed{first.config['seed']}"
        lines.append(f"job={_slug(what)}-{identity[:8]}")
    return lines


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)[:80]


@contextmanager
def _only_if_used(folder: Path) -> Generator[None]:
    """Make `folder`, and afterwards remove it and the parents made for it if nothing was put there."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PoaError(f"cannot make the output folder {folder}: {error.strerror}; choose another out=") from error
        yield
    finally:
        for path in new:
            if not _remove_if_only(path, "multirun.yaml"):
                break


def _remove_if_only(folder: Path, name: str) -> bool:
    """Remove `folder` if it is empty or holds nothing but the file `name`; whether it is gone."""
    if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {name}:
        (folder / name).unlink(missing_ok=True)
        folder.rmdir()
    return not folder.exists()
