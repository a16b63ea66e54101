"""Files that are whole or absent, also where several processes make the same one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from poa.errors import PoaError
from poa.files import alone, atomic_folder, write_atomic

MAKER = """
import sys, time
from pathlib import Path
from poa.files import alone, atomic_folder
target = Path(sys.argv[1])
with alone(target):
    if target.exists():
        print("found", (target / "part").read_text())
    else:
        with atomic_folder(target) as work:
            time.sleep(0.5)
            (work / "part").write_text("whole")
        print("made")
"""


def test_one_process_makes_and_the_others_find(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKER, str(tmp_path / "thing")]
    makers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = sorted(maker.communicate()[0].strip() for maker in makers)
    assert said == ["found whole", "found whole", "made"]
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_the_lock_is_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), alone(tmp_path / "thing"):
        raise KeyError
    with alone(tmp_path / "thing"):
        pass


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "thing"
    with atomic_folder(target) as work:
        (work / "part").write_text("old")

    def fail() -> None:
        with atomic_folder(target) as work:
            (work / "part").write_text("new")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert (target / "part").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(PoaError, match=r"cannot write .*folder"):
        write_atomic(tmp_path / "folder", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
