#!/usr/bin/env bash
# One would have guessed that the module of an exported program, which checks the sizes of its inputs before it runs, checks their number of
# dimensions first: the program is made for that number, and every condition on it was decided as the program was exported.
# It compares the sizes that it was exported with, one by one, from the first on. An input that has these and more dimensions behind them passes,
# with a dynamic and with a static batch, before and after saving and loading, and runs the branch for the number of dimensions that it does not have.
# A user of a folding tool meets it where a fold is right for the dimensions of the program alone, as that of a norm behind a linear layer: what was
# folded computes something else of such an input, and so does the program itself where the model asks for the number of dimensions. Check it first.
# Seen with torch 2.15.0: exported with [2, 4], a module that sums inputs of three dimensions and doubles those of two returns twice a value of [2, 4, 4].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import io

import torch


class DoublesOrSums(torch.nn.Module):
    def forward(self, x):
        return 2 * x if x.dim() == 2 else x.sum()


model, volume = DoublesOrSums(), torch.randn(2, 4, 4)
found = []
for shapes in (None, ({0: torch.export.Dim("batch")},)):
    program = torch.export.export(model, (torch.randn(2, 4),), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for one in (program, torch.export.load(file)):
        run = one.module()
        found.append(run(volume).shape == volume.shape != model(volume).shape)
        try:
            run(torch.randn(2, 5))
            found.append(False)
        except AssertionError:  # a size is checked
            found.append(True)
print("torch", torch.__version__, "three dimensions run as two, and five columns are refused:", all(found))
assert all(found), found
PYTHON
