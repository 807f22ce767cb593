#!/usr/bin/env bash
# One would have guessed that a program of torch.export is the same after saving and loading, so that what can be done with one can be done with
# the other: run_decompositions is the step in front of most exporters.
# Where a size is derived from another one, as 2 * half, the loaded program runs on other sizes and knows the range of the product, but can't be
# decomposed: an AssertionError without a word of the size. The one that was never saved can.
# A user of a folding tool meets it behind a tool that reads and writes .pt2 files: what was folded from a file can't be lowered to core ATen
# in the next step, and neither can the file that came in. Decompose before saving.
# Seen with torch 2.15.0: "expected sympy.Symbol".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import io

import torch

model = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 2, stride=2), torch.nn.ReLU()).eval()
half = torch.export.Dim("half", min=2, max=50)
program = torch.export.export(model, (torch.randn(2, 2, 8),), dynamic_shapes=({2: 2 * half},))
program.run_decompositions()

file = io.BytesIO()
torch.export.save(program, file)
file.seek(0)
loaded = torch.export.load(file)
assert loaded.module()(torch.randn(2, 2, 12)).shape == (2, 3, 6)
print("torch", torch.__version__, "ranges", loaded.range_constraints)
try:
    loaded.run_decompositions()
except AssertionError as error:
    print("AssertionError:", str(error).splitlines()[0])
    assert "expected sympy.Symbol" in str(error), "another error now"
else:
    raise SystemExit("a loaded program can be decomposed now")
PYTHON
