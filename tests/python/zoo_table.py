"""Folds the networks of the zoo and prints what came of it, one row a network: zoo_table.py --help for the options.

Each network runs in a process of its own: what one needs of memory is gone before the next, and a crash costs one row.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import zoo
from calibrate import relative_error
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import bnfold

LARGEST_ERROR = 1e-9
DIRECTIONS = ("backward", "forward", "sideways")
TIMEOUT = 1800  # seconds for one network
PIPED_WIDTH = 180


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What folding a network did, scripted or traced."""

    norms: int = 0  #: that run in eval mode
    folded: int = 0
    directions: dict[str, int] = dataclasses.field(default_factory=dict)
    kept: dict[str, int] = dataclasses.field(default_factory=dict)  #: by reason
    error: float = math.nan  #: the larger of those on the two inputs, in double, against eager
    freeze_leaves: int | None = None  #: norms that torch.jit.freeze leaves; None where it fails
    failure: str = ""  #: why there is nothing of the above


@dataclasses.dataclass(frozen=True)
class Row:
    """A network with its measurements."""

    architecture: zoo.Architecture
    measurements: dict[str, Measurement]  #: by spelling
    seconds: float

    def problems(self) -> list[str]:
        """What is not as it should be, for the exit code."""
        found = []
        for spelling, measured in self.measurements.items():
            if measured.failure:
                found.append(f"{spelling}: {measured.failure}")
                continue
            if not measured.error <= LARGEST_ERROR:
                found.append(f"{spelling}: an error of {measured.error:.1e}")
            if measured.norms != self.architecture.norms:
                found.append(f"{spelling}: {measured.norms} norms ran instead of {self.architecture.norms}")
            goal = self.architecture.goal(spelling)
            if measured.folded < goal:
                found.append(f"{spelling}: {measured.folded} folded instead of {goal}")
        return found


def norms_left_by_freeze(module: torch.jit.ScriptModule, architecture: zoo.Architecture) -> int | None:
    """How many norms torch.jit.freeze leaves in the graph of forward, None where it fails."""
    try:
        frozen = torch.jit.freeze(module)
    except RuntimeError:
        return None
    # The nodes found are gone with the graph that they are in. The frozen norms of torchvision are the only products of their networks.
    graph = frozen.inlined_graph
    return len(graph.findAllNodes("aten::mul" if architecture.frozen else "aten::batch_norm"))


def first_line(error: Exception) -> str:
    """The kind of the error and the first line of what it says."""
    return next((f"{type(error).__name__}: {line.strip()}" for line in str(error).splitlines() if line.strip()), type(error).__name__)


def measure_spelling(net: zoo.Network, spelling: zoo.Spelling) -> Measurement:
    """Folds the network, scripted or traced."""
    architecture = zoo.ZOO[net.name]
    try:
        module = zoo.to_torchscript(net.model, net.inputs, spelling)
        result = bnfold.fold(module)
        errors = (
            relative_error(net.output, result.module(*net.inputs)),
            relative_error(net.second_output, result.module(*net.second_inputs)),
        )
    except Exception as error:  # TorchScript raises all sorts; each is the outcome of this one network
        return Measurement(failure=first_line(error))
    # A norm that is called in both branches of a condition is in the report twice.
    kept = {norm.name: norm.reason for norm in result.report.kept}
    directions = {norm.name: norm.direction for norm in result.report.folded if norm.name not in kept}
    return Measurement(
        norms=len(net.norms),
        folded=len(directions),
        directions=dict(collections.Counter(directions.values())),
        kept=dict(collections.Counter(kept.values()).most_common()),
        error=math.nan if any(math.isnan(error) for error in errors) else max(errors),
        freeze_leaves=norms_left_by_freeze(module, architecture),
    )


def measure(name: str) -> dict[str, Measurement]:
    """Builds and folds the network in this process."""
    torch.set_num_threads(1)
    net = zoo.build_network(name)
    with torch.no_grad():
        return {spelling: measure_spelling(net, spelling) for spelling in zoo.ZOO[name].spellings}


