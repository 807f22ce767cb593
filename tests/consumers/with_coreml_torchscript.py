"""Core ML, by coremltools from TorchScript itself."""

from __future__ import annotations

from pathlib import Path

import torch
from consumer import Consumer, Converted, Inputs
from with_coreml import made, options

CONSUMER = Consumer("Core ML, TorchScript", "coremltools", "coreml")


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    import coremltools

    types = [coremltools.TensorType(shape=tuple(value.shape)) for value in inputs]
    return made(coremltools.convert(torch.jit.load(path), inputs=types, convert_to="mlprogram", **options()))
