"""A report for rich, which alone asks for it and is not needed otherwise."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ._report import KeptNorm, Report


def rendered(report: Report) -> Group:
    """The figures of a report, and a row for each norm that was kept, with every obstacle."""
    return Group(_figures(report), *([_kept(report.kept)] if report.kept else []))


def _figures(report: Report) -> Table:
    table = Table("", "before", "after", "", box=None, header_style="dim", pad_edge=False)
    for column in table.columns[1:3]:
        column.justify = "right"
    norms = len(report.folded) + len(report.kept)
    ways = Counter(norm.direction for norm in report.folded)
    color = "yellow" if report.kept else "green"
    table.add_row("norms", f"{norms:,}", f"[bold {color}]{len(report.kept):,}", ", ".join(f"{n} {way}" for way, n in sorted(ways.items())))
    for what, before, after in (
        ("parameters", report.parameters_before, report.parameters_after),
        ("buffers", report.buffers_before, report.buffers_after),
        ("bytes", report.bytes_before, report.bytes_after),
        ("graph nodes", report.nodes_before, report.nodes_after),
    ):
        table.add_row(what, f"{before:,}", f"{after:,}", f"[dim]{after - before:+,}" if after != before else "")
    return table


def _kept(norms: tuple[KeptNorm, ...]) -> Table:
    table = Table("kept", "way", "reason", "", box=None, header_style="dim", pad_edge=False)
    for norm in norms:
        for number, obstacle in enumerate(norm.obstacles):
            where = f"{obstacle.detail} ({obstacle.source})" if obstacle.source else obstacle.detail
            table.add_row(
                Text("" if number else norm.name, style="bold"), obstacle.way, Text(obstacle.reason, style="yellow"), Text(where, style="dim")
            )
    return table
