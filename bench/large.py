"""Folds models of extreme sizes, each in a process of its own, and prints the seconds that it took and the peak of its memory.

    .venv/bin/python bench/large.py            # all
    .venv/bin/python bench/large.py norms      # one
    .venv/bin/python bench/large.py --small    # all, at the size that the tests use

The largest takes 9 GB of memory and 8 GB of disk.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

import bnfold

Model = tuple[torch.jit.ScriptModule, tuple[torch.Tensor, ...]]

MEGABYTE = 1 << 20


def randomised(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval()


def conv_and_norm() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))


IMAGE = (torch.ones(1, 3, 4, 4),)


def norms(count: int) -> Model:
    """Convolution, norm and ReLU in a row, `count` times."""
    layers = [layer for _ in range(count) for layer in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())]
    return torch.jit.script(randomised(nn.Sequential(*layers))), IMAGE


def weights(numbers: int) -> Model:
    """One table of `numbers` float32 weights before a convolution and a norm."""

    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(1, 1)
            self.table.weight = nn.Parameter(torch.zeros(numbers // 64, 64), requires_grad=False)
            self.layers = conv_and_norm()

        def forward(self, index: torch.Tensor) -> torch.Tensor:
            return self.layers(self.table(index).view(-1, 1, 8, 8).expand(-1, 3, 8, 8))

    return torch.jit.script(randomised(Embedded())), (torch.zeros(2, dtype=torch.long),)


class Straight(nn.Module):
    def __init__(self, operators: int) -> None:
        super().__init__()
        self.layers = conv_and_norm()
        self.operators = operators

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layers(x)
        # Each value is read twice: torch.jit.save writes those that are read once into one another, and crashes on long lines of them.
        for _ in range(self.operators // 2):
            x = torch.maximum(torch.neg(x), x)
        return x


def nodes(count: int) -> Model:
    """A traced line of `count` operators behind a convolution and a norm."""
    return torch.jit.trace(randomised(Straight(count)), IMAGE, check_trace=False), IMAGE


class Sums(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1))
        self.norm = nn.BatchNorm2d(8)
        self.count = count

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        for _ in range(self.count):
            y = torch.sigmoid(y) + y
        return self.last(self.norm(torch.cat([y, self.second(x)], 1)))


def sums(count: int) -> Model:
    """`count` sums, each of the one before it, in front of a concatenation whose parts the fold has to know the channels of."""
    return torch.jit.trace(randomised(Sums(count)), IMAGE, check_trace=False), IMAGE


class Inside(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.inner = Inside(depth - 1) if depth > 0 else conv_and_norm()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def modules(depth: int) -> Model:
    """A convolution and a norm inside `depth` modules, each inside the next."""
    return torch.jit.script(randomised(Inside(depth))), IMAGE


class Leaf(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = conv_and_norm()

    def forward(self, x: torch.Tensor, steps: int) -> torch.Tensor:
        return self.layers(x)


class Branch(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.inner = Branch(depth - 1) if depth > 0 else Leaf()

    def forward(self, x: torch.Tensor, steps: int) -> torch.Tensor:
        if steps > 0:
            x = self.inner(x, steps)
        return x


class Loop(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.inner = Loop(depth - 1) if depth > 0 else Leaf()

    def forward(self, x: torch.Tensor, steps: int) -> torch.Tensor:
        for _ in range(steps):
            x = self.inner(x, steps)
        return x


def branches(depth: int) -> Model:
    """A convolution and a norm inside `depth` conditions, each inside the next."""
    return torch.jit.script(randomised(Branch(depth))), (*IMAGE, 1)


def loops(depth: int) -> Model:
    """The same inside loops."""
    return torch.jit.script(randomised(Loop(depth))), (*IMAGE, 1)


# The size, and the one that the tests use.
Size = collections.namedtuple("Size", "make full small")
MODELS = {
    size.make.__name__: size
    for size in (
        Size(norms, 2_000, 100),
        Size(weights, 1_000_000_000, 1_000_000),
        Size(nodes, 100_000, 3_000),
        Size(sums, 20_000, 200),
        Size(modules, 400, 60),
        Size(branches, 300, 60),
        Size(loops, 300, 60),
    )
}


def peak() -> int:
    """The most memory that this process has had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // MEGABYTE


class Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def prepare(name: str, size: int, directory: Path) -> None:
    """Writes the model, and its inputs and output."""
    module, inputs = MODELS[name].make(size)
    module.save(str(directory / "model.pt"))
    torch.save((inputs, module(*inputs)), directory / "run.pt")


def measure(directory: Path) -> dict[str, object]:
    """Loads, folds and saves the model that was prepared, and compares what it computes."""
    clock = Clock()
    baseline = peak()
    with clock("load"):
        module = bnfold.load(directory / "model.pt")
    loaded = peak()
    with clock("fold"):
        result = bnfold.fold(module)
    folded = peak()
    with clock("save"):
        bnfold.save(result.module, directory / "folded.pt")
    memory = {"before": baseline, "loaded": loaded, "folded": folded, "saved": peak()}
    inputs, expected = torch.load(directory / "run.pt")
    equal = torch.allclose(expected, result.module(*inputs), rtol=1e-3, atol=1e-4, equal_nan=True)
    return {**clock.seconds, "folded": len(result.report.folded), "kept": len(result.report.kept), "equal": equal, "memory": memory}


def in_a_process(call: str, *arguments: str, check: Callable[[str], object] = str) -> object:
    """What a call of this module prints in a new process, or how that ended."""
    process = subprocess.run([sys.executable, __file__, "--call", call, *arguments], capture_output=True, text=True, check=False)
    if process.returncode != 0:
        return f"{call} ended with {process.returncode}: {process.stderr.strip()[-300:]}"
    return check(process.stdout)


def row(name: str, size: int) -> object:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as directory:
        failure = in_a_process("prepare", name, str(size), directory)
        return failure or in_a_process("measure", directory, check=json.loads)


def printed(name: str, size: int, result: object) -> str:
    if not isinstance(result, dict):
        return f"{name:<9} {size:>13,}  {result}"
    times = "".join(f"{result[step]:>8.2f}" for step in ("load", "fold", "save"))
    memory = "".join(f"{result['memory'][moment]:>8,}" for moment in ("before", "loaded", "folded", "saved"))
    norms_folded = f"{result['folded']} of {result['folded'] + result['kept']}"
    return f"{name:<9} {size:>13,} {times}   {memory}   {norms_folded:>14}   {'equal' if result['equal'] else 'DIFFERENT'}"


def called(arguments: list[str]) -> None:
    """What a child process does."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    sys.setrecursionlimit(100_000)
    if arguments[0] == "prepare":
        prepare(arguments[1], int(arguments[2]), Path(arguments[3]))
    else:
        print(json.dumps(measure(Path(arguments[1]))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *MODELS], metavar="NAME", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--small", action="store_true", help="at the size that the tests use")
    parser.add_argument("--call", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # TorchScript is deprecated, and says so for each model
    if arguments.call:
        called(arguments.call)
        return
    print(f"{'':<23}       seconds                peak memory in MB")
    print(f"{'model':<9} {'size':>13}     load    fold    save     before  loaded  folded   saved     norms folded")
    for name in arguments.names or MODELS:
        size = MODELS[name].small if arguments.small else MODELS[name].full
        print(printed(name, size, row(name, size)), flush=True)


if __name__ == "__main__":
    main()
