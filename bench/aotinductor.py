"""Measures what AOTInductor makes of networks as they are and folded, as a Markdown table.

    .venv/bin/python bench/aotinductor.py --markdown build/aotinductor.md

Each network is exported with a dynamic batch, and compiled for the CPU as it is and folded, in one process. Networks have random weights, and
norms with random statistics and gammas of both signs. Norms left are those in the graph that AOTInductor makes code of. The time to compile is
that of all processors, compilers included. The packages run a batch of 1 in turn; the latencies are medians, and their ratio is the median of the
ratios in one round, with its 95 % interval.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import measuring
import models
import torch
from measuring import Settings
from torch._inductor.utils import fresh_cache

import bnfold

NETWORKS = ("repvgg_a0", "mobileone_s0", "levit_128s", "resnetv2_50", "densenet121", "resnet50")
HEADINGS = (
    "network", "norms left", "folded", "compile, s", "folded", "ratio", "latency, ms", "folded", "ratio", "95 %", "largest difference",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A package of AOTInductor, and what it took."""

    path: Path
    norms_left: int
    seconds: float  #: of all processors


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A network as it is and folded."""

    network: str
    original: Compiled
    folded: Compiled
    original_ms: list[float]  #: of each round
    folded_ms: list[float]
    difference: float  #: the largest of the outputs, relative to the largest output


def compile_program(program: torch.export.ExportedProgram, path: Path, freezing: bool = False) -> Compiled:
    norms_left = 0

    def count(graph: torch.fx.Graph) -> None:
        nonlocal norms_left
        norms_left += norms_in(graph)

    began = _processor_seconds()
    # With gradients on, AOTInductor ignores the option: findings/aotinductor_ignores_freezing.sh.
    with torch._inductor.config.patch(post_grad_custom_post_pass=count, freezing=freezing), torch.no_grad():
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    return Compiled(path, norms_left, _processor_seconds() - began)


def norms_in(graph: torch.fx.Graph) -> int:
    """How many norms there are in a graph that AOTInductor makes code of."""
    return sum(map(_is_norm, graph.nodes))


def _is_norm(node: torch.fx.Node) -> bool:
    """Whether it takes off a mean that is constant, with which a norm begins that is neither folded nor merged into a convolution."""
    return node.target == torch.ops.aten.sub.Tensor and isinstance(node.args[1], torch.fx.Node) and _is_constant(node.args[1])


def _is_constant(node: torch.fx.Node) -> bool:
    return node.op == "get_attr" or (node.op == "call_function" and all(map(_is_constant, node.all_input_nodes)))


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def compare(
    network: str, model: torch.nn.Module, image: torch.Tensor, settings: Settings, folder: Path, freezing: bool = False
) -> Comparison:
    """Compiles a network as it is and folded, and runs both on an image. Raises bnfold.Error where it can't be folded."""
    program = models.exported(model, image)
    programs = {"original": program, "folded": bnfold.fold(program).program}
    compiled = {name: compile_program(one, folder / f"{network}_{name}.pt2", freezing) for name, one in programs.items()}
    packages = {name: torch._inductor.aoti_load_package(str(one.path)) for name, one in compiled.items()}
    runs = {name: functools.partial(package, image) for name, package in packages.items()}
    with torch.inference_mode():
        milliseconds = measuring.warmed_up_in_turn(runs, settings)
        before, after = (runs[name]() for name in ("original", "folded"))
    difference = ((after - before).abs().max() / before.abs().max()).item()
    return Comparison(network, compiled["original"], compiled["folded"], milliseconds["original"], milliseconds["folded"], difference)


def warm_up(folder: Path) -> None:
    """What the first program compiles beside itself, as the headers that all include, must not count as its own."""
    compile_program(models.exported(models.chain(1).eval(), torch.randn(1, 8, 8, 8)), folder / "warm_up.pt2")


def cells(comparison: Comparison) -> list[str]:
    original, folded = comparison.original, comparison.folded
    ratio, low, high = measuring.ratio_interval(comparison.folded_ms, comparison.original_ms)
    return [
        comparison.network,
        str(original.norms_left),
        str(folded.norms_left),
        f"{original.seconds:.0f}",
        f"{folded.seconds:.0f}",
        f"{folded.seconds / original.seconds:.2f}",
        *(f"{measuring.median_interval(runs)[0]:.1f}" for runs in (comparison.original_ms, comparison.folded_ms)),
        f"{ratio:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{comparison.difference:.0e}",
    ]


def measure(networks: list[str], size: int, settings: Settings, freezing: bool) -> Iterator[list[str]]:
    """The rows of the table. Nothing is taken from a cache that was there before."""
    with measuring.threads(settings.threads), fresh_cache(), tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder))
        for network in networks:
            torch.manual_seed(0)
            model, image = models.create(network, signed=True), torch.randn(1, 3, size, size)
            yield cells(compare(network, model, image, settings, Path(folder), freezing))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measuring.add_options(parser, NETWORKS)
    parser.add_argument("--freezing", action="store_true", help="compile with the option freezing, which makes constants of the weights")
    arguments = parser.parse_args()
    settings = Settings(runs=arguments.runs, threads=arguments.threads)
    rows = measure(arguments.networks, arguments.size, settings, arguments.freezing)
    measuring.print_table(rows, HEADINGS, arguments.markdown)


if __name__ == "__main__":
    main()
