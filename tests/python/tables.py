"""What zoo_table.py and field_table.py share: they fold networks, one on each core, and show what came of it, one row a network.

Each network runs in a process of its own: what one needs of memory is gone before the next, and a crash costs one row.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
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
# The programs that torch.export makes of a network: for one batch size, for all of BATCHES, and the latter in core ATen.
EXPORTED = ("static", "dynamic", "decomposed")
BATCHES = (1, 2, 5)
TIMEOUT = 1800  # seconds for one network
PIPED_WIDTH = 180


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What folding a network did, scripted, traced or exported."""

    norms: int = 0  #: that run in eval mode
    folded: int = 0
    directions: dict[str, int] = dataclasses.field(default_factory=dict)
    kept: dict[str, int] = dataclasses.field(default_factory=dict)  #: by reason
    error: float = math.nan  #: the largest of those on the inputs, in double, against eager
    freeze_leaves: int | None = None  #: norms that torch.jit.freeze leaves; None where it fails
    failure: str = ""  #: why there is nothing of the above
    spelled: bool = True  #: whether TorchScript or torch.export made something of it that runs and gives what eager gives


@dataclasses.dataclass(frozen=True)
class Row:
    """A network with its measurements."""

    name: str
    source: str
    measurements: dict[str, Measurement]  #: by spelling
    seconds: float
    goal: int | None = None  #: how many norms are to be folded, where that is laid down
    exported: dict[str, Measurement] = dataclasses.field(default_factory=dict)  #: by EXPORTED

    def problems(self) -> list[str]:
        """What is not as it should be, for the exit code."""
        found = _problems(self.measurements, self.goal)
        # What torch.export does not take is a cell of the table; what it takes is to fold as in TorchScript.
        exported = {kind: measured for kind, measured in self.exported.items() if measured.spelled}
        return found + _problems(exported, max((measured.folded for measured in self.measurements.values()), default=None))


def _problems(measurements: dict[str, Measurement], goal: int | None) -> list[str]:
    found = []
    for spelling, measured in measurements.items():
        if measured.failure:
            found.append(f"{spelling}: {measured.failure}")
            continue
        if not measured.error <= LARGEST_ERROR:
            found.append(f"{spelling}: an error of {measured.error:.1e}")
        if goal is not None and measured.folded < goal:
            found.append(f"{spelling}: {measured.folded} folded instead of {goal}")
    return found


# ---- the measurement


def norms_left_by_freeze(module: torch.jit.ScriptModule, frozen_norms: bool) -> int | None:
    """How many norms torch.jit.freeze leaves in the graph of forward, None where it fails."""
    try:
        frozen = torch.jit.freeze(module)
    except RuntimeError:
        return None
    # The nodes found are gone with the graph that they are in. The frozen norms of torchvision are the only products of their networks.
    graph = frozen.inlined_graph
    return len(graph.findAllNodes("aten::mul" if frozen_norms else "aten::batch_norm"))


