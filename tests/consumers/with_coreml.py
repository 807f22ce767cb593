"""Core ML, by coremltools from an exported program. Its programs run on Apple's systems alone; elsewhere they are only made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consumer import Consumer, Converted, Inputs, decomposed

CONSUMER = Consumer("Core ML, exported program", "coremltools", "coreml", takes_programs=True)


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    import coremltools

    return made(coremltools.convert(decomposed(path, inputs), convert_to="mlprogram", **options()))


def options() -> dict[str, Any]:
    import coremltools

    return {"compute_precision": coremltools.precision.FLOAT32, "skip_model_load": True}


def made(model: Any) -> Converted:
    operators = [operator.op_type for function in model._mil_program.functions.values() for operator in function.operations]
    return Converted(operators.count("batch_norm"), None)
