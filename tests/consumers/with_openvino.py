"""OpenVINO, which reads TorchScript and exported programs itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from consumer import Consumer, Converted, Inputs

CONSUMER = Consumer("OpenVINO", "openvino", "openvino", takes_programs=True)


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    import openvino

    module = torch.export.load(path) if path.suffix == ".pt2" else torch.jit.load(path)
    model = openvino.convert_model(module, example_input=inputs)
    return compiled(model, inputs)


def compiled(model: Any, inputs: Inputs) -> Converted:
    """OpenVINO names the layers that each kernel computes: a norm is a step where one of its own operators runs."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    program = openvino.Core().compile_model(model, "CPU", options)
    steps = [operator.get_rt_info() for operator in program.get_runtime_model().get_ops()]
    of_norm = [step for step in steps if "BatchNormInference" in step["originalLayersNames"].astype(str)]
    norms = sum(step["layerType"].astype(str) in ("Eltwise", "Subgraph") for step in of_norm)
    arrays = [value.contiguous().numpy() for value in inputs]
    return Converted(norms, lambda: torch.from_numpy(program(arrays)[0]))
