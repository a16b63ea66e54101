"""numba stays out of the import, and compiles where none of its own cache folders can be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import poa

SORT = """
import sys, numpy as np
from poa.spans.suffix import suffix_array
print(suffix_array(np.array([1, 0, 1, 0], np.uint16), 2).tolist())
from poa.compiled import _own_folder
print(_own_folder())
"""


def python(code: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_importing_spans_loads_no_numba() -> None:
    code = "import sys, poa.spans; print([m for m in ('numba', 'torch', 'pyarrow', 'pandas') if m in sys.modules])"
    assert python(code) == ["[]"]


@pytest.fixture
def read_only(tmp_path: Path) -> dict[str, str]:
    """A copy of the package where a file stands in the way of every cache folder (even root cannot write there)."""
    home = Path(poa.__file__).parent
    copied = tmp_path / "src" / "poa"
    shutil.copytree(home / "spans", copied / "spans", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__", "compiled", "errors", "digests", "files"):
        shutil.copy(home / f"{name}.py", copied)
    (copied / "spans" / "__pycache__").write_text("")
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    return {
        "PYTHONPATH": str(copied.parent),
        "HOME": str(blocked),
        "XDG_CACHE_HOME": str(blocked),
        "NUMBA_CACHE_DIR": "",
    }


def test_code_is_kept_in_the_cache_of_poa(read_only: dict[str, str], tmp_path: Path) -> None:
    sorted_, folder = python(SORT, POA_CACHE=str(tmp_path / "cache"), **read_only)
    assert sorted_ == "[3, 1, 2, 0]"
    assert Path(folder) == tmp_path / "cache" / "numba"
    assert list(Path(folder).rglob("*.nbc"))


def test_or_in_a_private_folder_that_goes_with_the_process(read_only: dict[str, str], tmp_path: Path) -> None:
    blocked = str(tmp_path / "blocked" / "cache")
    sorted_, folder = python(SORT, POA_CACHE=blocked, TMPDIR=str(tmp_path), **read_only)
    assert sorted_ == "[3, 1, 2, 0]"
    assert Path(folder).parent == tmp_path
    assert not Path(folder).exists()
