"""Measures what bnfold gains in front of what runs a network in the end, as a Markdown table.

    scripts/consumers.sh --set-up
    .venv-consumers/bin/python bench/in_front.py --threads 1 --markdown build/in_front.md

Each runtime gets every network twice, as it is and folded for that runtime, as a program of torch.export or as traced TorchScript. Both run
an image in turn. A cell is the median of the folded one's time over the original's in the same round, with its 95 % interval.
Networks have random weights, and norms with random statistics and gammas of both signs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import measuring
import models
import torch
from aotinductor import compile_program
from edit_costs import in_ncnn
from measuring import Run, Settings, Subject
from torch._inductor.utils import fresh_cache
from torch.export import ExportedProgram

import bnfold

NETWORKS = (
    *("densenet121", "resnetv2_50", "repvgg_a0", "mobileone_s0"),
    *("levit_128s", "fastvit_t8", "resnet50", "mobilenet_v2"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a network is to run: its settings, and a folder for what is compiled."""

    image: torch.Tensor
    settings: Settings
    folder: Path


@dataclasses.dataclass(frozen=True)
class Runtime:
    """What runs a network, for which target it is folded, and in which form it gets it."""

    target: str
    prepare: Callable[[object, Place], Run]
    takes_programs: bool = True
    prepare_with_bnfold: Callable[[object, Place], Run] | None = None  #: where bnfold folds and does the same


def frozen(freeze: Callable, module: torch.jit.ScriptModule, place: Place) -> Run:
    return functools.partial(freeze(module), place.image)


def in_variant(name: str, network: ExportedProgram | torch.jit.ScriptModule, place: Place) -> Run:
    module = network.module() if isinstance(network, ExportedProgram) else network
    return measuring.prepared(Subject(module, place.image, place.settings), name)


def in_aotinductor(program: ExportedProgram, place: Place) -> Run:
    path = place.folder / "compiled.pt2"
    compile_program(program, path)
    return functools.partial(torch._inductor.aoti_load_package(str(path)), place.image)


def with_ncnn(module: torch.jit.ScriptModule, place: Place) -> Run:
    return in_ncnn(module, place.image, place.folder, torch.get_num_threads())


RUNTIMES = {
    "torch.jit.freeze": Runtime(
        "libtorch",
        functools.partial(frozen, torch.jit.freeze),
        takes_programs=False,
        prepare_with_bnfold=functools.partial(frozen, bnfold.freeze),
    ),
    "torch.compile, freezing": Runtime("libtorch", functools.partial(in_variant, "torch.compile, freezing")),
    "AOTInductor": Runtime("libtorch", in_aotinductor),
    "ONNX Runtime": Runtime("onnxruntime", functools.partial(in_variant, "ONNX Runtime")),
    "OpenVINO": Runtime("openvino", functools.partial(in_variant, "OpenVINO"), takes_programs=False),
    "ncnn": Runtime("ncnn", with_ncnn, takes_programs=False),
}


def runs_of(model: torch.nn.Module, runtime: Runtime, original: Place, folded: Place) -> dict[str, Run]:
    """The network as it is, and folded for the runtime."""
    image, target = original.image, runtime.target
    network = models.exported(model, image) if runtime.takes_programs else torch.jit.trace(model, image)
    runs = {"original": runtime.prepare(network, original)}
    if runtime.prepare_with_bnfold is not None:
        return {**runs, "folded": runtime.prepare_with_bnfold(network, folded)}
    if runtime.takes_programs:
        after = bnfold.fold(network, target=target).program
    else:
        after = bnfold.fold(network, example_inputs=image, target=target).module
    return {**runs, "folded": runtime.prepare(after, folded)}


def ratio(network: str, name: str, size: int, settings: Settings) -> str:
    """The cell of a network in a runtime. Says why where there is none."""
    torch.manual_seed(0)
    model, image = models.create(network, signed=True), torch.randn(1, 3, size, size)
    runtime = RUNTIMES[name]
    try:
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second, torch.no_grad():
            places = [Place(image, settings, Path(folder)) for folder in (first, second)]
            milliseconds = measuring.warmed_up_in_turn(runs_of(model, runtime, *places), settings)
    except Exception as error:  # each runtime raises its own; it is what is said of this network
        return measuring.sentence(error)
    median, low, high = measuring.ratio_interval(milliseconds["folded"], milliseconds["original"])
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def measure(networks: list[str], runtimes: list[str], size: int, settings: Settings) -> Iterator[list[str]]:
    """A row for each network. Nothing is taken from a cache that was there before."""
    with measuring.threads(settings.threads), fresh_cache():
        for network in networks:
            yield [network, *(ratio(network, name, size, settings) for name in runtimes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measuring.add_options(parser, NETWORKS)
    parser.add_argument("--runtime", nargs="+", metavar="NAME", choices=RUNTIMES, default=list(RUNTIMES), help=", ".join(RUNTIMES))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript's end is no news here
    settings = Settings(runs=arguments.runs, threads=arguments.threads)
    rows = measure(arguments.networks, arguments.runtime, arguments.size, settings)
    measuring.print_table(rows, ["network", *arguments.runtime], arguments.markdown)


if __name__ == "__main__":
    main()