def sentence(error: Exception) -> str:
    """The kind of the error and what it says: of an error inside of TorchScript, which tells the way to it first, the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    return f"{type(error).__name__}: {lines[-1 if 'TorchScript interpreter' in lines[0] else 0]}"


def measure_spelling(net: zoo.Network, spelling: zoo.Spelling, frozen_norms: bool) -> Measurement:
    """Folds the network, scripted or traced."""
    try:
        module = zoo.to_torchscript(net.model, net.inputs, spelling)
        own_error = relative_error(net.output, module(*net.inputs))
    except Exception as error:  # TorchScript raises all sorts; each is the outcome of this one network
        return Measurement(failure=sentence(error), spelled=False)
    if not own_error <= LARGEST_ERROR:
        return Measurement(failure=f"TorchScript makes another network of it, with an error of {own_error:.0e}", spelled=False)
    try:
        result = bnfold.fold(module)
        errors = [
            relative_error(net.output, result.module(*net.inputs)),
            relative_error(net.second_output, result.module(*net.second_inputs)),
        ]
    except Exception as error:  # the same
        return Measurement(norms=len(net.norms), failure=sentence(error))
    return dataclasses.replace(_measurement(net, result.report, errors), freeze_leaves=norms_left_by_freeze(module, frozen_norms))


def _measurement(net: zoo.Network, report: bnfold.Report, errors: list[float]) -> Measurement:
    # A norm that is called in both branches of a condition is in the report twice.
    kept = {norm.name: norm.reason for norm in report.kept}
    directions = {norm.name: norm.direction for norm in report.folded if norm.name not in kept}
    return Measurement(
        norms=len(net.norms),
        folded=len(directions),
        directions=dict(collections.Counter(directions.values())),
        kept=dict(collections.Counter(kept.values()).most_common()),
        error=math.nan if any(math.isnan(error) for error in errors) else max(errors),
    )


def measure_exports(net: zoo.Network) -> dict[str, Measurement]:
    """Folds what torch.export makes of the network. Where it makes no program for each batch, the one for a single batch is decomposed."""
    static, dynamic = (functools.cache(functools.partial(zoo.to_program, net, dynamic)) for dynamic in (False, True))
    runs = [(net.inputs, net.output)]
    measurements = {"static": measure_export(net, static, runs)}
    runs_of_batches = [(inputs, net.model(*inputs)) for inputs in map(net.inputs_of_batch, BATCHES)]
    measurements["dynamic"] = measure_export(net, dynamic, runs_of_batches)
    if measurements["dynamic"].spelled:
        measurements["decomposed"] = measure_export(net, lambda: dynamic().run_decompositions(), runs_of_batches)
    else:
        measurements["decomposed"] = measure_export(net, lambda: static().run_decompositions(), runs)
    return measurements


def measure_export(net: zoo.Network, export: Callable[[], torch.export.ExportedProgram], runs: list[tuple[Any, Any]]) -> Measurement:
    """Folds the program and compares it, as it is, saved and loaded, and unflattened, on each of the inputs with their outputs."""
    try:
        program = export()
        own_error = relative_error(net.output, program.module()(*net.inputs))
    except Exception as error:  # torch.export raises all sorts too
        return Measurement(failure=sentence(error), spelled=False)
    if not own_error <= LARGEST_ERROR:
        return Measurement(failure=f"torch.export makes another network of it, with an error of {own_error:.0e}", spelled=False)
    try:
        result = bnfold.fold(program)
        modules = [result.program.module(), zoo.saved_and_loaded(result.program).module(), torch.export.unflatten(result.program)]
        errors = [relative_error(output, module(*inputs)) for module in modules for inputs, output in runs]
    except Exception as error:  # the same
        return Measurement(norms=len(net.norms), failure=sentence(error))
    return _measurement(net, result.report, errors)


def print_measurements(net: zoo.Network, spellings: Iterable[zoo.Spelling], frozen_norms: bool = False, exports: bool = False) -> None:
    """Folds the network in this process, for ``measure_in_a_process`` of another one to read."""
    with torch.no_grad():
        measurements = {str(spelling): measure_spelling(net, spelling, frozen_norms) for spelling in spellings}
        if exports:
            measurements |= measure_exports(net)
    print(json.dumps({kind: dataclasses.asdict(measured) for kind, measured in measurements.items()}))


def measure_in_a_process(script: str, name: str, spellings: Iterable[str]) -> tuple[dict[str, Measurement], float]:
    """What ``script --measure name`` prints, and the seconds it took."""
    start = time.monotonic()
    command = [sys.executable, "-W", "ignore", str(Path(script).resolve()), "--measure", name]
    try:
        # Threads would spend their time waiting for each other: the inputs are small.
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        failure = "" if done.returncode == 0 else f"exit code {done.returncode}: {(done.stderr.strip() or '-').splitlines()[-1]}"
    except subprocess.TimeoutExpired:
        failure = f"more than {TIMEOUT} s"
    if failure:
        measurements = {spelling: Measurement(failure=failure) for spelling in spellings}
    else:
        content = json.loads(done.stdout.splitlines()[-1])
        measurements = {spelling: Measurement(**fields) for spelling, fields in content.items()}
    return measurements, time.monotonic() - start


def line_of(row: Row) -> str:
    """The progress line of a network."""
    spellings = []
    for spelling, measured in {**row.measurements, **row.exported}.items():
        outcome = measured.failure or f"{measured.folded} of {measured.norms}, error {measured.error:.0e}"
        spellings.append(f"{spelling} {outcome}")
    return f"{row.name}: {'; '.join(spellings)}  ({row.seconds:.0f} s)"


def console_for_tables() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def measure_all(console: Console, names: Sequence[str], measure: Callable[[str], Row]) -> list[Row]:
    """Measures a network on each core, with a bar on a terminal and a line a network on standard error elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    cores = len(os.sched_getaffinity(0))
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with ThreadPoolExecutor(cores) as pool, bar as progress:
        task = progress.add_task("", total=len(names))
        for row in pool.map(measure, names):
            rows.append(row)
            if not console.is_terminal:
                print(line_of(row), file=sys.stderr, flush=True)
            progress.update(task, description=row.name, advance=1)
    return rows


# ---- the table

TEXTS = {"network", "from", "TorchScript", "kept"}  # the other columns are numbers


def grouped(row: Row) -> Iterator[tuple[str, Measurement]]:
    """Each spelling with its measurement, and both in one where they differ by rounding only."""
    values = list(row.measurements.values())
    alike = {str(dataclasses.replace(value, error=0.0)) for value in values}
    if len(values) == 2 and len(alike) == 1:
        yield "both", max(values, key=lambda value: math.inf if math.isnan(value.error) else value.error)
    else:
        yield from row.measurements.items()


