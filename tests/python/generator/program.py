"""A generated program, and its source: that of an nn.Module which a person can paste and run."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

IMPORTS = """\
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d
"""


@dataclasses.dataclass(frozen=True)
class Input:
    """An argument of forward, made anew for each batch size."""

    name: str
    annotation: str
    text: str  #: how it is made, from ``batch`` and ``side``

    @property
    def is_tensor(self) -> bool:
        return self.annotation == "torch.Tensor"


@dataclasses.dataclass(frozen=True)
class Method:
    name: str
    signature: str
    lines: tuple[str, ...]
    exported: bool = False

    def source(self) -> list[str]:
        decorator = ["    @torch.jit.export"] if self.exported else []
        return [*decorator, f"    def {self.name}({self.signature}):", *(f"        {line}" for line in self.lines), ""]


@dataclasses.dataclass(frozen=True)
class Class:
    name: str
    layers: tuple[str, ...]  #: the statements of __init__
    statistics: tuple[str, ...]  #: what a training left in the norms, behind calibration
    methods: tuple[Method, ...]

    def source(self) -> str:
        lines = [f"class {self.name}(nn.Module):", "    def __init__(self):", "        super().__init__()"]
        lines += [*(f"        {line}" for line in self.layers), ""]
        if self.statistics:
            lines += ["    def set_statistics(self):", *(f"        {line}" for line in self.statistics), ""]
        for method in self.methods:
            lines += method.source()
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Program:
    tuples: tuple[str, ...]  #: definitions of named tuples
    classes: tuple[Class, ...]  #: the last one is the model
    inputs: tuple[Input, ...]
    #: a cast to float on the way rounds, so that two equal modules differ by as much
    rounds_to_float: bool = False
    #: a convolution reads a value without a batch
    leaves_out_the_batch: bool = False
    #: it adds numbers beside which values are small
    cancels: bool = False
    #: the dtype of some parts, beside float
    narrow: str = ""

    def __str__(self) -> str:
        return self.source()

    @property
    def trains(self) -> bool:
        """Whether a norm may be in training mode."""
        return any(text in self.source() for text in (".train()", "True, 0.1", "gate, 0.1"))

    @property
    def needs_scripting(self) -> bool:
        """What is no tensor can't be an argument of a trace."""
        return not all(one.is_tensor for one in self.inputs)

    def source(self) -> str:
        arguments = "".join(f"{one.text}, " for one in self.inputs)
        inputs = f"def inputs(batch=2, side=6):\n    return ({arguments.rstrip()})\n"
        return "\n\n".join([IMPORTS, *self.tuples, *(one.source() for one in self.classes), inputs])


_numbers = itertools.count()
_folder = tempfile.TemporaryDirectory(prefix="generated-")


def load(source: str) -> ModuleType:
    """Runs a source from a file, since torch.jit.script reads it there."""
    path = Path(_folder.name) / f"generated_{next(_numbers)}.py"
    path.write_text(source)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


def unload(module: ModuleType) -> None:
    sys.modules.pop(module.__name__, None)
    Path(module.__file__).unlink(missing_ok=True)


def argument_names(inputs: tuple[Input, ...]) -> str:
    return ", ".join(one.name for one in inputs)


def signature(inputs: tuple[Input, ...]) -> str:
    typed = [one.name if one.is_tensor else f"{one.name}: {one.annotation}" for one in inputs]
    return ", ".join(["self", *typed])


def made(inputs: tuple[Input, ...], namespace: dict[str, Any], batch: int, side: int) -> tuple[Any, ...]:
    """The inputs themselves."""
    return tuple(eval(one.text, namespace, {"batch": batch, "side": side}) for one in inputs)
