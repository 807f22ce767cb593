"""What the consumers share: what each of them says of itself, and the exported program that is in a file or made of one.

A consumer is a module of this folder with a constant CONSUMER and a function

    convert(path: Path, inputs: tuple[torch.Tensor, ...], folder: Path) -> Converted

which takes a TorchScript file as a user would, and may raise whatever the tool raises. Where the consumer takes programs, the file may be a .pt2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Inputs = tuple[torch.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Consumer:
    """What the table says of a tool."""

    title: str
    package: str  #: on PyPI, for its version
    target: str  #: of bnfold.fold
    tolerance: float = 1e-4  #: of its result in float, relative to the largest value
    takes_programs: bool = False  #: of torch.export


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a tool made of a file."""

    norms: int  #: that are still a step of their own
    run: Callable[[], torch.Tensor] | None  #: None where the result can't run on this machine


def norms_in(module: torch.jit.ScriptModule) -> int:
    graph = module.inlined_graph  # the nodes found are gone with the graph that they are in
    return len(graph.findAllNodes("aten::batch_norm"))


def program_in(path: Path, inputs: Inputs) -> torch.export.ExportedProgram:
    """The exported program in the file, or what PyTorch makes of TorchScript."""
    from torch._export.converter import TS2EPConverter

    if path.suffix == ".pt2":
        return torch.export.load(path)
    return TS2EPConverter(torch.jit.load(path), inputs, {}).convert()


def decomposed(path: Path, inputs: Inputs) -> torch.export.ExportedProgram:
    """Likewise, in the operators that converters know."""
    return program_in(path, inputs).run_decompositions({})


def norms_of_program(program: Any) -> int:
    return sum("batch_norm" in str(node.target) for node in program.graph.nodes if node.op == "call_function")
