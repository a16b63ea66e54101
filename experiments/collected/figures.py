"""Pictures of a finished `poa run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def draw(result: Mapping[str, Any], folder: Path) -> list[Path]:
    """PDFs without dates, so that the same result gives the same bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from poa.integrations.plots import Measured, cost_vs_fidelity

    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    measured = {
        # A method that is done within the clock's resolution still needs a place on a logarithmic axis.
        name: Measured(max(row["seconds"], 0.001), truth, *row["interval"])
        for name, row in result["methods"].items()
        if (truth := row["spearman_vs_truth"]) is not None
    }
    if measured:
        made.append(_saved(cost_vs_fidelity(measured), folder / f"{result['name']}-cost-vs-fidelity.pdf"))
    if result.get("attacks"):
        made.append(_saved(_attack_bars(result["attacks"]), folder / f"{result['name']}-attacks.pdf"))
    pyplot.close("all")
    return made


def _attack_bars(policies: Mapping[str, Any]) -> Any:
    from matplotlib import pyplot

    attacks = sorted({attack for rows in policies.values() for attack in rows})
    _, axes = pyplot.subplots(1, len(policies), figsize=(3.4 * len(policies), 2.6), sharey=True, layout="constrained")
    for ax, (policy, rows) in zip([axes] if len(policies) == 1 else axes, policies.items(), strict=True):
        for shift, key, colour, label in (
            (-0.2, "share_before", "#b9c7d6", "honest"),
            (0.2, "share_after", "#b5482f", "attacking"),
        ):
            heights = [100 * rows[attack][key] if attack in rows else 0 for attack in attacks]
            ax.bar([i + shift for i in range(len(attacks))], heights, 0.38, color=colour, label=label)
        ax.set_xticks(range(len(attacks)), [attack.replace("_", "\n") for attack in attacks], fontsize=8)
        ax.set_title(policy, fontsize=9)
    first = axes if len(policies) == 1 else axes[0]
    first.set_ylabel("attacker's share, %")
    first.legend(frameon=False, fontsize=8)
    return first


def _saved(ax: Any, path: Path) -> Path:
    ax.get_figure().savefig(path, metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return path
