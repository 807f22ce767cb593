"""The real networks of the tests, built once a session."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import torch
import torchvision
from calibrate import calibrate
from torch import nn

import bnfold


@dataclasses.dataclass(frozen=True)
class Network:
    """A calibrated network in double precision, its inputs, its output and the norms that run."""

    name: str
    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    output: Any
    norms: list[str]


# The side of the square input: as small as the architecture lets it be, for speed.
SIDES = {
    "vgg16_bn": 64,
    "resnet18": 64,
    "resnet50": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "mobilenet_v3_large": 64,
    "efficientnet_b0": 64,
    "inception_v3": 96,
    "googlenet": 64,
    "shufflenet_v2_x1_0": 64,
    "mnasnet1_0": 64,
    "regnet_y_400mf": 64,
}

SPELLINGS = ("scripted", "traced")


@functools.lru_cache(maxsize=None)
def network(name: str) -> Network:
    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    model = getattr(torchvision.models, name)(num_classes=10, **options).double().eval()
    inputs = (torch.randn(2, 3, SIDES[name], SIDES[name], dtype=torch.float64),)
    norms = calibrate(model, inputs)
    with torch.no_grad():
        return Network(name, model, inputs, model(*inputs), norms)


def to_torchscript(model: nn.Module, inputs: tuple[Any, ...], spelling: str) -> torch.jit.ScriptModule:
    with torch.no_grad(), warnings.catch_warnings():
        # GoogLeNet and Inception announce that their scripted form returns a named tuple.
        warnings.filterwarnings("ignore", message="Scripted .* always returns")
        warnings.filterwarnings("ignore", message="The TorchScript type system doesn't support instance-level annotations")
        # A norm reads sizes of its input to see whether it could train.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        if spelling == "scripted":
            return torch.jit.script(model)
        return torch.jit.trace(model, inputs, check_trace=False)


@functools.lru_cache(maxsize=None)
def script_module(name: str, spelling: str) -> torch.jit.ScriptModule:
    net = network(name)
    return to_torchscript(net.model, net.inputs, spelling)


@functools.lru_cache(maxsize=None)
def fold_result(name: str, spelling: str) -> bnfold.FoldResult:
    return bnfold.fold(script_module(name, spelling))

