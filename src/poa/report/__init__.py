"""One self-contained HTML page about a run: what went in, who shaped the answers, how sure, what it paid."""

from __future__ import annotations

from poa.report.page import render, write

__all__ = ["render", "write"]
