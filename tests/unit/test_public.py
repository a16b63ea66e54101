"""The public surface: one list, lazy, true."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import poa

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "jax", "numba", "pyarrow", "pandas", "transformers", "numpy", "scipy", "sklearn", "hydra", "wandb")


def fresh(code: str) -> str:
    """What `code` prints in a new interpreter."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_poa_loads_nothing_heavy() -> None:
    assert fresh(f"import sys, poa; print([m for m in {HEAVY!r} if m in sys.modules])") == "[]"


def test_the_help_loads_nothing_heavy() -> None:
    code = f"import sys; from poa.cli import main; main(['--help']); print([m for m in {HEAVY!r} if m in sys.modules])"
    assert fresh(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("module", ["poa.records", "poa.scores", "poa.rewards", "poa.ledger", "poa.spans"])
def test_the_lower_floors_run_without_torch(module: str) -> None:
    # None makes every `import torch` fail, as on a machine where it is not installed.
    assert fresh(f"import sys; sys.modules['torch'] = None; import {module}; print('fine')") == "fine"


@pytest.mark.parametrize("name", poa.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(poa, name) is not None
    assert name in dir(poa)


def test_the_list_is_what_the_package_offers() -> None:
    assert list(poa.__all__) == sorted(set(poa.__all__))
    source = (ROOT / "src/poa/__init__.py").read_text()
    typed = source.split("if TYPE_CHECKING:")[1].split("else:")[0]
    imported = {name for line in re.findall(r"import (.+)", typed) for name in line.split(", ")}
    assert imported | {"__version__"} == set(poa.__all__)


def test_public_names_come_from_their_homes() -> None:
    from poa.records import Corpus
    from poa.scores import Scores

    assert poa.Corpus is Corpus
    assert poa.Scores is Scores
    assert poa.methods is sys.modules["poa.methods"]


def test_a_misspelt_name_is_an_attribute_error_that_lists_the_names() -> None:
    with pytest.raises(AttributeError, match=r"'Corpsu'; it offers .*Corpus"):
        _ = poa.Corpsu  # type: ignore[attr-defined]


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert poa.__version__ == project["version"]
    assert f"version: {poa.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert f"[{poa.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_direct_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in ("hub", "wandb", "sweep", "dev") for line in extras[name])]
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
    locked = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    missing = {re.split(r"[\[<>=]", line)[0].lower() for line in wanted}
    assert {re.sub(r"[-_.]+", "-", name) for name in missing} - locked == set()
