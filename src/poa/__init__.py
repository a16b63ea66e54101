"""Proof of Attribution: whose data shaped a model's answer, how sure that is, and what they are owed."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Attributor",
    "Corpus",
    "Index",
    "PoaError",
    "Record",
    "Scores",
    "Task",
    "TrainingRun",
    "__version__",
    "conformance",
    "datanet",
    "finetune",
    "load_run",
    "methods",
]

if TYPE_CHECKING:
    from poa import conformance, methods
    from poa.datanets.sources import datanet
    from poa.errors import PoaError
    from poa.factory.finetune import finetune
    from poa.factory.run import load_run
    from poa.protocols import Attributor, Index, Task, TrainingRun
    from poa.records import Corpus, Record
    from poa.scores import Scores
else:
    # numpy alone takes longer to import than `import poa` may; type checkers read the other branch, so that a
    # misspelt name is an error for them as it is here.
    _HOMES = {
        "Attributor": "poa.protocols",
        "Corpus": "poa.records",
        "Index": "poa.protocols",
        "PoaError": "poa.errors",
        "Record": "poa.records",
        "Scores": "poa.scores",
        "Task": "poa.protocols",
        "TrainingRun": "poa.protocols",
        "conformance": None,
        "datanet": "poa.datanets.sources",
        "finetune": "poa.factory.finetune",
        "load_run": "poa.factory.run",
        "methods": None,
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'poa' has no attribute {name!r}; it offers {', '.join(__all__)}")
        from importlib import import_module

        home = _HOMES[name]
        value = import_module(f"poa.{name}") if home is None else getattr(import_module(home), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted(set(globals()) | set(__all__))
