#!/usr/bin/env bash
# One would have guessed that a linear layer decomposes to one product of matrices, the addmm that core ATen has for it, whatever the strides of
# its input are: they are no part of what the layer computes.
# Of a value that is permuted, as the tokens that a vision transformer makes of an image, run_decompositions makes something else: the weight is
# repeated for every sample of the batch by expand, bmm multiplies them one by one, and the bias is an addition of its own.
# A user of a folding tool meets it with a network that folds whole as it was exported, and keeps the norms around its attention once it is
# decomposed: there is no linear layer any more, its weight is the operand of a view, and expand stands between the norm and the product.
# Seen with torch 2.15.0: addmm for a contiguous input; expand, expand, bmm, add for a permuted one; both in one model.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch


class Tokens(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(6, 4)

    def forward(self, tokens, image):
        return self.layer(tokens), self.layer(image.flatten(2).transpose(1, 2))


model = Tokens().eval()
inputs = (torch.randn(3, 5, 6), torch.randn(3, 6, 4, 4))
program = torch.export.export(model, inputs).run_decompositions()
operators = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
print("torch", torch.__version__, *operators)
for expected, decomposed in zip(model(*inputs), program.module()(*inputs), strict=True):
    torch.testing.assert_close(decomposed, expected)
found = [name.removeprefix("aten.") for name in operators if any(part in name for part in ("addmm", "bmm", "expand", "add.Tensor"))]
assert found == ["addmm.default", "expand.default", "expand.default", "bmm.default", "add.Tensor"], found
PYTHON
