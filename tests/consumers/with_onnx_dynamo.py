"""ONNX Runtime, by PyTorch's newer exporter, which takes an exported program."""

from __future__ import annotations

from pathlib import Path

import torch
from consumer import Consumer, Converted, Inputs, decomposed
from with_onnxruntime import session_of

CONSUMER = Consumer("ONNX Runtime, dynamo=True", "onnxruntime", "onnxruntime", takes_programs=True)


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    model = folder / "model.onnx"
    torch.onnx.export(decomposed(path, inputs), dynamo=True, verbose=False).save(str(model))
    return session_of(model, inputs)
