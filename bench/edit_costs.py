"""Measures what a norm costs in each runtime, and what a fold makes of it, as Markdown tables.

    scripts/consumers.sh --set-up
    .venv-consumers/bin/python bench/edit_costs.py

The norm stands where no runtime folds it: behind a sum that others read too, as in a pre-activation network, or behind a concatenation,
as in a DenseNet. A network has several such blocks, and its variants differ in the steps before the convolution alone. A step costs what the
variant takes longer than the one without it, and a norm alone costs 1. What a fold into a bound saves is "norm, ReLU" less the bound.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import measuring
import torch
from measuring import Run
from torch import nn

BLOCKS = 6
WIDTH = 16  # channels between the convolutions of a block, and that a dense block adds; few, so that the steps are much of the time

# ---- the networks


class Norm(nn.BatchNorm2d):
    """One with random statistics and gammas of both signs."""

    def __init__(self, channels: int):
        super().__init__(channels)
        nn.init.normal_(self.weight)
        nn.init.normal_(self.bias)
        self.running_mean.normal_()
        self.running_var.uniform_(0.5, 2)


class Step(nn.Module):
    """A step of which every channel has a constant of its own."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("low", torch.randn(channels, 1, 1) - 1)
        self.register_buffer("high", torch.randn(channels, 1, 1) + 1)


class BoundBelow(Step):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(x, self.low)


class Bounds(Step):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.minimum(torch.maximum(x, self.low), self.high)


class BoundsInPlace(Step):
    """As bnfold.freeze makes them, which runs in LibTorch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(x, self.low).clamp_max_(self.high)


class AddedConstant(Step):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.low


@dataclasses.dataclass(frozen=True)
class Variant:
    """The steps before each convolution, for its number of channels, and whether the convolution has a bias."""

    steps: Callable[[int], Sequence[nn.Module]]
    bias: bool = False


NOTHING, NORM = "nothing", "norm"
VARIANTS = {
    NOTHING: Variant(lambda _: []),
    NORM: Variant(lambda channels: [Norm(channels)]),
    "ReLU": Variant(lambda _: [nn.ReLU()]),
    "norm, ReLU": Variant(lambda channels: [Norm(channels), nn.ReLU(inplace=True)]),
    "bound on one side": Variant(lambda channels: [BoundBelow(channels)]),
    "bounds on both sides": Variant(lambda channels: [Bounds(channels)]),
    "constant": Variant(lambda channels: [AddedConstant(channels)]),
    "constant, ReLU": Variant(lambda channels: [AddedConstant(channels), nn.ReLU(inplace=True)]),
    "bias": Variant(lambda _: [], bias=True),
}
STEPS = [name for name in VARIANTS if name not in (NOTHING, NORM)]


class Residual(nn.Module):
    """Blocks that add to the value that they read."""

    def __init__(self, channels: int, variant: Variant):
        super().__init__()
        self.first = nn.Conv2d(WIDTH, channels, 1, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *variant.steps(channels),
                nn.Conv2d(channels, WIDTH, 1, bias=variant.bias),
                nn.Conv2d(WIDTH, channels, 1, bias=variant.bias),
            )
            for _ in range(BLOCKS)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return x


class Dense(nn.Module):
    """Blocks that join what they compute to all that was there."""

    def __init__(self, channels: int, variant: Variant):
        super().__init__()
        self.first = nn.Conv2d(WIDTH, channels, 1, bias=False)
        widths = [channels + WIDTH * block for block in range(BLOCKS)]
        self.blocks = nn.ModuleList(
            nn.Sequential(*variant.steps(width), nn.Conv2d(width, WIDTH, 1, bias=variant.bias)) for width in widths
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = torch.cat([x, block(x)], 1)
        return x


NETWORKS = {"sum": Residual, "concatenation": Dense}
SIZES = ((64, 56), (128, 28), (256, 28), (512, 14), (1024, 14))  # channels, and pixels of a side


# ---- the runtimes


def in_variant(variant: str, model: nn.Module, image: torch.Tensor, folder: Path, threads: int) -> Run:
    return measuring.prepared(measuring.Subject(model, image, measuring.Settings(threads=threads)), variant)


def in_ncnn(model: nn.Module, image: torch.Tensor, folder: Path, threads: int) -> Run:
    import ncnn
    import pnnx

    pnnx.export(model, str(folder / "model.pt"), (image,), fp16=False)
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.load_param(str(folder / "model.ncnn.param"))
    net.load_model(str(folder / "model.ncnn.bin"))
    value = ncnn.Mat(image[0].numpy())

    def run() -> object:
        extractor = net.create_extractor()
        extractor.input("in0", value)
        return extractor.extract("out0")

    return run


RUNTIMES = {
    "libtorch": ("torch", functools.partial(in_variant, "torch.jit.freeze")),
    "onnxruntime": ("onnxruntime", functools.partial(in_variant, "ONNX Runtime")),
    "openvino": ("openvino", functools.partial(in_variant, "OpenVINO")),
    "ncnn": ("ncnn", in_ncnn),
}


# ---- measuring


@dataclasses.dataclass(frozen=True)
class Costs:
    """What one block takes in microseconds without any step, and what each adds to it."""

    network: str
    channels: int
    size: int
    threads: int
    base: float
    added: dict[str, float]

    def ratios(self) -> dict[str, float]:
        """The cost of each step in units of the norm's."""
        return {name: self.added[name] / self.added[NORM] for name in STEPS}


