#!/usr/bin/env bash
# One would have guessed that a backend whose kernels compute in channels_last takes a model that was moved to channels_last, as it is already in
# the order that is wanted.
# XNNPACK's, in ExecuTorch, takes channels_last inputs, and lowers no convolution whose weight lies in channels_last, unless its kernel is a single point,
# whose weight lies in both orders. Its pass that tags orders ends in an assertion about the weight.
# A user of a folding tool meets it where the tool keeps the order of a weight that takes a norm, and the model was moved to channels_last once, to
# run faster in PyTorch: move it back with model.to(memory_format=torch.contiguous_format) before it is exported. The input may stay.
# Seen with executorch 1.5.1 and torch 2.15.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.15.0 torchao==0.18.0 executorch==1.5.1
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import nn

ORDERS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def outcome(kernel, weights, inputs):
    model = nn.Sequential(nn.Conv2d(3, 8, kernel), nn.ReLU()).eval().to(memory_format=ORDERS[weights])
    x = torch.randn(1, 3, 16, 16).to(memory_format=ORDERS[inputs])
    program = torch.export.export(model, (x,))
    try:
        to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    except Exception as error:
        while error.__cause__ or error.__context__:
            error = error.__cause__ or error.__context__
        return type(error).__name__
    return "lowered"


print(f"executorch {importlib.metadata.version('executorch')}, torch {torch.__version__}")
seen = {}
for kernel in (1, 3):
    for weights in ORDERS:
        for inputs in ORDERS:
            seen[kernel, weights, inputs] = outcome(kernel, weights, inputs)
            print(f"kernel {kernel}, weights {weights}, inputs {inputs}: {seen[kernel, weights, inputs]}")
refused = {case for case, what in seen.items() if what == "AssertionError"}
assert refused == {(3, "channels_last", "contiguous"), (3, "channels_last", "channels_last")}
assert all(what == "lowered" for case, what in seen.items() if case not in refused)
PYTHON
