"""Markdown tables of networks, and the options that the programs share which print them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .settings import Settings


def table(rows: Iterable[Sequence[str]], headings: Sequence[str], texts: int) -> Iterator[str]:
    """The lines of a table whose first ``texts`` columns are texts, and the others figures."""
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * texts}{'--:|' * (len(headings) - texts)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def add_options(parser: argparse.ArgumentParser, networks: Sequence[str]) -> None:
    """NETWORK, --size, --threads, --runs and --markdown."""
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=networks, help="a name of torchvision or timm")
    parser.add_argument("--size", metavar="PIXELS", type=int, default=224, help="height and width of the images (%(default)s)")
    parser.add_argument("--threads", metavar="N", type=int, help="threads of an operator")
    parser.add_argument("--runs", metavar="N", type=int, default=Settings.runs, help="timed runs of each (%(default)s)")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the table to FILE too")


def print_table(rows: Iterable[Sequence[str]], headings: Sequence[str], markdown: Path | None) -> None:
    """Prints the table, and each row to standard error as soon as it is there."""
    measured = []
    for row in rows:
        print("  ".join(row), file=sys.stderr, flush=True)
        measured.append(row)
    text = "\n".join(table(measured, headings, texts=1)) + "\n"
    print(text, end="")
    if markdown is not None:
        markdown.write_text(text)
