"""Rows of plain strings as Markdown and LaTeX, and numbers as such strings."""

from __future__ import annotations

from poa.errors import PoaError

Rows = list[list[str]]


BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
_SPECIAL = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "\\": r"\textbackslash{}"})


def markdown(rows: Rows) -> str:
    """A table whose columns after the first are numbers."""
    head, *body = rows
    marks = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *body))


def between_markers(text: str, block: str) -> str:
    """`text` with `block` between the markers; raises `PoaError` unless each marker is there once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise PoaError(f"the README needs one {BEGIN} and, after it, one {END}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}"


def latex(rows: Rows) -> str:
    """A booktabs table whose columns after the first are numbers."""
    head, *body = ([cell.translate(_SPECIAL).replace("<", "$<$") for cell in row] for row in rows)
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", " & ".join(head) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def latex_text(text: str) -> str:
    """A sentence, what stands between backticks in typewriter."""
    escaped = [part.translate(_SPECIAL) for part in text.split("`")]
    return "".join(rf"\texttt{{{part}}}" if i % 2 else part for i, part in enumerate(escaped)) + "\n"


def signed(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00")


def ratio(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def percent(part: float, whole: float = 1) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0.0 %"
