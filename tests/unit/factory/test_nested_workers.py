"""Processes for retraining start inside a worker of a joblib sweep, too."""

from __future__ import annotations

import subprocess
import sys

CODE = """
from joblib import Parallel, delayed
from poa.factory.workers import workers


def nested(number):
    with workers(1) as pool:
        return pool.submit(abs, -number).result()


if __name__ == "__main__":
    print(Parallel(n_jobs=2, backend="loky")(delayed(nested)(i) for i in range(2)))
"""


def test_workers_start_inside_a_worker_of_joblib(tmp_path) -> None:
    (tmp_path / "script.py").write_text(CODE)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() == "[0, 1]", done.stderr
