"""Makes random modules of the operators that the rules know, and of some that they must refuse.

A module is a list of steps over a pool of values; each step reads one or two earlier values and adds one. Channels and sizes are tracked, so
every module runs. ``python generate.py SEED`` prints one.
"""

from __future__ import annotations

import dataclasses
import random
import sys

import torch
from calibrate import calibrate
from torch import nn
from torch.nn import functional as F

SIDE = 6


@dataclasses.dataclass(frozen=True)
class Step:
    """One line of the program: ``kind`` applied to the values numbered ``reads``, with a layer and a number where the kind needs them."""

    kind: str
    reads: tuple[int, ...]
    layer: str = ""
    number: int = 0


class Generated(nn.Module):
    """A random network on inputs of [N, 3, 6, 6]; ``print(module.program())`` shows what it does."""

    def __init__(self, seed: int, steps: int = 14):
        super().__init__()
        self.random = random.Random(seed)
        self.channels = [3]
        self.steps: list[Step] = []
        self.scalars = nn.ParameterDict()
        for _ in range(steps):
            self._add_step()
        unread = set(range(len(self.channels))) - {read for step in self.steps for read in step.reads}
        self.outputs = sorted(unread)[-2:]

    def _layer(self, module: nn.Module) -> str:
        name = f"layer{len(self.steps)}"
        self.add_module(name, module)
        return name

    def _value(self) -> int:
        # Mostly the newest values, so that chains grow.
        newest = len(self.channels) - 1
        return newest if self.random.random() < 0.6 else self.random.randint(max(0, newest - 4), newest)

    def _add(self, kind: str, reads: tuple[int, ...], channels: int, layer: str = "", number: int = 0) -> None:
        self.steps.append(Step(kind, reads, layer, number))
        self.channels.append(channels)

    def _add_step(self) -> None:
        value = self._value()
        channels = self.channels[value]
        choice = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if choice == "conv":
            self._add_conv(value, channels)
        elif choice == "norm":
            self._add("layer", (value,), channels, self._layer(nn.BatchNorm2d(channels)))
        elif choice in ("add", "sub", "mul", "add_"):
            other = self.random.choice([i for i, count in enumerate(self.channels) if count == channels])
            self._add(choice, (value, other), channels)
        elif choice == "cat":
            other = self._value()
            self._add("cat", (value, other), channels + self.channels[other])
        elif choice == "beside":
            norm = self._layer(nn.BatchNorm2d(channels))
            self._add("layer", (value,), channels, norm)
            conv = self._layer(nn.Conv2d(channels, channels, 3, padding=1))
            self._add("layer", (value,), channels, conv)
            self._add("add", (len(self.channels) - 2, len(self.channels) - 1), channels)
        elif choice == "residual":
            self._add("layer", (value,), channels, self._layer(nn.Conv2d(channels, channels, 3, padding=1)))
            self._add(self.random.choice(["relu", "gelu", "silu_"]), (len(self.channels) - 1,), channels)
            self._add("layer", (len(self.channels) - 1,), channels, self._layer(nn.BatchNorm2d(channels)))
            self._add("add", (len(self.channels) - 1, value), channels)
        elif choice == "linear":
            self._add("linear", (value,), 4, self._layer(nn.Linear(channels, 4)))
        elif choice == "shuffle":
            self._add("shuffle" if channels % 2 == 0 else "relu", (value,), channels)
        elif choice == "part":
            self._add("part", (value,), max(channels // 2, 1))
        elif choice == "scale":
            name = f"scale{len(self.steps)}"
            self.scalars[name] = nn.Parameter(torch.randn(channels, 1, 1, generator=torch.Generator().manual_seed(len(self.steps))))
            self._add("scale", (value,), channels, name)
        else:
            self._add(choice, (value,), channels)

    def _add_conv(self, value: int, channels: int) -> None:
        out = self.random.choice([channels, 2, 4, 6])
        groups = channels if out == channels and self.random.random() < 0.3 else 1
        kernel = self.random.choice([1, 3])
        mode = self.random.choice(["zeros", "zeros", "zeros", "reflect", "circular", "replicate"])
        conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, groups=groups, bias=self.random.random() < 0.5, padding_mode=mode)
        self._add("layer", (value,), out, self._layer(conv))

    def forward(self, x):
        values = [x]
        for step in self.steps:
            values.append(self._run(step, *[values[i] for i in step.reads]))
        return tuple(values[i] for i in self.outputs)

    def _run(self, step: Step, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        if step.kind == "layer":
            return getattr(self, step.layer)(x)
        if step.kind == "linear":
            return getattr(self, step.layer)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if step.kind == "scale":
            return x * self.scalars[step.layer]
        return OPERATIONS[step.kind](x, other)

    def program(self) -> str:
        lines = []
        for number, step in enumerate(self.steps, 1):
            layer = getattr(self, step.layer, step.layer) if step.layer else ""
            lines.append(f"v{number} = {step.kind}({', '.join(f'v{i}' for i in step.reads)}) {layer}")
        return "\n".join([*lines, f"return {self.outputs}"])


def _shuffle(x, _):
    n, c, h, w = x.size()
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


# How often each kind is drawn.
WEIGHTS = {
    "conv": 8, "norm": 9, "relu": 4, "relu_": 2, "relu6": 1, "hardtanh_": 1, "leaky_relu": 1, "sigmoid": 0.6, "add": 2, "sub": 1,
    "add_": 0.7, "mul": 0.5, "gate": 1, "cat": 2, "beside": 1.5, "residual": 1.5, "gelu": 1, "silu_": 0.5, "linear": 1, "shuffle": 1, "part": 1, "chunk": 1, "scale": 1,
    "max_pool": 1, "avg_pool": 1, "avg_pool_counted": 0.5, "pad": 0.7, "number": 0.7, "clamp": 0.7, "dropout": 0.5, "write": 0.5,
    "pixel": 0.5, "size": 0.3,
}  # fmt: skip

OPERATIONS = {
    "relu": lambda x, _: F.relu(x),
    "relu_": lambda x, _: F.relu(x, inplace=True),
    "relu6": lambda x, _: F.relu6(x),
    "hardtanh_": lambda x, _: F.hardtanh(x, -0.7, 1.3, inplace=True),
    "leaky_relu": lambda x, _: F.leaky_relu(x, 0.2),
    "gelu": lambda x, _: F.gelu(x),
    "silu_": lambda x, _: F.silu(x, inplace=True),
    "sigmoid": lambda x, _: torch.sigmoid(x),
    "clamp": lambda x, _: x.clamp(max=0.4),
    "add": lambda x, y: x + y,
    "sub": lambda x, y: torch.sub(x, y, alpha=2),
    "add_": lambda x, y: x.add_(y),
    "mul": lambda x, y: x * y,
    "gate": lambda x, _: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "cat": lambda x, y: torch.cat([x, y], 1),
    "shuffle": _shuffle,
    "part": lambda x, _: x[:, : max(x.shape[1] // 2, 1)],
    "chunk": lambda x, _: torch.cat(torch.chunk(x, 2, 1)[::-1], 1),
    "max_pool": lambda x, _: F.max_pool2d(x, 3, 1, 1),
    "avg_pool": lambda x, _: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "avg_pool_counted": lambda x, _: F.avg_pool2d(x, 3, 1, 1),
    "pad": lambda x, _: F.pad(x, (1, 0, 0, 1))[:, :, 1:, :-1] if x.shape[1] % 2 else F.pad(x, (1, 1, 1, 1), "reflect")[:, :, 1:-1, 1:-1],
    "number": lambda x, _: 0.5 * x + 1,
    "dropout": lambda x, _: F.dropout(x, 0.5, False),
    "write": lambda x, _: x.mul_(0.9),
    "pixel": lambda x, _: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2),
    "size": lambda x, _: x / x.shape[1],
}


def generated(seed: int) -> tuple[Generated, tuple[torch.Tensor, ...]]:
    """A calibrated module in double precision and eval mode, and an input for it."""
    torch.manual_seed(seed)
    module = Generated(seed).double().eval()
    inputs = (torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64),)
    calibrate(module, tuple(value.clone() for value in inputs))
    return module, inputs


if __name__ == "__main__":
    print(generated(int(sys.argv[1]))[0].program())
