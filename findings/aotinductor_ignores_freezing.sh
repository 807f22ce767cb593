#!/usr/bin/env bash
# One would have guessed that AOTInductor makes constants of weights with its option freezing, as torch.compile does, and so folds a batch norm
# into the convolution before it: its programs are for inference, and their weights are in the package.
# It does so only where gradients are off while it compiles. Else the option is ignored without a word, and the norm is computed from its
# statistics in every run: rsqrt is in the graph that code is made of. Neither the program's outputs nor its parameters tell which it was.
# A user of a folding tool meets it where both are compared: "AOTInductor folds no norm, with freezing or without" is what one sees first.
# Seen with torch 2.15.0: compile_fx.py asks "config.freezing and not torch.is_grad_enabled()".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 numpy==2.4.6
TORCHINDUCTOR_CACHE_DIR="$folder/cache" "$folder/venv/bin/python" -W ignore - "$folder/model.pt2" <<'PYTHON'
import sys

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()).eval()
nn.init.normal_(model[1].running_mean)
x = torch.randn(2, 3, 9, 9)
program = torch.export.export(model, (x,))


def norms_compiled(freezing: bool, gradients: bool) -> int:
    found = 0

    def count(graph: torch.fx.Graph) -> None:
        nonlocal found
        found += len(graph.find_nodes(op="call_function", target=torch.ops.aten.rsqrt.default))

    with torch._inductor.config.patch(post_grad_custom_post_pass=count, freezing=freezing), torch.set_grad_enabled(gradients):
        path = torch._inductor.aoti_compile_and_package(program, package_path=sys.argv[1])
    assert torch.allclose(torch._inductor.aoti_load_package(path)(x), model(x), atol=1e-5)
    return found


print("torch", torch.__version__)
for freezing, gradients, expected in ((False, True, 1), (True, True, 1), (True, False, 0)):
    found = norms_compiled(freezing, gradients)
    print(f"freezing={freezing}, gradients={gradients}: {found} norm compiled")
    assert found == expected, "this changed"
PYTHON
