"""Where figures of a run are logged besides its files: nowhere, or Weights & Biases (offline unless asked)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from poa.errors import MissingExtra, PoaError

if TYPE_CHECKING:
    from wandb import Run

Row = Mapping[str, str | int | float | bool | None]


class Logger(Protocol):
    """An open log. The files of a run stay the truth; whatever goes here may be lost without harm."""

    def log(self, figures: Mapping[str, float]) -> None:
        """Figures by name at one moment."""
        ...

    def table(self, name: str, rows: Sequence[Row]) -> None:
        """A table: rows with the same keys."""
        ...

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Files that belong to the run, as one versioned artifact; those that do not exist are passed over."""
        ...

    def finish(self) -> None:
        """Close the log; nothing may be logged afterwards."""
        ...


class LoggerChoice(Protocol):
    """What `conf/logger/*.yaml` makes: options only, until `start` opens the log of one run."""

    def start(self, name: str, config: Mapping[str, Any], folder: Path, group: str = "") -> Logger: ...


@dataclass(frozen=True)
class Quiet:
    """Logs nothing: the default choice, and its own log."""

    def start(self, name: str, config: Mapping[str, Any], folder: Path, group: str = "") -> Logger:
        return self

    def log(self, figures: Mapping[str, float]) -> None: ...

    def table(self, name: str, rows: Sequence[Row]) -> None: ...

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None: ...

    def finish(self) -> None: ...


@dataclass(frozen=True)
class Wandb:
    """Log to Weights & Biases. `mode` is "offline" (files in the run's folder, no network) or "online"."""

    project: str = "poa"
    mode: str = "offline"
    entity: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in ("offline", "online"):
            raise PoaError(f"logger.mode is {self.mode!r}, must be 'offline' or 'online'")
        object.__setattr__(self, "tags", tuple(self.tags))

    def start(self, name: str, config: Mapping[str, Any], folder: Path, group: str = "") -> Logger:
        """Open a log called `name` in `folder`, beside the others of `group`; `MissingExtra` without wandb."""
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise MissingExtra("logger=wandb needs wandb: pip install 'poa[wandb]', or choose logger=none") from error
        # Crash reports go over the network even in offline mode.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, save_code=False, disable_git=True)
        run = wandb.init(
            project=self.project,
            entity=self.entity,
            tags=self.tags,
            mode="offline" if self.mode == "offline" else "online",
            name=name,
            group=group or None,
            config=dict(config),
            dir=folder,
            settings=settings,
            reinit="create_new",
        )
        return WandbLog(run)


@dataclass(frozen=True)
class WandbLog:
    """One open Weights & Biases run."""

    run: Run

    def log(self, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures))

    def table(self, name: str, rows: Sequence[Row]) -> None:
        import wandb

        columns: list[Any] = list(rows[0]) if rows else []
        for number, row in enumerate(rows):
            if list(row) != columns:
                raise PoaError(f"table {name!r}, row {number}: columns {list(row)}, the first row has {columns}")
        self.run.log({name: wandb.Table(columns=columns, data=[list(row.values()) for row in rows])})

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        import wandb

        made = wandb.Artifact(re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:128], kind)
        for path in paths:
            if path.is_file():
                made.add_file(str(path), policy="immutable")  # no copy in the home folder: the job's own stays as it is
        self.run.log_artifact(made)

    def finish(self) -> None:
        self.run.finish()
