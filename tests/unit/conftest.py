"""The small language model and its fine-tune, made once a session."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.language import DoubleRun, small_base, small_corpus, small_queries, small_run

from poa.factory.run import LoRARun
from poa.records import Corpus


@pytest.fixture(scope="session")
def tiny_folder(cache: None) -> Path:
    return small_base()


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return small_corpus()


@pytest.fixture(scope="session")
def queries() -> Corpus:
    return small_queries()


@pytest.fixture(scope="session")
def run(cache: None) -> LoRARun:
    return small_run()


@pytest.fixture(scope="session")
def double(run: LoRARun, tmp_path_factory: pytest.TempPathFactory) -> DoubleRun:
    return DoubleRun(run, tmp_path_factory.mktemp("double"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mebibyte of memory mounted as a disk; skips where that is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
        )
    except OSError as error:
        pytest.skip(f"no mount command: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount a small tmpfs: {done.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
