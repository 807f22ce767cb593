"""Weights in half precision: folded in double and rounded once, they are closer to the truth than those of torch.jit.freeze."""

from __future__ import annotations

import copy

import pytest
import torch
import zoo
from calibrate import calibrate
from torch import nn

import bnfold


def weights_of(frozen: torch.jit.ScriptModule) -> list[torch.Tensor]:
    """The weights and biases of the convs of a frozen module, in the order of the graph."""
    graph = frozen.inlined_graph
    nodes = graph.findAllNodes("aten::conv2d")
    return [value.toIValue().double() for node in nodes for value in list(node.inputs())[1:3]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_folded_weights_are_closer_than_those_of_freeze(name, dtype, capsys):
    if name == "small":
        model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64)).eval()
        calibrate(model, (torch.randn(2, 3, 16, 16),))
    else:
        model = copy.deepcopy(zoo.network(name).model)
    narrow = model.to(dtype)
    reference = weights_of(torch.jit.freeze(bnfold.fold(copy.deepcopy(narrow).double()).module))
    ours = weights_of(torch.jit.freeze(bnfold.fold(narrow).module))
    theirs = weights_of(torch.jit.freeze(torch.jit.script(narrow)))
    assert len(ours) == len(theirs) == len(reference) > 0

    def error(weights):
        squares = sum(float((one - other).square().sum()) for one, other in zip(weights, reference))
        return (squares / sum(float(value.square().sum()) for value in reference)) ** 0.5

    with capsys.disabled():
        print(f"\n{name} in {dtype}: folded weights off by {error(ours):.2e} (bnfold), {error(theirs):.2e} (torch.jit.freeze)")
    assert error(ours) <= error(theirs)
    for weight, expected in zip(ours, reference):
        assert torch.equal(weight, expected.to(dtype).double())
