"""ONNX Runtime, by PyTorch's exporter for TorchScript."""

from __future__ import annotations

from pathlib import Path

import torch
from consumer import Consumer, Converted, Inputs

CONSUMER = Consumer("ONNX Runtime, dynamo=False", "onnxruntime", "onnxruntime")


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    model = folder / "model.onnx"
    torch.onnx.export(torch.jit.load(path), inputs, str(model), dynamo=False)
    return session_of(model, inputs)


def session_of(model: Path, inputs: Inputs) -> Converted:
    """Norms are counted behind the level "extended": at "all" one may be a depthwise convolution, which is a step as well."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(model.with_suffix(".optimized.onnx"))
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    norms = sum(node.op_type == "BatchNormalization" for node in onnx.load(options.optimized_model_filepath).graph.node)
    feeds = {description.name: value.contiguous().numpy() for description, value in zip(session.get_inputs(), inputs)}
    return Converted(norms, lambda: torch.from_numpy(session.run(None, feeds)[0]))
