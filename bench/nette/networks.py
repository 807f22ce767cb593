"""torchvision's classification networks, with ten classes."""

from __future__ import annotations

import difflib
from typing import Any

import torch
import torchvision
from files import Error

from .data import CLASSES

NAMES = torchvision.models.list_models(module=torchvision.models)

# Their classifiers for training alone are left out; torchvision asks how to draw the first weights.
OPTIONS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def create(name: str) -> torch.nn.Module:
    """The network with random weights. Its norms are those of a network that has seen no image yet."""
    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **OPTIONS.get(name, {}))


def check(name: str, image_size: int) -> None:
    """Raises Error unless torchvision has the network, it has batch norms, and it takes images of that size."""
    if name not in NAMES:
        close = difflib.get_close_matches(name, NAMES)
        hint = f"; close to it are {', '.join(close)}" if close else ", as resnet50 or vgg16_bn"
        raise Error(f"torchvision has no classification network '{name}'{hint}")
    with torch.device("meta"):  # computes shapes and no values
        model = create(name).eval()
        if not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules()):
            raise Error(f"{name} has no batch norm to fold; choose another network")
        try:
            model(torch.zeros(1, 3, image_size, image_size))
        except (RuntimeError, AssertionError) as error:
            raise Error(f"{name} does not take images of {image_size} × {image_size}: {str(error).splitlines()[0]}") from error


def logits_of(output: Any) -> torch.Tensor:
    """The logits in what a network returns, [N, classes]; googlenet and inception_v3 return more when they are scripted."""
    return output if isinstance(output, torch.Tensor) else output.logits
