"""The one place that turns committed results into the paper's tables and figures and the README's numbers.

python experiments/collect.py                    write paper/tables, paper/figures and the README block
python experiments/collect.py record RUN_FOLDER  keep a finished run's summary as experiments/results/NAME.json
python experiments/collect.py fidelity FOLDER... keep finished jobs of experiment=fidelity as results/fidelity.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from collected import fidelity, runs
from collected.figures import draw
from collected.results import fidelity_figures, kind, load, record, record_fidelity
from collected.text import between_markers, latex, markdown
from poa.errors import PoaError
from poa.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]


def collect(root: Path, *, figures: bool = True) -> list[Path]:
    """Write all that follows from `root`/experiments/results; returns the files whose content is now other."""
    paths = sorted((root / "experiments/results").glob("*.json"))
    results = {path.stem: load(path) for path in paths if kind(path) == "run"}
    texts = {
        root / "paper/tables" / name: text for result in results.values() for name, text in runs.tables(result).items()
    }
    for path in paths:
        if kind(path) == "fidelity":
            tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
            for name, task in tasks.items():
                texts[root / "paper/tables" / f"{path.stem}-{name}.tex"] = latex(fidelity.fidelity_rows(task))
                if task["peers"]:
                    texts[root / "paper/tables" / f"{path.stem}-{name}-peers.tex"] = latex(fidelity.peer_rows(task))
            page = root / "docs/fidelity.md"
            texts[page] = between_markers(page.read_text(encoding="utf-8"), fidelity.fidelity_block(path, tasks))
    readme = root / "README.md"
    block = readme_block(results.get("quickstart"), fidelity_figures(root / "experiments/results"))
    texts[readme] = between_markers(readme.read_text(encoding="utf-8"), block)
    changed = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in changed:
        write_atomic(path, texts[path].encode())
    if figures:
        for result in results.values():
            draw(result, root / "paper/figures")
    return changed


def readme_block(result: Mapping[str, Any] | None, figures: Mapping[str, Any] | None = None) -> str:
    """What stands between the README's markers: a finished demo, and `figures` of experiments/results/fidelity.json."""
    block = runs.readme_block(result)
    if not figures:
        return block
    told = "All methods, their truths and the commands behind them: [docs/fidelity.md](docs/fidelity.md)."
    return "\n\n".join([block, markdown(fidelity.figure_rows(figures)), told])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action")
    keep = actions.add_parser("record", help="keep a finished run's summary")
    keep.add_argument("run", type=Path)
    keep.add_argument("--name", help="name of the result (default: the run's name)")
    keep.add_argument("--command", help="how the run was made, where it was not its preset alone")
    join = actions.add_parser("fidelity", help="join finished jobs of experiment=fidelity")
    join.add_argument("folders", type=Path, nargs="+")
    join.add_argument("--command", action="append", required=True, help="how the jobs were made; once per command")
    told = parser.parse_args(arguments)
    try:
        if told.action == "fidelity":
            _say([record_fidelity(told.folders, told.command, ROOT / "experiments/results")])
        elif told.action == "record":
            _say([record(told.run, told.name, told.command, ROOT / "experiments/results")])
        else:
            _say(collect(ROOT))
    except PoaError as error:
        print(f"collect: error: {error}", file=sys.stderr)
        return 2
    return 0


def _say(paths: Iterable[Path]) -> None:
    for path in paths:
        print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


if __name__ == "__main__":
    sys.exit(main())
