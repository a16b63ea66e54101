"""BM25: word overlap, the strongest cheap rival of gradient methods."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from functools import cached_property
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from poa.errors import PoaError, Unsupported
from poa.indexes import Columns, Pretrained, load_columns, save_index

if TYPE_CHECKING:
    from poa.protocols import TrainingRun
    from poa.records import Corpus, Record
    from poa.scores import Scores

_WORD = re.compile(r"\w+")


def words(record: Record) -> list[str]:
    """Lower-cased runs of word characters (Unicode letters, digits, _) of prompt and text; no stemming or stop list."""
    return _WORD.findall(f"{record.prompt}\n{record.text}".lower())


@dataclass(frozen=True)
class BM25:
    """Okapi BM25 of a query's words in each record.

    score = sum over query word occurrences of idf tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length)) with
    idf = ln(1 + (N - df + 1/2) / (df + 1/2)), which is positive even for a word in every record (Robertson and
    Zaragoza 2009, section 3; idf as in Lucene). Never negative; a query without a known word scores 0. Needs a task
    whose records are text; raises `Unsupported` otherwise.
    """

    citation: ClassVar[str] = (
        "Robertson, Zaragoza. The Probabilistic Relevance Framework: BM25 and Beyond. "
        "Foundations and Trends in Information Retrieval 3(4), 2009. doi:10.1561/1500000019"
    )
    family: ClassVar[str] = "lexical"
    needs: ClassVar[str] = "text"
    cost: ClassVar[str] = "an index of words"

    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self) -> None:
        if not 0 <= self.k1 < float("inf"):
            raise PoaError(f"k1 is {self.k1}, must be 0 or more")
        if not 0 <= self.b <= 1:
            raise PoaError(f"b is {self.b}, must be between 0 and 1")

    def fit(self, run: TrainingRun) -> BM25Index:
        for record in run.corpus[:1]:
            _require_text(run, record)
        counts = [Counter(words(record)) for record in run.corpus]
        lengths = [sum(count.values()) for count in counts]
        # A corpus without a single word has no mean length; its index has no terms, so the value is never used.
        mean = sum(lengths) / max(1, len(lengths)) or 1.0
        postings: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for position, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            damping = self.k1 * (1 - self.b + self.b * length / mean)
            for word, frequency in count.items():
                postings[word].append((position, frequency * (self.k1 + 1) / (frequency + damping)))
        vocabulary = tuple(sorted(postings))
        starts = np.cumsum([0, *(len(postings[word]) for word in vocabulary)])
        entries = [entry for word in vocabulary for entry in postings[word]]
        return BM25Index(
            Columns.of(run),
            self,
            vocabulary,
            np.asarray(starts, np.int64),
            np.asarray([position for position, _ in entries], np.int64),
            np.asarray([weight for _, weight in entries], np.float64),
        )


@dataclass(frozen=True, eq=False)
class BM25Index(Pretrained):
    """Postings: word v occurs in records `positions[starts[v]:starts[v + 1]]` with `weights` (without idf)."""

    columns: Columns
    method: BM25
    vocabulary: tuple[str, ...]
    starts: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]

    @property
    def run_digest(self) -> str:
        return self.columns.run_digest

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.vocabulary)}

    def attribute(self, queries: Corpus) -> Scores:
        """[query, train] BM25, 0 or more, uncalibrated. Raises `PoaError` for a query without text."""
        return self.columns.scores([self._row(query) for query in queries], queries, self.method)

    def _row(self, query: Record) -> npt.NDArray[np.float64]:
        if not query.text:
            raise PoaError(f"query {query.id!r} has no text; bm25 compares words")
        records = len(self.columns.train_ids)
        row = np.zeros(records)
        # Sorted words: the sum of a record has one order, whatever the order of the query or of the manifest.
        for word, times in sorted(Counter(words(query)).items()):
            number = self._numbers.get(word)
            if number is not None:
                span = slice(int(self.starts[number]), int(self.starts[number + 1]))
                found = span.stop - span.start
                idf = log(1 + (records - found + 0.5) / (found + 0.5))
                row[self.positions[span]] += times * idf * self.weights[span]
        return row

    def save(self, folder: Path) -> None:
        letters = np.frombuffer("\n".join(self.vocabulary).encode(), np.uint8)
        arrays = {"starts": self.starts, "positions": self.positions, "weights": self.weights, "vocabulary": letters}
        save_index(folder, "bm25", arrays, {"columns": self.columns.plain(), "method": asdict(self.method)})

    @staticmethod
    def load(folder: Path, run: TrainingRun) -> BM25Index:
        """Read what `save` wrote; raises `Mismatch` for another run, `Corrupt` for changed bytes."""
        columns, arrays, meta = load_columns(folder, "bm25", run)
        letters = arrays["vocabulary"].tobytes().decode()
        vocabulary = tuple(letters.split("\n")) if letters else ()
        method = BM25(**meta["method"])
        return BM25Index(columns, method, vocabulary, arrays["starts"], arrays["positions"], arrays["weights"])


def _require_text(run: TrainingRun, record: Record) -> None:
    try:
        run.task.tokens(record)
    except Unsupported as error:
        raise Unsupported(f"bm25 compares words, but {error}") from error
