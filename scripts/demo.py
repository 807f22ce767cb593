"""Folds torchvision's VGG16-BN and ResNet50 and prints what that changes: demo.py --help for the options."""

from __future__ import annotations

import argparse
import copy
import sys
import warnings
from typing import NamedTuple

import measuring
import torch
import torchvision
from measuring import Settings
from rich import box
from rich.console import Console
from rich.table import Table

import bnfold

CLASSES = 10
IMAGE_SIZE = (3, 224, 224)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo.sh",
        description="Folds torchvision's VGG16-BN and ResNet50 and prints parameters, norms, errors and latency before and after.",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME",
        help="pretrained weights of torchvision, for example DEFAULT (downloads them); random ones otherwise",
    )
    parser.add_argument("--batch", type=int, default=1, help="images at a time when measuring latency (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=11, help="runs that a latency is the median of (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        Settings(batch=arguments.batch, runs=arguments.runs)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def vgg16_bn(weights: str | None) -> torch.nn.Module:
    model = torchvision.models.vgg16_bn(weights=weights)
    model.classifier[6] = torch.nn.Linear(model.classifier[6].in_features, CLASSES)
    return model


def resnet50(weights: str | None) -> torch.nn.Module:
    model = torchvision.models.resnet50(weights=weights)
    model.fc = torch.nn.Linear(model.fc.in_features, CLASSES)
    return model


def uniform_like(tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return torch.empty_like(tensor).uniform_(low, high)


def randomise_norms(model: torch.nn.Module, images: torch.Tensor) -> None:
    """Gives each norm parameters and statistics that make the fold matter, and keeps the signal alive.

    A fresh norm (mean 0, variance 1, weight 1, bias 0) would hide a wrong fold, and so would statistics that have nothing to do with
    what the norm sees. So each norm gets random multiples of the mean and variance that it sees on a few images, weights of both
    signs, some of them zero, and random biases.
    """

    def randomise(norm: torch.nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        # A channel that hardly varies on these images still needs a variance that is no smaller than the others by far.
        variance = variance.clamp_min(0.01 * variance.mean())
        norm.running_mean.copy_(mean * uniform_like(mean, 0.5, 1.5))
        norm.running_var.copy_(variance * uniform_like(mean, 0.5, 2.0))
        sign = torch.where(torch.rand_like(mean) < 0.3, -1.0, 1.0)
        sign[torch.rand_like(mean) < 0.02] = 0.0
        norm.weight.copy_(sign * uniform_like(mean, 0.25, 0.75))
        norm.bias.copy_(uniform_like(mean, -1.0, 1.0))

    # In the order in which they run, so that each norm sees what the ones before it give from now on.
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(randomise) for norm in norms]
    model(images)
    for hook in hooks:
        hook.remove()


def latency(model: torch.nn.Module, arguments: argparse.Namespace, device: str) -> str:
    settings = Settings(batch=arguments.batch, runs=arguments.runs, device=device)
    rows = measuring.latency(model, IMAGE_SIZE, settings, ["original", "bnfold.fold"])
    if failed := [row for row in rows if row.unavailable]:
        return failed[0].unavailable
    return " → ".join(f"{row.median_ms:.1f}" for row in rows) + " ms"


class Row(NamedTuple):
    model: str
    figures: dict[str, str]
    ok: bool


def demonstrate(name: str, model: torch.nn.Module, arguments: argparse.Namespace) -> Row:
    if arguments.weights is None:
        randomise_norms(model, torch.randn(4, *IMAGE_SIZE))
    before = torch.jit.script(model)
    result = bnfold.fold(before)
    after, report = result.module, result.report
    sizes = report.as_dict()

    images = torch.randn(2, *IMAGE_SIZE)
    single = bnfold.check(before, after, [(images,)])
    # In double precision what rounding does to a deep network is out of the way, and an inexact fold would stand out.
    before_double = torch.jit.script(copy.deepcopy(model).double())
    double = bnfold.check(before_double, bnfold.fold(before_double).module, [(images.double(),)])

    figures = {
        "norms folded": f"{len(report.folded)} of {len(report.folded) + len(report.kept)}",
        "parameters": f"{report.parameters_before:,} → {report.parameters_after:,}",
        "graph nodes": f"{sizes['nodes_before']:,} → {sizes['nodes_after']:,}",
        "error in float32": f"{single.largest_error:.1e}",
        "error in float64": f"{double.largest_error:.1e}",
        "CPU latency": latency(model, arguments, "cpu"),
    }
    if torch.cuda.is_available():
        figures["CUDA latency"] = latency(model, arguments, "cuda")
    return Row(name, figures, not report.kept and single.passed and double.passed)


def print_table(console: Console, rows: list[Row], arguments: argparse.Namespace) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for row in rows:
        table.add_column(row.model, no_wrap=True)
    for figure in rows[0].figures:
        table.add_row(figure, *(row.figures[figure] for row in rows))
    console.print(table)
    weights = f"torchvision's {arguments.weights} weights" if arguments.weights else "random weights and statistics"
    console.print(f"{CLASSES} classes, {weights}, float32, torch {torch.__version__}. Errors: relative to the largest output.")
    threads = torch.get_num_threads()
    console.print(
        f"Latency: median of {arguments.runs} runs in turn, {arguments.batch} × 3 × 224 × 224, {threads} CPU thread{'s' * (threads > 1)}."
    )
    if torch.cuda.is_available():
        tf32 = "on" if torch.backends.cudnn.allow_tf32 else "off"
        console.print(f"CUDA: {torch.cuda.get_device_name()}, cudnn.benchmark on, TF32 {tf32}, median of {arguments.runs} runs.")


def main() -> int:
    arguments = parse_arguments()
    warnings.filterwarnings("ignore", message=".*torch.jit.script.* is deprecated")
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120

    rows = []
    with torch.no_grad():
        for name, build in {"VGG16-BN": vgg16_bn, "ResNet50": resnet50}.items():
            with console.status(f"{name}: folding and measuring"):
                rows.append(demonstrate(name, build(arguments.weights).eval(), arguments))
    print_table(console, rows, arguments)

    wrong = [row.model for row in rows if not row.ok]
    if wrong:
        print(f"demo: a norm was kept or an error is too large in {' and '.join(wrong)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