def measure_in_a_process(name: str) -> Row:
    """Builds and folds the network in a process of its own."""
    architecture = zoo.ZOO[name]
    start = time.monotonic()
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--measure", name]
    try:
        # Threads would spend their time waiting for each other: the inputs are small.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        failure = "" if done.returncode == 0 else f"exit code {done.returncode}: {(done.stderr.strip() or '-').splitlines()[-1]}"
    except subprocess.TimeoutExpired:
        failure = f"more than {TIMEOUT} s"
    if failure:
        measurements = {spelling: Measurement(failure=failure) for spelling in architecture.spellings}
    else:
        content = json.loads(done.stdout.splitlines()[-1])
        measurements = {spelling: Measurement(**fields) for spelling, fields in content.items()}
    return Row(architecture, measurements, time.monotonic() - start)


# ---- the table

HEADINGS = ("network", "from", "TorchScript", "norms", "goal", "folded", *DIRECTIONS, "kept", "error", "freeze leaves", "s")
NUMBERS = {*HEADINGS} - {"network", "from", "TorchScript", "kept"}


def grouped(row: Row) -> Iterator[tuple[str, int, Measurement]]:
    """Each spelling with its goal and measurement, and both in one where they differ by rounding only."""
    values = list(row.measurements.values())
    goals = {spelling: row.architecture.goal(spelling) for spelling in row.measurements}
    alike = {str(dataclasses.replace(value, error=0.0)) for value in values}
    if len(values) == 2 and len(alike) == len(set(goals.values())) == 1:
        yield "both", goals["traced"], max(values, key=lambda value: math.inf if math.isnan(value.error) else value.error)
    else:
        yield from ((spelling, goals[spelling], measured) for spelling, measured in row.measurements.items())


def cells(row: Row) -> Iterator[tuple[str, ...]]:
    """The lines of a network, a cell for each heading."""
    architecture = row.architecture
    for position, (spelling, goal, measured) in enumerate(grouped(row)):
        first = position == 0
        name = (architecture.name, architecture.source) if first else ("", "")
        seconds = f"{row.seconds:.0f}" if first else ""
        if measured.failure:
            yield (*name, spelling, str(architecture.norms), str(goal), "", "", "", "", measured.failure, "", "", seconds)
            continue
        directions = (str(measured.directions.get(direction, "")) for direction in DIRECTIONS)
        kept = ", ".join(f"{count} {reason}" for reason, count in measured.kept.items())
        leaves = "fails" if measured.freeze_leaves is None else str(measured.freeze_leaves)
        yield (
            *(*name, spelling, str(measured.norms), str(goal), str(measured.folded), *directions),
            *(kept, f"{measured.error:.0e}", leaves, seconds),
        )


def summary(rows: Iterable[Row]) -> str:
    """One sentence a fact that holds for the whole table."""
    measured = [(row, measurement) for row in rows for measurement in row.measurements.values() if not measurement.failure]
    if not measured:
        return "Nothing was measured."
    networks = {row.architecture.name for row, _ in measured}
    complete = networks - {row.architecture.name for row, measurement in measured if measurement.folded < measurement.norms}
    norms = sum(measurement.norms for _, measurement in measured)
    folded = sum(measurement.folded for _, measurement in measured)
    frozen = [(measurement.norms, measurement.freeze_leaves) for _, measurement in measured if measurement.freeze_leaves is not None]
    errors = [measurement.error for _, measurement in measured]
    largest = math.nan if any(math.isnan(error) for error in errors) else max(errors)
    return (
        f"{len(networks)} networks, {len(measured)} TorchScript modules: {folded:,} of {norms:,} norms folded, "
        f"every norm of {len(complete)} networks. Largest error {largest:.0e}. "
        f"torch.jit.freeze leaves {sum(leaves for _, leaves in frozen):,} of {sum(count for count, _ in frozen):,}."
    )


