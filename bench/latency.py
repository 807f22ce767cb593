"""Measures networks before and after folding, beside other runtimes, and writes tables and plots.

    .venv/bin/python bench/latency.py resnet50 densenet121 --batch 1 8 --threads 1 --out build/latency

Networks of torchvision and timm get random weights, and norms with random statistics and gammas of both signs.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import difflib
import itertools
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
import models
import plots
import timm
import torch
import torchvision
from files import require_writable, staged
from measuring import VARIANTS, Settings
from plots import milliseconds
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import bnfold

DTYPES = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}
FILES = (".pt", ".torchscript")
IMAGE_SIZE = (3, 224, 224)
PIPED_WIDTH = 200


@dataclasses.dataclass(frozen=True)
class Network:
    """A network by the name under which it is shown; the file that it comes from, or None for an architecture."""

    name: str
    path: Path | None
    image_size: tuple[int, ...]

    def load(self) -> torch.nn.Module:
        """The network in eval mode, with the same weights at each call. Raises bnfold.LoadError for a file."""
        if self.path is not None:
            return bnfold.load(self.path)
        torch.manual_seed(0)
        return models.create(self.name, signed=True)


# ---- the command line


def image_size(text: str) -> tuple[int, ...]:
    """The sizes in "3,224,224", or in "3,16,112,112" for a clip."""
    sizes = text.split(",")
    if len(sizes) not in (3, 4) or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"wants channels, height and width as 3,224,224, or a clip as 3,16,112,112, not '{text}'")
    return tuple(int(size) for size in sizes)


def parser() -> plots.Parser:
    result = plots.Parser(prog="latency.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("models", nargs="+", metavar="MODEL", help="a name of torchvision or timm, or a .pt or .torchscript file")
    result.add_argument(
        "--input", metavar="C,H,W", type=image_size,
        help="size of an image, or C,T,H,W of a clip; 3,224,224 where MODEL is the name of a network for images",
    )  # fmt: skip
    result.add_argument("--batch", metavar="N", type=int, nargs="+", default=[1], help="images in a batch (1)")
    result.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=["float"])
    result.add_argument("--memory-format", nargs="+", choices=["contiguous", "channels_last"], default=["contiguous"])
    result.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    result.add_argument("--cuda-graphs", action="store_true", help="capture each run in a CUDA graph and time its replay")
    result.add_argument("--threads", metavar="N", type=int, help="threads of an operator on the CPU")
    result.add_argument("--runs", metavar="N", type=int, default=Settings.runs, help="timed runs of each variant (%(default)s)")
    result.add_argument("--variants", metavar="VARIANT", nargs="+", choices=VARIANTS, default=VARIANTS, help=", ".join(VARIANTS))
    result.add_argument("--out", metavar="DIR", type=Path, help="write latency.json, latency.md and the plots to DIR")
    return result


def settings_of(arguments: argparse.Namespace) -> list[Settings]:
    """Every combination of what was asked for. Raises ValueError for what can't be measured."""
    common = {name: getattr(arguments, name) for name in ("device", "runs", "threads", "cuda_graphs")}
    choices = itertools.product(arguments.memory_format, arguments.dtype, arguments.batch)
    combinations = (
        Settings(batch=batch, dtype=DTYPES[dtype], channels_last=layout == "channels_last", **common)
        for layout, dtype, batch in choices
    )
    return list(dict.fromkeys(combinations))


def network_of(text: str, size: tuple[int, ...] | None) -> Network:
    """What a MODEL on the command line names. Raises ValueError or bnfold.LoadError where there is no such network."""
    path = Path(text)
    if path.suffix in FILES:
        if size is None:
            raise ValueError(f"{text} is a file and needs the size of its images, as --input 3,224,224")
        network = Network(path.stem, path, size)
        measuring.require_evaluated(network.load(), text)
        return network
    of_clips = set(torchvision.models.list_models(module=torchvision.models.video))
    if text in of_clips and size is None:
        raise ValueError(f"{text} takes clips and needs their size, as --input 3,16,112,112")
    known = {*torchvision.models.list_models(module=torchvision.models), *of_clips, *timm.list_models()}
    if text not in known:
        near = difflib.get_close_matches(text, sorted(known), 1)
        hint = f"; did you mean {near[0]}?" if near else ", nor a .pt or .torchscript file"
        raise ValueError(f"'{text}' is no network of torchvision or timm{hint}")
    return Network(text, None, size or IMAGE_SIZE)


