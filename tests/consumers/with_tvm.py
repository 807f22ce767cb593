"""TVM, by its frontend for exported programs."""

from __future__ import annotations

from pathlib import Path

import torch
from consumer import Consumer, Converted, Inputs, decomposed

CONSUMER = Consumer("TVM", "apache-tvm", "coreml", takes_programs=True)


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    import tvm
    from tvm import relax
    from tvm.relax.frontend.torch import from_exported_program

    module = from_exported_program(decomposed(path, inputs))
    norms = str(module).count("R.nn.batch_norm(")
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    values = [tvm.runtime.tensor(value.contiguous().numpy()) for value in inputs]
    return Converted(norms, lambda: torch.from_numpy(machine["main"](*values)[0].numpy()))
