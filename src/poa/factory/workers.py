"""Processes that share out independent trainings: one thread each, and none outlives the process that asked."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

PATIENCE = 1.0  # seconds between two looks at whether the parent still lives


@contextmanager
def workers(count: int = 0) -> Generator[ProcessPoolExecutor]:
    """A pool of `count` spawned processes (0: one per core) with one torch thread each.

    Results then do not depend on the number of cores. Leaving the block by an exception, Ctrl-C included, drops the
    work that has not begun; a parent that is killed takes its workers with it.
    """
    if multiprocessing.get_start_method(allow_none=True) not in (None, *multiprocessing.get_all_start_methods()):
        # Inside a worker of joblib, whose own way to start processes a spawned one does not know.
        multiprocessing.set_start_method("spawn", force=True)
    pool = ProcessPoolExecutor(
        count or os.cpu_count() or 1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(os.getpid(),)
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def one_thread() -> Generator[None]:
    """One torch thread until the block ends: results do not depend on the number of cores.

    torch counts threads per calling thread.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begin(parent: int) -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Leave at once when the parent is gone; nothing half-written stays, because results are renamed into place."""
    while os.getppid() == parent:
        time.sleep(PATIENCE)
    os._exit(1)
