"""Gives a model batch norms that matter, and says how far two outputs are apart.

Statistics drawn at random hide errors: the signal of a deep network dies behind norms that don't fit it, and then any fold passes. Here
each norm's statistics are random multiples of what it really sees. Layer scales hide errors too, as they start at 1e-5 or so.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from timm.layers import FrozenBatchNormAct2d
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

# All batch norms of torch derive from the first, and so do those of other packages.
NORM_TYPES = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d, FrozenBatchNormAct2d)

# What torchvision and timm call the parameter that scales a branch before it is added to the residual.
LAYER_SCALE_NAME = re.compile(r"gamma(_?\w+)?|(layer_)?scale(_?\d+)?")

# A channel whose gamma is 0 is a constant and ends the signal of its channel, so these stay few.
ZERO_GAMMAS = 0.05


def norms_of(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, NORM_TYPES)}


def calibrate(model: nn.Module, inputs: tuple[Any, ...], seed: int = 0, gammas: float = 1.0) -> list[str]:
    """Sets statistics, gammas and betas of every norm that runs on ``inputs``; the names of these norms in the order they ran.

    A norm is set right before it runs, so it sees the values that the norms before it make. Gammas have both signs, a size of about 0.5
    times ``gammas``, and some are 0.
    Layer scales are set before anything runs.
    """
    randomise_layer_scales(model, seed)
    generator = torch.Generator().manual_seed(seed)
    names = {module: name for name, module in norms_of(model).items()}
    ran: dict[str, None] = {}

    def set_before_it_runs(norm: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        ran[names[norm]] = None
        if norm.running_mean is not None:
            _set_statistics(norm, arguments[0], generator)
        if norm.weight is not None:
            _set_affine(norm, generator, gammas)

    hooks = [norm.register_forward_pre_hook(set_before_it_runs) for norm in names]
    with torch.no_grad():
        model(*inputs)
    for hook in hooks:
        hook.remove()
    return list(ran)


def randomise_layer_scales(model: nn.Module, seed: int = 0) -> list[str]:
    """Sets every layer scale to random numbers of both signs, 0.3 to 1 in size; the names of these parameters.

    A layer scale is a parameter with the name of one whose elements are all equal, as they are before a training.
    """
    generator = torch.Generator().manual_seed(seed)
    names = []
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not LAYER_SCALE_NAME.fullmatch(name) or parameter.numel() < 2 or parameter.amin() != parameter.amax():
                continue
            sign = torch.where(_uniform(parameter, 0, 1, generator) < 0.5, -1.0, 1.0)
            with torch.no_grad():
                parameter.copy_(_uniform(parameter, 0.3, 1.0, generator) * sign)
            names.append(f"{module_name}.{name}" if module_name else name)
    return names


def _uniform(like: torch.Tensor, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(like.shape, generator=generator, dtype=torch.float64) * (high - low) + low).to(like)


def _set_statistics(norm: Any, value: torch.Tensor, generator: torch.Generator) -> None:
    others = [dimension for dimension in range(value.dim()) if dimension != 1]
    mean = value.double().mean(others)
    variance = value.double().var(others, unbiased=False)
    # A channel that does not vary on this batch still needs a variance of the size of the others, and a deviation that its mean does not
    # drown: docs/checking.md tells what becomes of rounding then.
    variance = variance.clamp_min(float(variance.mean()) * 1e-2 + float(mean.square().mean()) * 1e-2 + 1e-6)
    norm.running_mean.copy_(mean * _uniform(mean, 0, 1, generator))
    norm.running_var.copy_(variance * _uniform(variance, 0.5, 2.0, generator))


def _set_affine(norm: Any, generator: torch.Generator, gammas: float) -> None:
    # Larger gammas make a random deep network chaotic: then eager itself is off by more than 1e-5 in float.
    gamma = _uniform(norm.weight, 0.25, 0.75, generator) * gammas
    sign = torch.where(_uniform(gamma, 0, 1, generator) < 0.3, -1.0, 1.0)
    zero = _uniform(gamma, 0, 1, generator) < ZERO_GAMMAS
    norm.weight.copy_((gamma * sign).masked_fill(zero, 0))
    norm.bias.copy_(_uniform(norm.bias, -1, 1, generator))


def tensors_of(output: Any) -> list[torch.Tensor]:
    """The tensors of an output, from inside tuples, lists and dicts."""
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return [tensor for value in output for tensor in tensors_of(value)]
    return []


def relative_error(expected: Any, actual: Any) -> float:
    """The largest max |expected - actual| / max |expected| over the tensors of two outputs."""
    pairs = list(zip(tensors_of(expected), tensors_of(actual)))
    assert len(pairs) == len(tensors_of(expected)) == len(tensors_of(actual)) > 0
    errors = []
    for one, other in pairs:
        assert one.shape == other.shape
        difference = (one.double() - other.double()).abs().max()
        errors.append(float(difference / one.double().abs().max()))
    return max(errors)
