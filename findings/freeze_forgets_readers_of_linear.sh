#!/usr/bin/env bash
# One would have guessed that torch.jit.freeze folds a batch norm into the linear layer before it only where nobody else reads that layer,
# as it does for convolutions.
# It folds behind a linear layer whoever reads its result: in norm(y) + y both addends get the norm. Nothing is raised, and the numbers are
# wrong by more than their size.
# A user of a folding tool meets it behind the tool: what the tool rightly kept, freezing folds wrongly. Freeze with
# optimize_numerics=False, and compare a frozen module with the one it was made of.
# Seen with torch 2.15.0: the largest difference is above 1 behind a linear layer, and 0 behind a convolution.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import pathlib
import sys
import tempfile

import torch
from torch import nn

source = """
from torch import nn


class NormedAndNot(nn.Module):
    def __init__(self, layer, norm):
        super().__init__()
        self.layer = layer
        self.norm = norm

    def forward(self, x):
        y = self.layer(x)
        return self.norm(y) + y
"""
torch.manual_seed(0)
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "normed.py").write_text(source)
    sys.path.insert(0, folder)
    from normed import NormedAndNot

    seen = {}
    for layer, norm, size in ((nn.Linear(4, 4), nn.BatchNorm1d(4), (3, 4)), (nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), (3, 4, 2, 2))):
        norm.running_mean.normal_()
        nn.init.uniform_(norm.weight, 2, 3)
        module = NormedAndNot(layer, norm).eval()
        x = torch.randn(size)
        with torch.no_grad():
            frozen = torch.jit.freeze(torch.jit.script(module))
            seen[type(layer).__name__] = float((frozen(x) - module(x)).abs().max())
    print("torch", torch.__version__, "largest difference", {name: round(value, 3) for name, value in seen.items()})
    assert seen["Linear"] > 1 and seen["Conv2d"] < 1e-5, "torch.jit.freeze looks for other readers of a linear layer now"
PYTHON
