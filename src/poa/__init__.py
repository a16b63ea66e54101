"""Proof of Attribution: whose data shaped a model's answer, how sure that is, and what they are owed."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Attributor",
    "CausalLM",
    "Corpus",
    "Ensemble",
    "Index",
    "PoaError",
    "Record",
    "Scores",
    "SequenceClassifier",
    "StepLog",
    "Supervised",
    "Task",
    "TorchRun",
    "TrainingRun",
    "__version__",
    "conformance",
    "datanet",
    "finetune",
    "load_index",
    "load_run",
    "methods",
]

if TYPE_CHECKING:
    from poa import conformance, methods
    from poa.datanets.sources import datanet
    from poa.ensemble import Ensemble
    from poa.errors import PoaError
    from poa.factory.brought import TorchRun
    from poa.factory.causal import CausalLM
    from poa.factory.finetune import finetune
    from poa.factory.run import load_run
    from poa.factory.sequence import SequenceClassifier
    from poa.factory.supervised import Supervised
    from poa.methods import load_index
    from poa.protocols import Attributor, Index, Task, TrainingRun
    from poa.records import Corpus, Record
    from poa.scores import Scores
    from poa.steplog import StepLog
else:
    # numpy alone takes longer to import than `import poa` may; type checkers read the other branch, so that a
    # misspelt name is an error for them as it is here.
    _HOMES = {
        "Attributor": "poa.protocols",
        "CausalLM": "poa.factory.causal",
        "Corpus": "poa.records",
        "Ensemble": "poa.ensemble",
        "Index": "poa.protocols",
        "PoaError": "poa.errors",
        "Record": "poa.records",
        "Scores": "poa.scores",
        "SequenceClassifier": "poa.factory.sequence",
        "StepLog": "poa.steplog",
        "Supervised": "poa.factory.supervised",
        "Task": "poa.protocols",
        "TorchRun": "poa.factory.brought",
        "TrainingRun": "poa.protocols",
        "conformance": None,
        "datanet": "poa.datanets.sources",
        "finetune": "poa.factory.finetune",
        "load_index": "poa.methods",
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
