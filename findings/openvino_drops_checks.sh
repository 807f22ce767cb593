#!/usr/bin/env bash
# One would have guessed that OpenVINO refuses a TorchScript module that raises an error for the inputs that it is converted for, or raises
# that error when it runs.
# It drops the branch that raises, without a word. The model that it makes computes what the module refuses to compute, for every input.
# A user of a folding tool meets it where a fold is right for inputs of one rank only and the folded module checks that: the check is gone
# behind the conversion, and the numbers are wrong. Fold with example inputs of the rank that will run, so that no check is needed.
# Seen with openvino 2026.4.1 and torch 2.15.0: a module that raises for values of three dimensions returns twice the value.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.6 openvino==2026.4.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import pathlib
import sys
import tempfile

import openvino
import torch

source = """
import torch
from torch import nn


class OnlyForMatrices(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 2:
            raise ValueError("only for matrices")
        return 2 * x
"""
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "checked.py").write_text(source)
    sys.path.insert(0, folder)
    from checked import OnlyForMatrices

    module, x = torch.jit.script(OnlyForMatrices().eval()), torch.randn(2, 3, 4)
    try:
        module(x)
        raised = False
    except torch.jit.Error:
        raised = True
    model = openvino.convert_model(module, example_input=x)
    output = torch.from_numpy(openvino.Core().compile_model(model, "CPU")(x.numpy())[0])
    dropped = bool((output - 2 * x).abs().max() < 1e-3)
    print("openvino", openvino.__version__, "torch", torch.__version__, "TorchScript raises:", raised, "OpenVINO computes:", dropped)
    assert raised and dropped, "OpenVINO keeps the check now"
PYTHON
