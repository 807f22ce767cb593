"""Compares a folded module with its original on given inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch

from ._errors import Error, raised_as
from ._library import ops
from ._modules import raw, require_script_module


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """True where every output agrees."""

    passed: bool  #: every output is within the tolerance
    largest_error: float  #: max |original - folded| / max |original| of the worst output tensor
    tolerance: float  #: the one that belongs to the worst output's dtype, or what the rounding of the original allows
    worst_output: str  #: where the largest error was: "output", "output[1]", "output['out']"

    def __bool__(self) -> bool:
        return self.passed


def check(
    original: torch.jit.ScriptModule, folded: torch.jit.ScriptModule, inputs: Iterable[tuple[Any, ...]]
) -> CheckResult:
    """Runs both modules on each tuple of arguments of forward and compares every tensor in what they return.

    Outputs may be tensors of any shape, nested in tuples, lists and dicts. Inputs are cloned for each run; random operators see the
    same generator state in both modules. NaN equals NaN.

    Raises TypeError where a module is no ScriptModule or the inputs are no tuples, ValueError where there are none, and Error where a
    module can't run on them.
    """
    require_script_module(original, "original")
    require_script_module(folded, "folded")
    if isinstance(inputs, torch.Tensor):
        raise TypeError("inputs must be a list of tuples of arguments, not a tensor; pass [(tensor,)]")
    tuples = tuple(inputs)
    if not tuples:
        raise ValueError("there are no inputs to compare on")
    for arguments in tuples:
        if not isinstance(arguments, tuple):
            raise TypeError(f"inputs must be a list of tuples of arguments; it has a {type(arguments).__name__}")
    with raised_as(Error):
        return CheckResult(*ops.check(raw(original), raw(folded), tuples))
