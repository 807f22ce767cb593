"""The README's table of what other tools make of a norm is what they make of it here."""

from __future__ import annotations

from pathlib import Path

import comparison
import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


def documented() -> list[list[str]]:
    """The cells of the table, its first line and its first column too."""
    section = README.read_text().partition("## Beside other tools")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")]
    return rows[: len(comparison.PATTERNS) + 1]


TITLES = documented()[0][1:]


def test_the_table_has_every_pattern_and_tool():
    assert [title.rpartition(" ")[0] or title for title in TITLES] == list(comparison.TOOLS)
    assert [row[0] for row in documented()[1:]] == list(comparison.PATTERNS)


@pytest.mark.parametrize("row", documented()[1:], ids=lambda row: row[0])
def test_a_row(row):
    # Of the tools that are here in the version of the table.
    here = [tool for tool, title in zip(comparison.TOOLS, TITLES) if comparison.is_installed(tool) and comparison.title(tool) == title]
    cells = dict(zip(comparison.TOOLS, row[1:]))
    assert comparison.outcomes(row[0], here) == [cells[tool] for tool in here]
