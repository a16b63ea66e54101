"""How much memory a call adds at its peak to what the process held before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from poa.errors import PoaError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak(prepare: Callable[[], tuple[Callable[[], object], Callable[[], object]]]) -> int:
    """Bytes that `call` adds at its peak in a fresh process, where `prepare()` is (warm, call).

    `warm` runs first and uncounted: libraries load their kernels at the first use. Linux only; `prepare` must be
    importable (a plain function, or a partial of one).
    """
    if not _CLEAR.exists():
        raise PoaError("peak memory is read from /proc, which only Linux has")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_measured, prepare).result()


def _measured(prepare: Callable[[], tuple[Callable[[], object], Callable[[], object]]]) -> int:
    warm, call = prepare()
    warm()
    _CLEAR.write_text("5")  # sets the high-water mark to what is held now
    before = _kilobytes("VmRSS")
    call()
    return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise PoaError(f"/proc/self/status has no {name}")
