"""Trains networks on ImageNette, folds them, and reports what that changes: imagenette.py --help for the options."""

from __future__ import annotations

import argparse
import dataclasses
import io
import math
import shlex
import sys
import warnings
from pathlib import Path
from typing import Any

import measuring
import torch
from files import Error, make_folder
from nette import data, networks, report, tables, training, validation
from nette.progress import Log
from plots import Parser
from rich import box
from rich.console import Console
from rich.table import Table

import bnfold

FLOAT64_IMAGES_ON_CPU = 256
PIPED_WIDTH = 120


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="imagenette.py",
        description="Trains torchvision's networks on ImageNette, folds them, validates both, measures their latency, "
        "and writes a report. The same command goes on where it was stopped.",
        epilog="Exit code 2 for wrong usage; 1 where a run fails, or the folded network's logits are off by more than rounding.",
    )
    parser.add_argument(
        "--model", nargs="+", metavar="NAME", default=["resnet50", "vgg16_bn"], help="networks (default: resnet50 vgg16_bn)"
    )
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument(
        "--data", metavar="DIR", type=Path, help="the folder that contains imagenette2, imagenette2-320 or imagenette2-160"
    )
    images.add_argument(
        "--synthetic",
        metavar="N",
        type=_positive_int,
        help="in place of ImageNette, draw N training images for each of ten classes",
    )
    parser.add_argument("--download", action="store_true", help="download ImageNette into the folder of --data unless it is there")
    parser.add_argument("--epochs", type=_positive_int, default=5, help="(default: %(default)s)")
    parser.add_argument("--size", type=_positive_int, default=224, help="of the images, in pixels (default: %(default)s)")
    parser.add_argument("--batch", type=_positive_int, default=64, help="images in a step of training (default: %(default)s)")
    parser.add_argument(
        "--learning-rate", type=_positive_float, default=0.001, help="the highest of the schedule (default: %(default)s)"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="(default: cuda where there is a GPU)")
    parser.add_argument("--threads", type=_positive_int, help="of an operator on the CPU (default: as many as torch takes)")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("build/imagenette"),
        help="for checkpoints and the report (default: %(default)s)",
    )
    parser.add_argument("--seed", type=_seed, default=0, help="(default: %(default)s)")
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    return arguments


def _check(parser: Parser, arguments: argparse.Namespace) -> None:
    if arguments.download and arguments.data is None:
        parser.error("--download needs --data DIR, the folder to download into")
    if arguments.batch == 1:
        parser.error("--batch must be at least 2: a batch norm can't train on one image")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU; leave the option out to run on the CPU")
    arguments.device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    arguments.model = list(dict.fromkeys(arguments.model))
    try:
        for name in arguments.model:
            networks.check(name, arguments.size)
    except Error as error:
        parser.error(str(error))


def _positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number above 0")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 0 to 2^63 - 1")
    return int(text)


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return value


def find_images(arguments: argparse.Namespace, log: Log) -> data.ImageSet:
    """The images that the options ask for, downloaded or drawn where they are not there. Raises Error."""
    if arguments.synthetic:
        log.line("drawn images take the place of ImageNette")
        return data.synthesized(arguments.out, arguments.size, arguments.synthetic, arguments.seed)
    if arguments.download:
        return data.downloaded(arguments.data, arguments.size)
    return data.existing(arguments.data, arguments.size)


def train(name: str, images: data.ImageSet, arguments: argparse.Namespace, log: Log) -> training.Training:
    """The network, trained; from its checkpoint where there is one. Raises Error."""
    torch.manual_seed(arguments.seed)
    settings = training.Settings(name, images.description(), **_settings(arguments))
    batches = data.training_batches(images, arguments.size, arguments.batch)
    trained = training.Training(networks.create(name), settings, len(batches))
    validated = data.validation_batches(images, arguments.size, arguments.batch)
    training.train(trained, batches, validated, arguments.out / f"{name}.checkpoint.pt", log)
    return trained


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in ("epochs", "size", "batch", "learning_rate", "seed", "device")}


def validate(
    name: str, model: torch.nn.Module, images: data.ImageSet, arguments: argparse.Namespace, log: Log
) -> list[validation.Comparison]:
    """The network before and after folding in float32 on every validation image, and in float64, on a CPU on fewer of them."""
    comparisons = []
    for dtype, limit in ((torch.float32, None), (torch.float64, FLOAT64_IMAGES_ON_CPU if arguments.device == "cpu" else None)):
        original = validation.script(model, dtype)
        folded = bnfold.fold(original).module
        batches = data.validation_batches(images, arguments.size, arguments.batch, limit)
        comparisons.append(validation.compare(original, folded, log.track(batches, f"{name}: before and after folding")))
    return comparisons