def exported_cell(row: Row) -> str:
    """How many norms of the programs are folded: one number where it is that of each."""
    outcomes = {kind: measured.failure or str(measured.folded) for kind, measured in row.exported.items()}
    if len(set(outcomes.values())) == 1:
        return next(iter(outcomes.values()))
    return ", ".join(f"{kind} {outcome}" for kind, outcome in outcomes.items())


def cells(row: Row) -> Iterator[dict[str, str]]:
    """The lines of a network, a cell for each heading."""
    for position, (spelling, measured) in enumerate(grouped(row)):
        line = {"TorchScript": spelling, "norms": str(measured.norms)}
        if position == 0:
            line |= {"network": row.name, "from": row.source, "s": f"{row.seconds:.0f}"}
            line["exported"] = exported_cell(row)
        if row.goal is not None:
            line["goal"] = str(row.goal)
        if measured.failure:
            yield {**line, "kept": measured.failure}
            continue
        yield {
            **line,
            "folded": str(measured.folded),
            **{direction: str(measured.directions.get(direction, "")) for direction in DIRECTIONS},
            "kept": ", ".join(f"{count} {reason}" for reason, count in measured.kept.items()),
            "error": f"{measured.error:.0e}",
            "freeze leaves": "fails" if measured.freeze_leaves is None else str(measured.freeze_leaves),
        }


def summary(rows: Iterable[Row]) -> str:
    """One sentence a fact that holds for the whole table."""
    rows = list(rows)
    outcomes = [(row, measurement) for row in rows for measurement in row.measurements.values()]
    measured = [(row, measurement) for row, measurement in outcomes if not measurement.failure]
    failures = len(outcomes) - len(measured)
    if not measured:
        return "Nothing was measured."
    networks = {(row.source, row.name) for row, _ in measured}
    complete = networks - {(row.source, row.name) for row, measurement in measured if measurement.folded < measurement.norms}
    norms = sum(measurement.norms for _, measurement in measured)
    folded = sum(measurement.folded for _, measurement in measured)
    frozen = [(measurement.norms, measurement.freeze_leaves) for _, measurement in measured if measurement.freeze_leaves is not None]
    errors = [measurement.error for _, measurement in measured]
    largest = math.nan if any(math.isnan(error) for error in errors) else max(errors)
    return (
        f"{len(networks)} networks, {len(measured)} TorchScript modules: {folded:,} of {norms:,} norms folded, "
        f"every norm of {len(complete)} networks. Largest error {largest:.0e}. "
        f"torch.jit.freeze leaves {sum(leaves for _, leaves in frozen):,} of {sum(count for count, _ in frozen):,}."
        + (f" {failures} more failed." if failures else "")
        + summary_of_exports(rows)
    )


def summary_of_exports(rows: Iterable[Row]) -> str:
    """The same of the programs of torch.export, where there are any."""
    outcomes = [measurement for row in rows for measurement in row.exported.values()]
    measured = [measurement for measurement in outcomes if not measurement.failure]
    if not measured:
        return ""
    norms, folded = (sum(getattr(measurement, field) for measurement in measured) for field in ("norms", "folded"))
    failures = len(outcomes) - len(measured)
    largest = max((measurement.error for measurement in measured), key=lambda error: math.inf if math.isnan(error) else error)
    return (
        f" {len(measured)} programs of torch.export: {folded:,} of {norms:,} norms folded. Largest error {largest:.0e}."
        + (f" {failures} more failed." if failures else "")
    )


def print_table(console: Console, headings: Sequence[str], rows: list[Row]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in TEXTS else "right", no_wrap=heading not in ("kept", "exported"), overflow="fold")
    for row in rows:
        style = "red" if row.problems() else None
        for line in cells(row):
            table.add_row(*(Text(line.get(heading, "")) for heading in headings), style=style)
    console.print(table)
    console.print(summary(rows))


def markdown_table(headings: Sequence[str], rows: list[Row]) -> str:
    """The table in Markdown, without the seconds, which are others each time."""
    shown = [heading for heading in headings if heading != "s"]
    rule = ("---" if heading in TEXTS else "--:" for heading in shown)
    lines = [f"| {' | '.join(shown)} |", f"|{'|'.join(rule)}|"]
    for row in rows:
        for line in cells(row):
            texts = (line.get(heading, "").replace("|", "\\|") for heading in shown)
            lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)


def exit_code(program: str, rows: Iterable[Row]) -> int:
    """Says on standard error what is not as it should be: 1 where there is something."""
    problems = [f"{row.name}, {problem}" for row in rows for problem in row.problems()]
    for problem in problems:
        print(f"{program}: {problem}", file=sys.stderr)
    return 1 if problems else 0