def networks_of(arguments: argparse.Namespace) -> list[Network]:
    networks = [network_of(text, arguments.input) for text in arguments.models]
    for name, count in collections.Counter(network.name for network in networks).items():
        if count > 1:
            raise ValueError(f"{count} models have the name {name}, so that their rows could not be told apart")
    return networks


# ---- measuring


def measure(networks: Sequence[Network], settings: Sequence[Settings], variants: Sequence[str]) -> dict[str, Any]:
    """Everything that goes into latency.json."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    environment = measuring.environment(settings[0])
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(networks) * (1 + len(settings)))

        def step(description: str) -> None:
            progress.update(task, description=description)
            if not console.is_terminal:
                console.print(description)

        contents, measurements = [], []
        for network in networks:
            step(f"{network.name}: contents")
            contents.append(contents_of(network, settings[0].device))
            progress.advance(task)
        for one, network in itertools.product(settings, networks):
            step(f"{network.name}: {plots.title(one.as_dict())}")
            measurements.append(measurement_of(network, one, variants))
            progress.advance(task)
    command = shlex.join([".venv/bin/python", "bench/latency.py", *sys.argv[1:]])
    return {"command": command, "environment": environment, "models": contents, "measurements": measurements}


def contents_of(network: Network, device: str) -> dict[str, Any]:
    """What is in a network before and after folding, and which norms went where."""
    model = network.load()
    rows = measuring.contents(model, network.image_size, device)
    return {
        "name": network.name,
        "input": list(network.image_size),
        **folds_of(model),
        "contents": [dataclasses.asdict(row) for row in rows],
    }


def folds_of(model: torch.nn.Module) -> dict[str, Any]:
    """How many norms were folded in each direction, and how many were kept for which reason; or why nothing was folded."""
    try:
        report = bnfold.fold(model).report
    except bnfold.Error as error:
        return {"folds": None, "kept": {}, "unavailable": str(error)}
    directions = collections.Counter(norm.direction for norm in report.folded)
    folds = {**{direction: directions[direction] for direction in plots.DIRECTIONS}, "kept": len(report.kept)}
    return {"folds": folds, "kept": dict(collections.Counter(norm.reason for norm in report.kept)), "unavailable": None}


def measurement_of(network: Network, settings: Settings, variants: Sequence[str]) -> dict[str, Any]:
    model = network.load()
    rows = measuring.latency(model, network.image_size, settings, variants)
    share = measuring.norm_share(model, network.image_size, settings) if any(row.median_ms for row in rows) else None
    runs = {row.variant: row.runs_ms for row in rows if row.median_ms}
    speed_up = {
        base: measuring.ratio_interval(runs[base], runs["bnfold.freeze"])
        for base in ("original", "torch.jit.freeze")
        if {base, "bnfold.freeze"} <= runs.keys()
    }
    latencies = [{name: value for name, value in vars(row).items() if name != "settings"} for row in rows]
    return {"model": network.name, "settings": settings.as_dict(), "norm_share": share, "speed_up": speed_up, "variants": latencies}


# ---- tables


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table as text, for the terminal and for Markdown. A row that begins with an empty cell belongs to the one above."""

    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    texts: tuple[str, ...]  #: headings of the columns that hold no numbers

    def print(self, console: Console, title: str) -> None:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold")
        for heading in self.headings:
            table.add_column(heading, justify="left" if heading in self.texts else "right", no_wrap=heading != self.headings[-1])
        for row, following in itertools.zip_longest(self.rows, self.rows[1:]):
            table.add_row(*(Text(cell) for cell in row), end_section=following is not None and following[0] != "")
        console.print(table)

    def markdown(self) -> str:
        rule = ("---" if heading in self.texts else "--:" for heading in self.headings)
        # Spaces that don't break keep an interval on one line.
        cells = ([cell.replace("|", "\\|").replace(" – ", "\u00a0–\u00a0") for cell in row] for row in self.rows)
        lines = [self.headings, *cells]
        first, *rest = [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([first, f"|{'|'.join(rule)}|", *rest])


FIRST_RUNS = "first runs, ms"


def latency_sheet(measurements: Sequence[dict[str, Any]]) -> Sheet:
    """The variants of every network in one setting."""
    headings = ("network", "variant", "median, ms", "95 %", "of torch.jit.freeze", "95 %", FIRST_RUNS)
    rows = []
    for measurement in measurements:
        names = itertools.chain([measurement["model"]], itertools.repeat(""))
        rows += [(next(names), row["variant"], *latency_cells(row)) for row in measurement["variants"]]
    return Sheet(headings, rows, ("network", "variant", FIRST_RUNS))


def latency_cells(row: dict[str, Any]) -> tuple[str, ...]:
    if row["unavailable"]:
        return ("", "", "", "", f"not measured: {row['unavailable']}")
    ratios = ("", "")
    if row["ratio"] is not None:
        ratios = (f"{row['ratio']:.2f}", f"{row['ratio_low']:.2f} – {row['ratio_high']:.2f}")
    interval = f"{milliseconds(row['low_ms'])} – {milliseconds(row['high_ms'])}"
    return (milliseconds(row["median_ms"]), interval, *ratios, "  ".join(milliseconds(value) for value in row["warm_up_ms"]))


def contents_sheet(records: Sequence[dict[str, Any]], device: str) -> Sheet:
    """What is in the TorchScript variants of every network."""
    headings = ("network", "variant", "parameters", "MB", "graph nodes", "operators run", "norms run", "kernels launched")
    rows = []
    for record in records:
        names = itertools.chain([record["name"]], itertools.repeat(""))
        rows += [(next(names), row["variant"], *contents_cells(row, device)) for row in record["contents"]]
    return Sheet(headings, rows, ("network", "variant", headings[-1]))


def contents_cells(row: dict[str, Any], device: str) -> tuple[str, ...]:
    if row["unavailable"]:
        return ("", "", "", "", "", f"not counted: {row['unavailable']}")
    counts = (f"{row[name]:,}" for name in ("graph_nodes", "operators_run", "batch_norms_run"))
    kernels = row["kernels_launched"]
    without = measuring.NO_CUDA if device == "cuda" else "on CUDA only"
    return (f"{row['parameters']:,}", f"{row['tensor_bytes'] / 1e6:.1f}", *counts, without if kernels is None else f"{kernels:,}")


def folds_sheet(records: Sequence[dict[str, Any]]) -> Sheet:
    """Where the norms of every network went."""
    headings = ("network", "norms", *plots.DIRECTIONS, "kept", "reasons")
    rows = []
    for record in records:
        if record["folds"] is None:
            rows.append((record["name"], *[""] * (len(headings) - 2), f"not folded: {record['unavailable']}"))
            continue
        counts = [sum(record["folds"].values()), *record["folds"].values()]
        reasons = ", ".join(f"{count} {reason}" for reason, count in record["kept"].items())
        rows.append((record["name"], *(f"{count:,}" for count in counts), reasons))
    return Sheet(headings, rows, ("network", "reasons"))


def print_tables(console: Console, results: dict[str, Any]) -> None:
    for settings, measurements in plots.by_settings(results):
        latency_sheet(measurements).print(console, f"Latency: {plots.title(settings)}")
    device = results["measurements"][0]["settings"]["device"]
    contents_sheet(results["models"], device).print(console, "Contents, and what runs for one image in float")
    folds_sheet(results["models"]).print(console, "Where the norms went")


# ---- the report

EXPLANATION = """\
All variants run in one process on the same random images, once in each round, in random order. An untimed run goes before each
timed one. The **median** of the runs has its 95 % confidence interval beside it, from order statistics, which holds for any
distribution. **Of torch.jit.freeze** is the median of the ratios to `torch.jit.freeze` in the same round. The **first runs** are
the warm-up, in which TorchScript optimizes and torch.compile compiles; they are not in the median. Every variant with figures
returned what the original does, within the tolerance of its dtype.

- **original** is the scripted network as it is, **bnfold.fold** the same folded, and **bnfold.freeze** folded and then frozen.
- **bnfold.optimize_for_inference** is folded, frozen and fused; **torch.compile, freezing** has inductor's option of that name, and
  **max-autotune** that and its option of that name.
- **torch.compile** and **ONNX Runtime** run with their default options, **OpenVINO** with its options for latency; each with the
  same threads and dtype as the others.
- Networks that come from no file have random weights, and norms with random statistics and gammas of both signs.
"""

CONTENTS_EXPLANATION = """\
Counted for one image in float on the CPU; only the kernels are those of a GPU. A frozen network has constants in its graph in place
of parameters and buffers, and they are counted as **parameters**. **MB** is parameters and buffers. **Graph nodes** are those of
the inlined forward, without constants and attribute reads. **Operators run** are the ATen calls that the profiler sees, without
those that they make themselves, and **norms run** the batch norms among them.
"""


def markdown(results: dict[str, Any], pictures: Sequence[Path]) -> str:
    """The report as a page, beside the plots."""
    facts = (f"- {name}: {value}" for name, value in results["environment"].items() if value is not None)
    sections = ["# Networks before and after folding", f"```console\n$ {results['command']}\n```", "\n".join(facts)]
    sections.append(EXPLANATION.rstrip())
    names = {path.name for path in pictures}

    def picture(kind: str, description: str, settings: dict[str, Any] | None = None) -> None:
        name = f"{plots.stem(kind, settings)}.svg"
        if name in names:
            sections.append(f"![{description}]({name})")

    for settings, measurements in plots.by_settings(results):
        sections += [f"## Latency: {plots.title(settings)}", latency_sheet(measurements).markdown()]
        picture("latency", "The latency of each variant", settings)
        picture("speed_up", "The speed-up against the share of the time that norms take", settings)
    device = results["measurements"][0]["settings"]["device"]
    sections += ["## Contents", CONTENTS_EXPLANATION.rstrip(), contents_sheet(results["models"], device).markdown()]
    sections += ["## Where the norms went", folds_sheet(results["models"]).markdown()]
    picture("folds", "The norms by the direction in which they were folded")
    return "\n\n".join(sections) + "\n"


def write(results: dict[str, Any], directory: Path) -> None:
    """Writes everything beside what is in ``directory``, and moves it there once all of it is written. Raises OSError."""
    with staged(directory) as staging:
        (staging / "latency.json").write_text(json.dumps(results, indent=1) + "\n")
        pictures = plots.draw(results, staging)
        (staging / "latency.md").write_text(markdown(results, pictures))


def main() -> int:
    command = parser()
    arguments = command.parse_args()
    try:
        settings, networks = settings_of(arguments), networks_of(arguments)
        if arguments.out is not None:
            require_writable(arguments.out)
    except (ValueError, bnfold.LoadError) as error:
        command.error(str(error))
    except OSError as error:
        command.error(f"can't write to {arguments.out}: {error.strerror}")
    results = measure(networks, settings, arguments.variants)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    print_tables(console, results)
    if arguments.out is None:
        return 0
    try:
        write(results, arguments.out)
    except OSError as error:
        print(f"latency: can't write to {arguments.out}: {error.strerror}", file=sys.stderr)
        return 1
    console.print(f"wrote {arguments.out / 'latency.md'}, latency.json and the plots")
    return 0


if __name__ == "__main__":
    sys.exit(main())
