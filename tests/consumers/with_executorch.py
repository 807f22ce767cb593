"""ExecuTorch with XNNPACK, for phones."""

from __future__ import annotations

from pathlib import Path

import torch
from consumer import Consumer, Converted, Inputs, norms_of_program, program_in

CONSUMER = Consumer("ExecuTorch, XNNPACK", "executorch", "coreml", takes_programs=True)


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    lowered = to_edge_transform_and_lower(program_in(path, inputs), partitioner=[XnnpackPartitioner()])
    norms = norms_of_program(lowered.exported_program())  # those that XNNPACK did not take
    method = Runtime.get().load_program(lowered.to_executorch().buffer).load_method("forward")
    return Converted(norms, lambda: method.execute([value.contiguous() for value in inputs])[0])
