"""ExecuTorch with XNNPACK, for phones."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from consumer import Consumer, Converted, Inputs, norms_of_program, program_in

CONSUMER = Consumer("ExecuTorch, XNNPACK", "executorch", "coreml", takes_programs=True)


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    lowered = to_edge_transform_and_lower(program_in(path, inputs), partitioner=[XnnpackPartitioner()])
    norms = norms_of_program(lowered.exported_program())  # those that XNNPACK did not take
    return Converted(norms, functools.partial(run, Runtime.get().load_program(lowered.to_executorch().buffer), inputs))


def run(program: Any, inputs: Inputs) -> torch.Tensor:
    """The result lies in memory of the method, which reads that of the program: a copy of it outlives both."""
    method = program.load_method("forward")
    return method.execute([value.contiguous() for value in inputs])[0].clone()
