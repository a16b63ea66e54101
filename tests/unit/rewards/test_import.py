"""A settlement service runs without torch: importing the package brings in numpy and nothing heavier."""

from __future__ import annotations

import subprocess
import sys

import poa.rewards

HEAVY = ("torch", "jax", "numba", "transformers", "pandas", "pyarrow", "scipy", "sklearn", "faiss", "hydra", "yaml")


def test_importing_rewards_brings_in_no_heavy_library() -> None:
    code = f"import sys, poa.rewards; print([name for name in {HEAVY} if name in sys.modules], 'numpy' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[] True"


def test_the_public_list_is_complete() -> None:
    assert all(getattr(poa.rewards, name) is not None for name in poa.rewards.__all__)
    assert poa.rewards.__all__ == sorted(poa.rewards.__all__, key=lambda name: (not name.isupper(), name))
