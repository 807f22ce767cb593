"""PyTorch's own fusions, which give what they can to oneDNN."""

from __future__ import annotations

from pathlib import Path

import torch
from consumer import Consumer, Converted, Inputs, norms_in

CONSUMER = Consumer("torch.jit.optimize_for_inference", "torch", "libtorch")


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    optimized = torch.jit.optimize_for_inference(torch.jit.load(path))
    return Converted(norms_in(optimized), lambda: optimized(*inputs))
