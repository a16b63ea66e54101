"""Attribution methods, one idea a file; `available()` is the list that the command line and the suite read."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poa.errors import Mismatch, PoaError

if TYPE_CHECKING:
    from poa.methods.adamw_influence import AdamWInfluence
    from poa.methods.astra import ASTRA
    from poa.methods.bm25 import BM25
    from poa.methods.captum_tracin import CaptumTracIn
    from poa.methods.datainf import DataInf
    from poa.methods.dvemb import DVEmb
    from poa.methods.ekfac import EKFAC
    from poa.methods.ekfac_cg import EKFACCG
    from poa.methods.exact_influence import ExactInfluence
    from poa.methods.gradcos import GradCos
    from poa.methods.graddot import GradDot
    from poa.methods.grass import GraSS
    from poa.methods.in_run import InRun
    from poa.methods.influence import Influence
    from poa.methods.kernel_shap import KernelSHAP
    from poa.methods.kfac import KFAC
    from poa.methods.knn_shapley import KNNShapley
    from poa.methods.less import LESS
    from poa.methods.logra import LoGra
    from poa.methods.lorif import LoRIF
    from poa.methods.magic import MAGIC
    from poa.methods.random import Random
    from poa.methods.relatif import RelatIF
    from poa.methods.representer import Representer
    from poa.methods.repsim import RepSim
    from poa.methods.source import SOURCE
    from poa.methods.spans import Spans
    from poa.methods.tracin import TracInCP
    from poa.methods.tracin_last import TracInLast
    from poa.methods.tracin_projection import TracInProjection
    from poa.methods.trackstar import TrackStar
    from poa.methods.trak import TRAK
    from poa.protocols import TrainingRun

_HOMES = {
    "random": ("random", "Random"),
    "bm25": ("bm25", "BM25"),
    "repsim": ("repsim", "RepSim"),
    "knn_shapley": ("knn_shapley", "KNNShapley"),
    "graddot": ("graddot", "GradDot"),
    "gradcos": ("gradcos", "GradCos"),
    "tracin": ("tracin", "TracInCP"),
    "influence": ("influence", "Influence"),
    "datainf": ("datainf", "DataInf"),
    "kfac": ("kfac", "KFAC"),
    "ekfac": ("ekfac", "EKFAC"),
    "logra": ("logra", "LoGra"),
    "tracin_last": ("tracin_last", "TracInLast"),
    "tracin_projection": ("tracin_projection", "TracInProjection"),
    "relatif": ("relatif", "RelatIF"),
    "trak": ("trak", "TRAK"),
    "grass": ("grass", "GraSS"),
    "representer": ("representer", "Representer"),
    "less": ("less", "LESS"),
    "trackstar": ("trackstar", "TrackStar"),
    "exact_influence": ("exact_influence", "ExactInfluence"),
    "ekfac_cg": ("ekfac_cg", "EKFACCG"),
    "astra": ("astra", "ASTRA"),
    "in_run": ("in_run", "InRun"),
    "dvemb": ("dvemb", "DVEmb"),
    "adamw_influence": ("adamw_influence", "AdamWInfluence"),
    "magic": ("magic", "MAGIC"),
    "kernel_shap": ("kernel_shap", "KernelSHAP"),
    "source": ("source", "SOURCE"),
    "lorif": ("lorif", "LoRIF"),
    "captum": ("captum_tracin", "CaptumTracIn"),
    "spans": ("spans", "Spans"),
}
# Where each kind of stored index is read: only these, and what installed packages announce, is ever opened.
_INDEXES = {
    "linear": ("poa.gradients.linear", "LinearIndex"),
    "bm25": ("poa.methods.bm25", "BM25Index"),
    "captum": ("poa.methods.captum_tracin", "CaptumIndex"),
    "coalitions": ("poa.methods.kernel_shap", "CoalitionIndex"),
    "knn-shapley": ("poa.methods.knn_shapley", "KNNShapleyIndex"),
    "random": ("poa.methods.random", "RandomIndex"),
    "representer": ("poa.methods.representer", "RepresenterIndex"),
    "replayed": ("poa.gradients.replayed", "ReplayedIndex"),
    "repsim": ("poa.methods.repsim", "RepSimIndex"),
    "solved": ("poa.gradients.solved", "SolvedIndex"),
    "spans": ("poa.methods.spans", "SpansIndex"),
    "unrolled": ("poa.gradients.unrolled", "UnrolledIndex"),
}
_CLASSES = {cls: module for module, cls in _HOMES.values()}

__all__ = [
    "ASTRA",
    "BM25",
    "EKFAC",
    "EKFACCG",
    "KFAC",
    "LESS",
    "MAGIC",
    "SOURCE",
    "TRAK",
    "AdamWInfluence",
    "CaptumTracIn",
    "DVEmb",
    "DataInf",
    "ExactInfluence",
    "GraSS",
    "GradCos",
    "GradDot",
    "InRun",
    "Influence",
    "KNNShapley",
    "KernelSHAP",
    "LoGra",
    "LoRIF",
    "Random",
    "RelatIF",
    "RepSim",
    "Representer",
    "Spans",
    "TracInCP",
    "TracInLast",
    "TracInProjection",
    "TrackStar",
    "available",
    "load_index",
    "method",
]


def available() -> dict[str, Any]:
    """Every built-in method class by its configuration name."""
    return {name: getattr(import_module(f"poa.methods.{home}"), cls) for name, (home, cls) in _HOMES.items()}


def method(name: str, **settings: object) -> Any:
    """The method `name` with `settings`; an unknown name or setting is refused with the nearest valid one."""
    from dataclasses import fields
    from difflib import get_close_matches

    if name not in _HOMES:
        near = get_close_matches(name, _HOMES, 1, 0.0)[0]
        raise PoaError(f"no method {name!r}; did you mean {near!r}? ({', '.join(_HOMES)})")
    home, cls = _HOMES[name]
    made = getattr(import_module(f"poa.methods.{home}"), cls)
    known = [field.name for field in fields(made)]
    for setting in settings:
        if setting not in known:
            raise PoaError(f"method {name} has no setting {setting!r}; it has {', '.join(known) or 'none'}")
    return made(**settings)


def load_index(source: str | Path, run: TrainingRun, *, revision: str | None = None) -> Any:
    """The index of any method that was saved to a folder or to a hub repository ("owner/name"), for its run.

    Kinds that are not poa's own are found through the entry-point group `poa.indexes`. Raises `Mismatch` for an unknown
    kind and for an index of another run, `Corrupt` for altered bytes, `PoaError` where there is no index.
    """
    from poa.indexes import kind_of, local_folder

    folder = local_folder(source, revision)
    kind = kind_of(folder)
    if kind in _INDEXES:
        module, cls = _INDEXES[kind]
        return getattr(import_module(module), cls).load(folder, run)
    announced = {point.name: point for point in entry_points(group="poa.indexes")}
    if kind not in announced:
        known = ", ".join((*_INDEXES, *sorted(announced)))
        raise Mismatch(f"{folder} holds an index of kind {kind!r}, must be one of {known}")
    return announced[kind].load().load(folder, run)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _CLASSES:
            raise AttributeError(f"module 'poa.methods' has no attribute {name!r}; it offers {', '.join(__all__)}")
        return getattr(import_module(f"poa.methods.{_CLASSES[name]}"), name)