def print_table(console: Console, rows: list[Row]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left", no_wrap=heading != "kept", overflow="fold")
    for row in rows:
        style = "red" if row.problems() else None
        for line in cells(row):
            table.add_row(*(Text(cell) for cell in line), style=style)
    console.print(table)
    console.print(summary(rows))


EXPLANATION = """\
Each network is built with random weights and 10 classes, its norms get statistics that fit what they see, gammas of both signs and some of
0, and layer scales between 0.3 and 1 in size. It is folded in double precision, scripted and traced where TorchScript can do both.

- **norms**: those that run in eval mode, and of these the ones that are **folded**, by the direction in which they went: backward into the
  layer before, forward into the layers behind, or sideways into a layer beside. **goal** is the number that has to be folded.
- **kept**: the others, counted by [reason](reasons.md).
- **error**: folded against eager, relative to the largest output, the larger one of two inputs.
- **freeze leaves**: the norms that `torch.jit.freeze` alone leaves in the graph.
"""


def markdown(rows: list[Row]) -> str:
    """The table as a page of the documentation."""
    shown = [heading for heading in HEADINGS if heading != "s"]
    rule = ("--:" if heading in NUMBERS else "---" for heading in shown)
    lines = [f"| {' | '.join(shown)} |", f"|{'|'.join(rule)}|"]
    for row in rows:
        for line in cells(row):
            texts = (text.replace("|", "\\|") for heading, text in zip(HEADINGS, line) if heading in shown)
            lines.append(f"| {' | '.join(texts)} |")
    note = (
        f"Generated by `scripts/zoo.sh` with torch {torch.__version__}, torchvision {torchvision.__version__} and timm {timm.__version__}. "
        "Do not edit by hand."
    )
    return "\n".join(["# What folds in which network", "", note, "", EXPLANATION, summary(rows), "", *lines, ""])


# ---- the command line


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="zoo_table.py",
        description="Folds the networks of the zoo, each in a process of its own, and prints what came of it.",
        epilog=f"Exit code 1 where a goal is missed or an error exceeds {LARGEST_ERROR:.0e}.",
    )
    parser.add_argument("--quick", action="store_true", help="only the networks that the tests run too")
    parser.add_argument("--model", nargs="+", metavar="NAME", choices=list(zoo.ZOO), help="only these networks")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the table as Markdown too")
    parser.add_argument("--list", action="store_true", help="print the names of the networks and end")
    parser.add_argument("--measure", metavar="NAME", choices=list(zoo.ZOO), help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(arguments: argparse.Namespace) -> list[str]:
    names = [name for name in zoo.ZOO if not arguments.model or name in arguments.model]
    return [name for name in names if not arguments.quick or zoo.ZOO[name].quick]


def line_of(row: Row) -> str:
    """The progress line of a network."""
    spellings = []
    for spelling, measured in row.measurements.items():
        outcome = measured.failure or f"{measured.folded} of {measured.norms}, error {measured.error:.0e}"
        spellings.append(f"{spelling} {outcome}")
    return f"{row.architecture.name}: {'; '.join(spellings)}  ({row.seconds:.0f} s)"


def measure_all(console: Console, names: list[str]) -> list[Row]:
    """Measures one network after the other, with a bar on a terminal and a line a network on standard error elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:
            progress.update(task, description=name)
            rows.append(measure_in_a_process(name))
            if not console.is_terminal:
                print(line_of(rows[-1]), file=sys.stderr, flush=True)
            progress.advance(task)
    return rows


def main() -> int:
    arguments = parse_arguments()
    if arguments.measure:
        content: dict[str, Any] = {spelling: dataclasses.asdict(value) for spelling, value in measure(arguments.measure).items()}
        print(json.dumps(content))
        return 0
    names = chosen(arguments)
    if arguments.list:
        print("\n".join(names))
        return 0
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    rows = measure_all(console, names)
    print_table(console, rows)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(rows))
    problems = [f"{row.architecture.name}, {problem}" for row in rows for problem in row.problems()]
    for problem in problems:
        print(f"zoo: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
