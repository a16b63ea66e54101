"""The ledger runs where torch is absent: importing it brings in none of the heavy libraries."""

from __future__ import annotations

import subprocess
import sys


def test_no_heavy_library_is_imported() -> None:
    heavy = "('torch', 'jax', 'transformers', 'pandas', 'faiss', 'numba', 'scipy')"
    code = f"import sys, poa.ledger; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_exist() -> None:
    import poa.ledger

    assert sorted(set(poa.ledger.__all__)) == sorted(poa.ledger.__all__)
    for name in poa.ledger.__all__:
        assert getattr(poa.ledger, name) is not None
