#!/usr/bin/env bash
# One would have guessed that a scripted module says of a value's rank what eager says: y.dim() asks the value.
# conv1d, conv2d and conv3d take inputs without a batch, and TorchScript makes a constant of the rank behind each of them, that with a batch:
# for such an input the scripted module counts one dimension too many, each time, frozen or not, while the shape of the same value is right.
# A user of a folding tool meets it where a norm follows: the norm's own check of the rank is decided before anything runs, and raises, or
# passes, for the wrong inputs. A tool that inlines methods makes more such places than there were. Ask the rank of what goes into the convolution.
# Seen with torch 2.15.0: 3, 4 and 5 where eager has 2, 3 and 4; conv_transpose2d gives 3 in both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.6
cat > "$folder/ranks.py" <<'PYTHON'
import torch
from torch import nn


class Rank(nn.Module):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        y = self.conv(x)
        return y.dim(), len(y.shape)


print("torch", torch.__version__)
convs = {nn.Conv1d: (2, 5), nn.Conv2d: (2, 5, 5), nn.Conv3d: (2, 5, 5, 5), nn.ConvTranspose2d: (2, 5, 5)}
for kind, sizes in convs.items():
    model, x = Rank(kind(2, 2, 1)).eval(), torch.randn(sizes)
    scripted = torch.jit.script(model)
    frozen = torch.jit.freeze(scripted)
    said = [[tuple(module(x)) for _ in range(3)] for module in (model, scripted, frozen)]
    print(kind.__name__, "eager", said[0][0], "scripted", said[1][0], "frozen", said[2][0])
    right = len(sizes)
    wrong = right if kind is nn.ConvTranspose2d else right + 1
    assert said[0] == [(right, right)] * 3
    assert said[1] == said[2] == [(wrong, right)] * 3, said
PYTHON
"$folder/venv/bin/python" -W ignore "$folder/ranks.py"