def report_on(name: str, images: data.ImageSet, arguments: argparse.Namespace, log: Log) -> dict[str, Any]:
    """Trains, folds, validates and measures a network. Raises Error."""
    trained = train(name, images, arguments, log)
    fold = bnfold.fold(validation.script(trained.model, torch.float32)).report
    log.line(f"{name}: {len(fold.folded)} of {len(fold.folded) + len(fold.kept)} batch norms folded")
    comparisons = validate(name, trained.model, images, arguments, log)
    log.line(f"{name}: measuring latency")
    image_size = (3, arguments.size, arguments.size)
    settings = measuring.Settings(device=arguments.device, threads=arguments.threads)
    latencies = measuring.latency(trained.model, image_size, settings)
    contents = measuring.contents(trained.model, image_size, arguments.device)
    return {
        "name": name,
        "epochs": [dataclasses.asdict(epoch) for epoch in trained.epochs],
        "fold": {key: value for key, value in fold.as_dict().items() if key != "table"},
        "validation": [dataclasses.asdict(comparison) for comparison in comparisons],
        "latency": [{**dataclasses.asdict(latency), "settings": latency.settings.as_dict()} for latency in latencies],
        "contents": [dataclasses.asdict(one) for one in contents],
    }


def gather(argv: list[str], arguments: argparse.Namespace, log: Log) -> tuple[dict[str, Any], bytes | None]:
    """All that the report tells, and for synthetic images a JPEG image with one of each class. Raises Error."""
    make_folder(arguments.out)
    images = find_images(arguments, log)
    log.line(images.description())
    results = {
        "command": shlex.join(["bench/imagenette.py", *argv]),
        "data": {"synthetic": images.synthetic, "description": images.description()},
        "settings": _settings(arguments),
        "environment": {
            **measuring.environment(measuring.Settings(device=arguments.device, threads=arguments.threads)),
            "virtual machine": _is_virtual_machine(),
        },
        "models": [report_on(name, images, arguments, log) for name in arguments.model],
    }
    if not images.synthetic:
        return results, None
    picture = io.BytesIO()
    data.one_of_each_class(images, side=112).save(picture, format="JPEG", quality=85)
    return results, picture.getvalue()


def _is_virtual_machine() -> bool:
    """Whether the CPU says that a hypervisor runs it; Linux tells in /proc/cpuinfo."""
    try:
        return " hypervisor" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def print_summary(console: Console, results: dict[str, Any]) -> None:
    for model in results["models"]:
        headings, rows, _ = tables.summary(model)
        table = Table(headings[0], *headings[1:], title=model["name"], title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)


def inexact(results: dict[str, Any]) -> str | None:
    """A sentence where the logits before and after folding differ by more than rounding."""
    for model in results["models"]:
        for comparison in model["validation"]:
            difference, tolerance = comparison["largest_difference"], measuring.TOLERANCES[getattr(torch, comparison["dtype"])]
            if not difference <= tolerance:
                change = f"by {difference:.1e} of the largest one, where {tolerance:.0e} is the tolerance"
                return f"folding changed the logits of {model['name']} in {comparison['dtype']} {change}"
    return None


def main(argv: list[str]) -> int:
    arguments = parse_arguments(argv)
    # These come with every module that is scripted, and with every run of it.
    warnings.filterwarnings("ignore", message=".*torch.jit.* is deprecated")
    warnings.filterwarnings("ignore", message="Scripted .* always returns")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    try:
        results, classes = gather(argv, arguments, Log(console))
        paths = report.write(results, classes, arguments.out)
    except torch.OutOfMemoryError:
        return _failed("the GPU has no memory left; lower --batch")
    except (Error, bnfold.Error, OSError) as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return _failed("stopped; the same command goes on from the last whole epoch")
    print_summary(console, results)
    console.print(f"wrote {paths[0]} and {paths[1]}", soft_wrap=True)
    if wrong := inexact(results):
        return _failed(wrong)
    return 0


def _failed(sentence: str) -> int:
    # An error of a process that loads images comes with the traceback of that process; its last line is the error.
    last = sentence.strip().splitlines()[-1].removeprefix(f"{Error.__module__}.{Error.__qualname__}: ")
    print(f"imagenette: {last}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
