"""Worker processes: one thread each, gone with the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from poa.factory.workers import workers

PARENT = """
import os, time
from poa.factory.workers import workers
if __name__ == "__main__":
    with workers(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Whether `pid` runs; a process that has ended and was not waited for (state Z) does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_each_worker_has_one_thread() -> None:
    with workers(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1


def test_an_error_arrives_and_the_pool_ends() -> None:
    with pytest.raises(ZeroDivisionError), workers(1) as pool:
        pool.submit(divmod, 1, 0).result()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes through /proc")
def test_workers_do_not_outlive_a_parent_that_is_killed(tmp_path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 30
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not alive(worker)
