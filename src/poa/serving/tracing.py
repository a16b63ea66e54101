"""Tracer: answers a question with a run's adapter, or takes an answer, and says where it came from."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poa.digests import plain_digest
from poa.errors import PoaError
from poa.factory.workers import one_thread
from poa.records import Corpus, Record, check, content_digest
from poa.scores import Scores
from poa.serving.document import (
    SCHEMA,
    Choice,
    Digests,
    Evidence,
    Input,
    Output,
    RankedRecord,
    Salts,
    Share,
    Token,
    Trace,
    decimal,
)
from poa.serving.generate import Sampling, generate, require_room
from poa.serving.indexes import Fitted, fitted, opened
from poa.serving.passages import Passages, tokenizer_digest
from poa.serving.runs import Elsewhere

if TYPE_CHECKING:
    from poa.factory.causal import CausalLM
    from poa.factory.run import LoRARun

DEFAULT_METHODS = ("influence", "repsim", "bm25")
_SNIPPET = 200
_UNIT = 10**9


@dataclass(frozen=True, eq=False)
class Tracer(AbstractContextManager["Tracer"]):
    """A run, its model and the indexes that are asked; `open` makes one. Close it: queries leave files in `scratch`.

    least: shortest verbatim span in tokens; most: records shown per method and span. Not for several threads at once.
    """

    run: LoRARun
    model: Any
    passages: Passages
    indexes: tuple[Fitted, ...]
    scratch: Path
    least: int = 4
    most: int = 5

    @staticmethod
    def open(run: LoRARun, methods: Sequence[str] = DEFAULT_METHODS, index: Path | None = None) -> Tracer:
        """Fit what is not yet kept under `run.cache` and open it.

        `index` is the folder of a further index. Raises `PoaError` for an unknown or repeated method, `Mismatch` for
        an index of another run, before anything expensive starts.
        """
        if len(set(methods)) != len(methods):
            raise PoaError(f"methods are {', '.join(methods)}: name each once")
        scratch = Path(tempfile.mkdtemp(prefix="poa-queries-"))
        try:
            away = Elsewhere(run, scratch / "cache")
            given = () if index is None else (opened(index, away),)
            known = [_known(name) for name in methods]
            with one_thread():
                made = tuple(fitted(name, run, away) for name in known if name not in {one.name for one in given})
                return Tracer(run, run.model(), Passages.of(run), (*given, *made), scratch)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def trace(
        self,
        question: str,
        answer: str | None = None,
        sampling: Sampling | None = None,
        receipt_id: str = "",
        salts: Salts | None = None,
    ) -> Trace:
        """Answer `question` (or take `answer`) and trace it; equal inputs give equal bytes, whatever was asked before.

        An answer without a visible character has no evidence. Raises `PoaError` where a text is empty or not UTF-8, or
        passes the model's context.
        """
        sampling = sampling or Sampling()
        require_question(self.run.task, question, answer, sampling)
        with one_thread():
            if answer is None:
                made = generate(self.run.task, self.model, question, sampling)
                text, reason = made.text, made.finish_reason
            else:
                text, reason = answer, "given"
            tokens = require_room(self.run.task, question, len(self.run.task.encode(text)), "the answer has")
            try:
                return self._traced(question, tokens, text, reason, sampling, receipt_id, salts or Salts("", ""))
            finally:
                shutil.rmtree(self.scratch / "cache", ignore_errors=True)

    def _traced(
        self, question: str, tokens: int, text: str, reason: str, sampling: Sampling, receipt_id: str, salts: Salts
    ) -> Trace:
        seen = bool(text.strip())
        query = Corpus([answered(question, text)]) if seen else Corpus([])
        return Trace(
            v=SCHEMA,
            receipt_id=receipt_id,
            input=Input(question, tokens),
            output=Output(text, reason, self._tokens(query[0]) if seen else ()),
            sampling=Choice(
                sampling.max_new_tokens, decimal(sampling.temperature), decimal(sampling.top_p), sampling.seed
            ),
            spans=self.passages.spans(text, self.least, self.most) if seen else (),
            methods=tuple(self._evidence(one, query) for one in self.indexes) if seen else (),
            digests=self.digests,
            salts=salts,
            versions=versions(),
        )

    @property
    def digests(self) -> Digests:
        run = self.run
        indexes = [[one.name, one.identity, one.digest] for one in self.indexes]
        return Digests(
            adapter=run.adapter_digest,
            base=run.parent.digest,
            tokenizer=tokenizer_digest(run),
            run=run.digest,
            snapshot=run.snapshot,
            index=plain_digest([indexes, self.passages.digest]),
            config=plain_digest(run.recipe.plain()),
        )

    def _tokens(self, record: Record) -> tuple[Token, ...]:
        """Tokens of the text with their log-probability given everything before them; eos is left out."""
        import torch

        task = self.run.task
        lead = task.sequence(record, whole=True)[1]
        with torch.no_grad():
            nats = task.token_log_probabilities(self.model, task.batch([record]))[0, lead - 1 :]
        return tuple(
            Token(token, start, end, decimal(np.float32(value)))
            for token, (start, end), value in zip(
                task.encode(record.text), task.offsets(record.text), nats.tolist(), strict=False
            )
        )

    def _evidence(self, one: Fitted, query: Corpus) -> Evidence:
        scores = one.index.attribute(query)
        # Looked up again, because `top` widens: in its own precision a score has fewer digits.
        exact = dict(zip(scores.train_ids, scores.values[0], strict=True))
        ranked = tuple(
            self._ranked(rank, hit.train_id, decimal(exact[hit.train_id]))
            for rank, hit in enumerate(scores.top(self.most)[0], 1)
        )
        shares = shares_of(scores)
        return Evidence(one.name, one.identity, one.channel, scores.unit, one.digest, ranked, shares)

    def _ranked(self, rank: int, name: str, score: str) -> RankedRecord:
        record = self.passages.records[name]
        return RankedRecord(
            rank,
            name,
            record.contributor,
            record.datanet,
            record.licence,
            score,
            record.text[:_SNIPPET],
        )


def require_question(task: CausalLM, question: str, answer: str | None, sampling: Sampling) -> None:
    """Raises `PoaError` where question and answer, given or still to come, are empty, not UTF-8 or too long."""
    _readable("question", question, question)
    if answer is None:
        require_room(task, question, sampling.max_new_tokens, "max_new_tokens is")
    else:
        _readable("answer", question, answer)
        require_room(task, question, len(task.encode(answer)), "the answer has")


def shares_of(scores: Scores) -> tuple[Share, ...]:
    """Signed sums of the first query per contributor, largest first; signs are kept, nothing is clipped."""
    sums = scores.by("contributor")
    row = np.asarray(sums.values[0], np.float64)
    total = float(np.abs(row).sum())
    parts = np.zeros(len(row), np.int64) if total == 0 else (np.abs(row) / total * _UNIT).astype(np.int64)
    order = np.argsort(-row, kind="stable").tolist()
    return tuple(Share(sums.train_ids[i], decimal(float(row[i])), int(parts[i])) for i in order)


def versions() -> tuple[tuple[str, str], ...]:
    """(library, version) of everything that an answer depends on, by name."""
    import poa
    from poa.factory.versions import library_versions

    return tuple(sorted((library_versions() | {"poa": poa.__version__}).items()))


def _known(name: str) -> str:
    from poa import methods

    methods.method(name)
    return name


def _readable(what: str, question: str, text: str) -> None:
    """One rule for what may be asked and answered: the rule for records."""
    if not text.strip():
        raise PoaError(f"the {what} is empty")
    if reason := check(answered(question, text)):
        raise PoaError(f"the {what}: {reason}")


def answered(question: str, text: str) -> Record:
    """The query that methods see. Some read its id, so equal contents have equal ids."""
    return Record(f"answer-{content_digest(text, question, (), -1)[:16]}", text, question)