def network_of(network: str, channels: int, variant: str, in_place: bool) -> nn.Module:
    torch.manual_seed(0)
    chosen = VARIANTS[variant]
    if in_place and variant == "bounds on both sides":
        chosen = Variant(lambda width: [BoundsInPlace(width)])
    return NETWORKS[network](channels, chosen).eval()


def seconds_of(run: Run) -> float:
    """Of one run, behind one that is not timed: it finds the caches as in a program that runs nothing else."""
    run()
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(runtime: str, network: str, channels: int, size: int, threads: int, rounds: int) -> Costs:
    """Times all variants in turn. What else runs on the machine only adds to a time, so the shortest of each variant counts."""
    image = torch.randn(1, WIDTH, size, size, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        runs = {}
        for variant in VARIANTS:
            place = Path(folder, variant.replace(" ", "_"))
            place.mkdir()
            model = network_of(network, channels, variant, in_place=runtime == "libtorch")
            runs[variant] = RUNTIMES[runtime][1](model, image, place, threads)
        for run, _ in itertools.product(runs.values(), range(3)):
            run()
        seconds = [{variant: seconds_of(run) for variant, run in runs.items()} for _ in range(rounds)]
    shortest = {variant: min(one[variant] for one in seconds) for variant in VARIANTS}
    base = shortest.pop(NOTHING)
    added = {name: value - base for name, value in shortest.items()}
    to_block = 1e6 / BLOCKS
    return Costs(network, channels, size, threads, base * to_block, {name: value * to_block for name, value in added.items()})


# ---- the tables


def cells(costs: Costs) -> list[str]:
    setting = [costs.network, str(costs.channels), f"{costs.size} x {costs.size}", str(costs.threads)]
    return [*setting, f"{costs.base:.0f}", f"{costs.added[NORM]:.0f}", *(f"{value:.2f}" for value in costs.ratios().values())]


def summary(costs: dict[str, list[Costs]]) -> Iterator[list[str]]:
    """The median of the ratios over all settings, with the smallest and the largest."""
    for runtime, measured in costs.items():
        row = [f"{runtime} {measuring.version(RUNTIMES[runtime][0])}", "1"]
        for step in STEPS:
            ratios = [one.ratios()[step] for one in measured]
            row.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", nargs="+", choices=list(RUNTIMES), default=list(RUNTIMES))
    parser.add_argument("--threads", metavar="N", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", metavar="N", type=int, default=60)
    arguments = parser.parse_args()
    headings = ["values", "channels", "pixels", "threads", "a block, µs", "a norm, µs", *STEPS]
    costs = {}
    for runtime in arguments.runtime:
        print(f"\n{runtime} {measuring.version(RUNTIMES[runtime][0])}\n", flush=True)
        settings = itertools.product(NETWORKS, SIZES, arguments.threads)
        costs[runtime] = []
        for network, (channels, size), threads in settings:
            costs[runtime].append(measure(runtime, network, channels, size, threads, arguments.rounds))
            print(cells(costs[runtime][-1]), flush=True)
        print("\n".join(measuring.table(map(cells, costs[runtime]), headings, texts=1)), flush=True)
    print("\n" + "\n".join(measuring.table(summary(costs), ["runtime", "norm", *STEPS], texts=1)))


if __name__ == "__main__":
    main()
