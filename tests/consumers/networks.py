"""The networks that are handed to every consumer: calibrated, in float, on one small input."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
import zoo
from consumer import Inputs
from torch import nn

import bnfold


class Down(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int):
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class UNet(nn.Module):
    """Norms behind transposed convolutions, and behind the concatenations with what was there before."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = Down(3, 16, 1), Down(16, 32, 2), Down(32, 64, 2)
        self.up_second = nn.Sequential(nn.ConvTranspose2d(64, 32, 2, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.up_first = nn.Sequential(nn.ConvTranspose2d(32, 16, 2, 2), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.joined_second = nn.Sequential(nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 32, 3, padding=1))
        self.joined_first = nn.Sequential(nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1))
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.first(x)
        second = self.second(first)
        third = self.third(second)
        second = self.joined_second(torch.cat([self.up_second(third), second], 1))
        first = self.joined_first(torch.cat([self.up_first(second), first], 1))
        return self.head(first)


class Signal(nn.Module):
    """A residual network of one dimension, with norms before and behind its convolutions, and one behind a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(2, 16, 7, padding=3, bias=False), nn.BatchNorm1d(16), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 16, 5, padding=2, dilation=1, bias=False)) for _ in range(3)
        )
        self.last = nn.Sequential(nn.BatchNorm1d(16), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(self.last(x))


OWN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {"U-Net": (UNet, (3, 32, 32)), "1-d network": (Signal, (2, 64))}
OF_THE_ZOO = {
    "ResNet18": "resnet18",
    "MobileNetV2": "mobilenet_v2",
    "DenseNet121": "densenet121",
    "RepVGG-A0": "repvgg_a0",
    "ResNetV2-50": "resnetv2_50",
    "EfficientNet-B0": "efficientnet_b0",
    "LeViT-128S": "levit_128s",
    "R3D-18": "r3d_18",
}
# Gammas of the usual size make the softmax of its attention so steep that the network itself is off by 1e-3 in float; with these by 1e-5.
GAMMAS = {"LeViT-128S": 0.25}
NETWORKS = (*list(OF_THE_ZOO)[:7], *OWN, "R3D-18")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network in eval mode, one input, what eager makes of it in double, and how many of its norms run."""

    model: nn.Module
    inputs: Inputs
    output: torch.Tensor
    norms: int


def subject(name: str) -> Subject:
    """Builds and calibrates the network. Takes the same random numbers each time."""
    if name in OF_THE_ZOO:
        net = zoo.build_network(OF_THE_ZOO[name], GAMMAS.get(name))
    else:
        make, sizes = OWN[name]
        torch.manual_seed(0)
        inputs, others = (torch.randn(2, *sizes, dtype=torch.float64) for _ in range(2))
        net = zoo.prepare(name, make().double().eval(), (inputs,), (others,))
    # The input as it is in float, so that its rounding is no error of a consumer.
    inputs = tuple(value[:1].float() for value in net.inputs)
    with torch.no_grad():
        output = net.model(*(value.double() for value in inputs))
    return Subject(net.model.float(), inputs, output, len(net.norms))


# ---- forms

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclasses.dataclass(frozen=True)
class Form:
    """How a network becomes a file."""

    spelling: zoo.Spelling | Literal["exported"]
    channels_last: bool

    def __str__(self) -> str:
        return f"{self.spelling}, channels_last" if self.channels_last else self.spelling


FORMS = (*(Form(spelling, channels_last) for spelling in zoo.SPELLINGS for channels_last in (False, True)), Form("exported", False))

Module = torch.jit.ScriptModule | torch.export.ExportedProgram


def forms_of(one: Subject, takes_programs: bool) -> list[Form]:
    """A signal of one dimension has one memory format."""
    formats = [form for form in FORMS if not form.channels_last or one.inputs[0].dim() in CHANNELS_LAST]
    return [form for form in formats if takes_programs or form.spelling != "exported"]


def module_of(one: Subject, form: Form) -> tuple[Module, Inputs]:
    """The network as TorchScript or a program, with the inputs in its memory format."""
    if form.spelling == "exported":
        return torch.export.export(one.model, one.inputs), one.inputs
    if not form.channels_last:
        return zoo.to_torchscript(one.model, one.inputs, form.spelling), one.inputs
    layout = CHANNELS_LAST[one.inputs[0].dim()]
    inputs = tuple(value.to(memory_format=layout) for value in one.inputs)
    return zoo.to_torchscript(copy.deepcopy(one.model).to(memory_format=layout), inputs, form.spelling), inputs


def save(module: Module, stem: Path) -> Path:
    """Writes the file with the suffix of its format."""
    if isinstance(module, torch.export.ExportedProgram):
        path = stem.with_suffix(".pt2")
        torch.export.save(module, path)
    else:
        path = stem.with_suffix(".pt")
        module.save(str(path))
    return path


def save_folded(module: Module, inputs: Inputs, target: str, stem: Path) -> Path:
    if isinstance(module, torch.export.ExportedProgram):
        return save(bnfold.fold(module, target=target).program, stem)
    return save(bnfold.fold(module, example_inputs=inputs, target=target).module, stem)
