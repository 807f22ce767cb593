"""NNCF, which quantizes OpenVINO's model to int8 after training."""

from __future__ import annotations

from pathlib import Path

import torch
from consumer import Consumer, Converted, Inputs
from with_openvino import compiled

# In int8 a result is another one, and what is wrong is as large as the values themselves.
CONSUMER = Consumer("NNCF, int8 on OpenVINO", "nncf", "quantization", tolerance=0.7)
SAMPLES = 8


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    import nncf
    import openvino

    model = openvino.convert_model(torch.jit.load(path), example_input=inputs)
    generator = torch.Generator().manual_seed(0)
    samples = [[torch.randn(value.shape, generator=generator).numpy() for value in inputs] for _ in range(SAMPLES)]
    return compiled(nncf.quantize(model, nncf.Dataset(samples), subset_size=SAMPLES), inputs)
