"""Desk: one worker thread that answers, traces and records, one request after the other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from poa.errors import PoaError
from poa.serving.document import Trace
from poa.serving.founding import require_adapter
from poa.serving.receipts import ReceiptBook, fresh_salts, receipt_id
from poa.serving.requests import Completion
from poa.serving.tracing import Tracer

T = TypeVar("T")


class Unrecorded(PoaError):
    """An answer existed and its receipt could not be written, so it was not given."""


@dataclass(frozen=True, eq=False)
class Desk(AbstractContextManager["Desk"]):
    """A tracer and an open receipt book on a thread of their own: neither may be used from several.

    model: the name under which the adapter is served.
    """

    model: str
    tracer: Tracer
    book: ReceiptBook
    worker: ThreadPoolExecutor

    @staticmethod
    def open(model: str, tracer: Tracer, folder: Path) -> Desk:
        """Open the receipt book in `folder` on a new worker thread and publish the adapter there if needed."""
        worker = ThreadPoolExecutor(1, "poa-desk")

        def begin() -> ReceiptBook:
            book = ReceiptBook.open(folder)
            try:
                require_adapter(book, tracer.run)
            except BaseException:
                book.ledger.close()
                raise
            return book

        try:
            return Desk(model, tracer, worker.submit(begin).result(), worker)
        except BaseException:
            worker.shutdown()
            raise

    def __exit__(self, *_: object) -> None:
        """Finish what is being answered, then close the book; the tracer stays open."""
        try:
            self.worker.submit(self.book.ledger.close).result()
        finally:
            self.worker.shutdown()

    @property
    def adapter(self) -> str:
        return self.tracer.run.adapter_digest

    def submit(self, work: Callable[[Desk], T]) -> Future[T]:
        """Run `work` on the worker thread."""
        return self.worker.submit(work, self)

    def answer(self, asked: Completion) -> Trace:
        """Answer and record (on the worker thread); the receipt is durable when this returns.

        Raises `Unrecorded` where the receipt could not be written: then there is no answer either.
        """
        trace = self.tracer.trace(asked.prompt, None, asked.sampling, receipt_id(), fresh_salts())
        try:
            self.book.record(trace)
        except PoaError as error:
            raise Unrecorded(f"the receipt could not be written: {error}") from error
        return trace
