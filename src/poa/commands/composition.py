"""From the words after `poa run` to complete configurations, before anything runs or is written."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import hydra.version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from poa.commands.nearest import unknown
from poa.errors import PoaError

CONFIG = "config"


@dataclass(frozen=True)
class Job:
    """One composed job: the overrides that make it, its resolved configuration and the option of each group."""

    overrides: tuple[str, ...]
    config: dict[str, Any]
    choices: dict[str, str]


def conf_folder() -> Path:
    """The configuration shipped inside the wheel, else the checkout's `conf`."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / f"{CONFIG}.yaml").is_file():
            return folder
    raise PoaError(f"no conf/{CONFIG}.yaml beside {package}: install poa again")


@contextmanager
def opened(folder: Path) -> Generator[Hydra]:
    """Hydra over one configuration folder. It keeps global state, which is cleared on leaving."""
    hydra.version.setbase("1.3")
    GlobalHydra.instance().clear()
    try:
        yield Hydra.create_main_hydra2("poa", create_config_search_path(str(folder)))
    finally:
        GlobalHydra.instance().clear()


def compose(app: Hydra, words: Sequence[str], sweep: bool) -> tuple[bool, list[Job]]:
    """Whether this is a sweep, and every job of it; raises one `PoaError` for the first word that is wrong."""
    overrides = _parsed(app, words)
    groups = [override for override in overrides if _is_group(app, override)]
    for override in groups:
        _check_choice(app, override)
    lines = [line for override in groups if (line := override.input_line) is not None]
    lines += [word for word in words if word.startswith("hydra.")]
    master = _load(app, lines, RunMode.MULTIRUN)
    sweep = sweep or master.hydra.mode == RunMode.MULTIRUN
    known = _top(app)
    if not sweep:
        for override in overrides:
            if override.is_sweep_override():
                raise PoaError(f"{override.input_line!r} has several values: sweep over them with `poa run -m ...`")
        return False, [_job(app, words, known)]
    params = cast(dict[str, Any], OmegaConf.to_container(master.hydra.sweeper)).get("params") or {}
    every = _parsed(app, [*(f"{key}={value}" for key, value in params.items()), *words])
    try:
        batches = BasicSweeper.split_arguments(every, None)
    except HydraException as error:
        raise PoaError(_line(error)) from error
    return True, [_job(app, list(line), known) for batch in batches for line in batch]


def _parsed(app: Hydra, words: Sequence[str]) -> list[Override]:
    for word in words:
        if "=" not in word and not word.startswith("~"):
            raise PoaError(f"{word!r} is not an override: write key=value, for example experiment=quickstart")
    try:
        return OverridesParser.create(config_loader=app.config_loader).parse_overrides(list(words))
    except HydraException as error:
        raise PoaError(_line(error)) from error


def _is_group(app: Hydra, override: Override) -> bool:
    if override.key_or_group in _groups(app):
        return True
    return "/" in override.key_or_group and bool(app.config_loader.get_group_options(override.key_or_group))


def _groups(app: Hydra) -> list[str]:
    found = app.config_loader.get_group_options("", ObjectType.GROUP)
    return [name for name in found if name != "hydra" and app.config_loader.get_group_options(name)]


def _check_choice(app: Hydra, override: Override) -> None:
    options = app.config_loader.get_group_options(override.key_or_group)
    if override.is_delete():
        raise PoaError(f"{override.input_line!r} leaves a group out; choose one of {', '.join(options)}")
    chosen = override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_element_as_str()]
    for value in chosen:
        for name in value.strip("[]").split(","):
            plain = name.strip("'\" ")
            if plain not in options and "/" not in plain:
                raise unknown(override.key_or_group, plain, options)


def _top(app: Hydra) -> set[str]:
    """Words that may stand at the top of a configuration."""
    return {*map(str, plain(_load(app, [], RunMode.RUN))), *_groups(app)}


