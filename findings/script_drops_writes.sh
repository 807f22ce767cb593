#!/usr/bin/env bash
# One would have guessed that torch.jit.script keeps every write into a parameter that forward makes, as eager does, or refuses the module.
# It removes writes through operators that return their input without saying so in their schema, as atleast_1d does, while it compiles.
# A user of a folding tool meets a folded module that differs from the eager one, though it equals the scripted one it was made of: the
# write was gone before. Compare a folded module with the scripted one, and the scripted one with eager.
# Seen with torch 2.15.0: eager gives 1.5, 2.25, 3.375 in three calls; scripted gives 1.0 each time, and its graph has no mul_.
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

source = """
import torch
from torch import nn


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        weight = torch.atleast_1d(self.weight)
        weight.mul_(1.5)
        return x * self.weight
"""
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "scaled.py").write_text(source)
    sys.path.insert(0, folder)
    from scaled import Scaled

    with torch.no_grad():
        eager, scripted, x = Scaled(), torch.jit.script(Scaled()), torch.ones(3)
        seen = [[float(module(x)[0]) for _ in range(3)] for module in (eager, scripted)]
    print("torch", torch.__version__, "eager", seen[0], "scripted", seen[1], "mul_ in the graph:", "mul_" in str(scripted.graph))
    assert seen == [[1.5, 2.25, 3.375], [1.0, 1.0, 1.0]], "torch.jit.script keeps the write now"
PYTHON
