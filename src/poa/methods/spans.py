"""Spans: how many words of a response stand verbatim in a record that registered them first."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import ceil, log2
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from poa.errors import Corrupt, PoaError, Unsupported
from poa.files import atomic_folder
from poa.indexes import Columns, Pretrained, load_columns, save_index
from poa.records import Corpus, Record
from poa.spans import Calibration, Document, Priority, Span, SpanCredit, SpanIndex, Unigram, calibrate, credit, trace

if TYPE_CHECKING:
    from poa.protocols import Task, TrainingRun
    from poa.scores import Scores

_TEXT, _UNIGRAM, _CALIBRATION, _RULE = "text", "unigram", "calibration", "rule"
_BIT = 1024


@dataclass(frozen=True)
class Spans:
    """Rule P on verbatim spans: each response token counts for the first registrant of an informative match over it.

    score = number of response tokens credited to the record, exact; 0 or more, at most the length of the response.
    Tokens that stand in the query's own prompt count for nobody. A match is informative when its tokens hold enough
    information: `min_bits`, more than any single token, and where `decoys` are named also the threshold at which at
    most the share `alpha` of decoy tokens is covered. Without decoys nothing bounds matches by chance.

    reference: text file of lines "token count" from a frozen reference text, never the contributed one; without it
    each token carries log2(vocabulary) bits, which overrates common words. decoys: JSON lines of two or more records
    that are not in the corpus. seed: of the bootstrap over decoys. Owners are the run's payees, or its contributors
    where it knows no payees. Needs a task whose records are token sequences; raises `Unsupported` otherwise.
    """

    citation: ClassVar[str] = (
        "Liu et al. OLMoTrace: Tracing Language Model Outputs Back to Trillions of Training Tokens. ACL 2025 "
        "(demonstrations). arXiv:2504.07096; the credit rule is poa's own"
    )
    family: ClassVar[str] = "span"
    needs: ClassVar[str] = "text, a tokenizer"
    cost: ClassVar[str] = "a suffix array"
    exempt: ClassVar[dict[str, str]] = {"duplicates": "Rule P pays the first registrant only"}

    min_bits: float = 64.0
    reference: str = ""
    decoys: str = ""
    alpha: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_bits < 2**40:
            raise PoaError(f"min_bits is {self.min_bits}, must be 0 or more")
        if not 0 < self.alpha < 1:
            raise PoaError(f"alpha is {self.alpha}, must be between 0 and 1")
        if self.seed < 0:
            raise PoaError(f"seed is {self.seed}, must be 0 or more")

    def fit(self, run: TrainingRun) -> SpansIndex:
        vocabulary = _vocabulary(run)
        owners = run.groups.get("payee", run.corpus.contributors)
        documents = [
            Document(record.id, owner, record.registered, _tokens(run.task, record), record.digest)
            for record, owner in zip(run.corpus, owners, strict=True)
        ]
        # The run's digest fixes its tokenizer too: it covers the recipe.
        index = SpanIndex.build(documents, vocabulary, run.digest, run.digest)
        unigram = _counted(Path(self.reference), vocabulary) if self.reference else _uniform(vocabulary)
        calibration = self._calibration(run.task, index, unigram)
        return SpansIndex(Columns.of(run), self, run.task, index, unigram, calibration)

    def _calibration(self, task: Task, index: SpanIndex, unigram: Unigram) -> Calibration | None:
        if not self.decoys:
            return None
        texts = [_tokens(task, record) for record in Corpus.from_jsonl(self.decoys)]
        return calibrate(index, unigram, texts, alpha=self.alpha, seed=self.seed)


@dataclass(frozen=True, eq=False)
class SpansIndex(Pretrained):
    """The corpus as a suffix array, the frozen unigram table, and what chance does on the decoys where there are."""

    columns: Columns
    method: Spans
    task: Task
    index: SpanIndex
    unigram: Unigram
    calibration: Calibration | None

    @property
    def run_digest(self) -> str:
        return self.columns.run_digest

    @cached_property
    def rule(self) -> Priority:
        """Rule P at the larger of `min_bits` and the calibrated threshold; the prompt is masked at `min_bits`."""
        floor = max(round(self.method.min_bits * _BIT), self.unigram.cap + 1)
        if self.calibration is None or self.calibration.theta < floor:
            return Priority(self.unigram, floor)
        return Priority.calibrated(self.calibration, self.unigram, mask_theta=floor)

    @cached_property
    def _column(self) -> dict[str, int]:
        return {name: column for column, name in enumerate(self.columns.train_ids)}

    def attribute(self, queries: Corpus) -> Scores:
        """[query, train] credited response tokens, uncalibrated. Raises `PoaError` for a query without text."""
        return self.columns.scores(
            [self._row(query) for query in queries],
            queries,
            self.method,
            theta=self.rule.theta,
            index=self.index.digest,
            unigram=self.unigram.digest,
            decoys="" if self.calibration is None else self.calibration.decoy_digest,
        )

    def credit(self, query: Record) -> SpanCredit:
        """Where each token of `query.text` goes by Rule P: owners, windows and the other accounts."""
        prompt = [_tokens(self.task, replace(query, text=query.prompt))] if query.prompt else []
        return credit(self.index, self._said(query), self.rule, passages=prompt)

    def trace(self, query: Record, **options: Any) -> tuple[Span, ...]:
        """The maximal verbatim spans of `query.text`, informative or not; `options` as in `poa.spans.trace`."""
        said = self._said(query)
        return trace(self.index, said, unigram=self.unigram, calibration=self.calibration, **options)

    def _row(self, query: Record) -> npt.NDArray[np.float64]:
        row = np.zeros(len(self.columns.train_ids))
        for window in self.credit(query).windows:
            row[self._column[window.record_id]] += window.weight
        return row

    def _said(self, query: Record) -> list[int]:
        if not query.text:
            raise PoaError(f"query {query.id!r} has no text; spans compares words")
        return _tokens(self.task, query)

    def save(self, folder: Path) -> None:
        """Text, table, calibration and rule, in one step; replaces an index and refuses any other folder."""
        if folder.exists() and not _replaceable(folder):
            raise PoaError(f"{folder} exists and holds no spans index; choose an empty or new folder")
        meta = {
            "columns": self.columns.plain(),
            "method": asdict(self.method),
            "index": self.index.digest,
            "unigram": self.unigram.digest,
            "decoys": None if self.calibration is None else self.calibration.decoy_digest,
        }
        with atomic_folder(folder) as work:
            self.index.save(work / _TEXT)
            self.unigram.save(work / _UNIGRAM)
            if self.calibration is not None:
                self.calibration.save(work / _CALIBRATION)
            save_index(work / _RULE, "spans", {}, meta)

    @staticmethod
    def load(folder: Path, run: TrainingRun) -> SpansIndex:
        """Read what `save` wrote; raises `Mismatch` for another run, `Corrupt` for changed bytes."""
        columns, _, meta = load_columns(folder / _RULE, "spans", run)
        index, unigram = SpanIndex.load(folder / _TEXT), Unigram.load(folder / _UNIGRAM)
        calibration = None if meta["decoys"] is None else Calibration.load(folder / _CALIBRATION)
        found = {"index": index.digest, "unigram": unigram.digest}
        for name, digest in found.items():
            if digest != meta[name]:
                raise Corrupt(f"{folder}: its {name} is {digest}, the rule was saved with {meta[name]}")
        if calibration is not None:
            calibration.require(index, unigram)
        return SpansIndex(columns, Spans(**meta["method"]), run.task, index, unigram, calibration)


def _uniform(vocabulary: int) -> Unigram:
    # Capped at what every token carries, so that two tokens can be enough where `min_bits` allows it.
    return Unigram.from_counts(np.ones(vocabulary, np.int64), max(1, ceil(log2(vocabulary) * _BIT)))


def _counted(path: Path, vocabulary: int) -> Unigram:
    """From lines "token count"; a token that is missing counts as unseen. Raises `PoaError` naming the line."""
    counts = np.zeros(vocabulary, np.int64)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PoaError(f"reference {path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) != 2 or not all(word.isascii() and word.isdigit() and len(word) < 16 for word in words):
            raise PoaError(f"{path}, line {number}: {line[:60]!r} is not 'token count', two whole numbers")
        token, count = map(int, words)
        if token >= vocabulary:
            raise PoaError(f"{path}, line {number}: token {token} is outside the vocabulary of {vocabulary}")
        counts[token] += count
    return Unigram.from_counts(counts)


def _tokens(task: Task, record: Record) -> list[int]:
    try:
        return task.tokens(record)
    except Unsupported as error:
        raise Unsupported(f"spans compares tokens, but {error}") from error


def _vocabulary(run: TrainingRun) -> int:
    """Rows of the base model's token embedding: frozen, and large enough for every token of the task."""
    from torch import nn

    for record in run.corpus[:1]:
        _tokens(run.task, record)
    # A module lists its parts in order of definition, and models define their token embedding before any other.
    for module in run.base().modules():
        if isinstance(module, nn.Embedding):
            return module.num_embeddings
    raise Unsupported("spans needs a model with a token embedding, which fixes the vocabulary; this one has none")


def _replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    if not any(folder.iterdir()):
        return True
    try:
        body = json.loads((folder / _RULE / "manifest.json").read_bytes())["body"]
        return bool(body["kind"] == "spans")
    except (OSError, ValueError, KeyError, TypeError):
        return False