def _job(app: Hydra, lines: Sequence[str], known: set[str]) -> Job:
    """`known`: words for the top; `+word=1` with another one would add what nothing reads."""
    try:
        composed = app.compose_config(CONFIG, list(lines), RunMode.RUN, with_log_configuration=False)
        config = plain(composed)
        for key in config:
            if key not in known:
                raise unknown("option", key, sorted(known))
        HydraConfig.instance().set_config(composed)
        return Job(tuple(lines), config, group_choices(composed))
    except MissingMandatoryValue as error:
        raise PoaError(f"{error.full_key} must be given: add {error.full_key}=VALUE") from error
    except (HydraException, OmegaConfBaseException) as error:
        _name_unknown_option(app, lines)
        raise PoaError(_line(error)) from error


def plain(composed: DictConfig) -> dict[str, Any]:
    """The configuration without Hydra's own part, resolved, as dictionaries and lists."""
    bare = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    return cast(dict[str, Any], OmegaConf.to_container(bare, resolve=True, throw_on_missing=True))


def group_choices(composed: DictConfig) -> dict[str, str]:
    """The option chosen in each of poa's groups, such as {"method": "tracin", "recipe": "lora"}."""
    chosen = cast(dict[str, Any], OmegaConf.to_container(composed.hydra.runtime.choices))
    return {group: str(name) for group, name in chosen.items() if name is not None and not group.startswith("hydra/")}


def output_folder(app: Hydra, lines: Sequence[str], sweep: bool) -> Path:
    """Where a run writes, or where a sweep makes one folder per job."""
    composed = _load(app, lines, RunMode.MULTIRUN if sweep else RunMode.RUN)
    HydraConfig.instance().set_config(composed)
    return Path(str(composed.hydra.sweep.dir if sweep else composed.hydra.run.dir))


def _load(app: Hydra, lines: Sequence[str], mode: RunMode) -> DictConfig:
    try:
        return app.compose_config(
            CONFIG, list(lines), mode, with_log_configuration=False, validate_sweep_overrides=False
        )
    except (HydraException, OmegaConfBaseException) as error:
        raise PoaError(_line(error)) from error


def _name_unknown_option(app: Hydra, lines: Sequence[str]) -> None:
    """Raise for the first override whose key the composed configuration does not have; return if all keys exist."""
    overrides = _parsed(app, lines)
    known = [override.input_line for override in overrides if _is_group(app, override)]
    config = OmegaConf.to_container(_load(app, [line for line in known if line is not None], RunMode.RUN))
    for override in overrides:
        if not _is_group(app, override) and not override.is_add() and not override.is_force_add():
            _check_key(override.key_or_group, config, _groups(app))


def _check_key(key: str, config: Any, groups: Sequence[str]) -> None:
    node, passed = config, ""
    for part in key.split("."):
        if isinstance(node, list) and part.isdigit() and int(part) < len(cast(list[Any], node)):
            node = cast(list[Any], node)[int(part)]
        elif isinstance(node, dict) and part in node:
            node = cast(dict[str, Any], node)[part]
        elif passed:
            here = [f"{passed}.{name}" for name in cast(dict[str, Any], node)] if isinstance(node, dict) else [passed]
            raise unknown("option", key, here)
        else:
            raise unknown("option", key, _top_level(key, config, groups))
        passed = f"{passed}.{part}" if passed else part


def _top_level(key: str, config: dict[str, Any], groups: Sequence[str]) -> list[str]:
    """Names valid at the top, unless `key` is a good match for an option inside a group only: then those."""
    top = [name for name in dict.fromkeys([*config, *groups]) if name != "hydra"]
    if get_close_matches(key, top, 1, 0.8):
        return top
    inside = {f"{group}.{name}": name for group, node in config.items() if isinstance(node, dict) for name in node}
    close = get_close_matches(key, list(inside.values()), 3, 0.8)
    dotted = [path for path, name in inside.items() if name in close and not path.startswith("hydra.")]
    return dotted or top


def _line(error: BaseException) -> str:
    """Hydra's message and its cause on one line."""
    parts = [str(error), str(error.__cause__) if isinstance(error.__cause__, OmegaConfBaseException) else ""]
    return " ".join(" ".join(parts).split())
