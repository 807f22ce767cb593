"""ScriptModules as the operators take and return them."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any, Union

import torch

from ._errors import Error
from ._files import load

ModuleLike = Union[torch.nn.Module, str, "os.PathLike[str]"]


def script_module_from(module: ModuleLike, map_location: Union[str, torch.device, None] = None) -> torch.jit.ScriptModule:
    """A ScriptModule as it is, the one in a file, loaded onto ``map_location``, or an nn.Module scripted.

    Raises TypeError where ``module`` is none of these, LoadError where the file can't be loaded, and Error where the nn.Module is in
    training mode or can't be scripted.
    """
    if isinstance(module, (str, os.PathLike)):
        return load(module, map_location)
    if map_location is not None:
        raise TypeError("map_location is for the path of a file; move a module with .to(device)")
    if isinstance(module, torch.jit.ScriptModule):
        return module
    if isinstance(module, torch.nn.Module):
        return _scripted(module)
    raise TypeError(f"module must be a ScriptModule, the path of a TorchScript file or an nn.Module, not {_described(module)}")


def require_script_module(module: Any, argument: str) -> torch.jit.ScriptModule:
    if not isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"{argument} must be a ScriptModule, not {_described(module)}")
    return module


def raw(module: torch.jit.ScriptModule) -> Any:
    """The C++ module behind a ScriptModule; every torch from 1.13 on hands it to an operator."""
    return module._c


@contextlib.contextmanager
def plain_mode() -> Iterator[None]:
    """Without gradients, and outside of autocast and inference mode, whatever the caller is in."""
    with contextlib.ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.no_grad())
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            modes.enter_context(torch.autocast(device, enabled=False))
        yield


@contextlib.contextmanager
def without_deprecation_warnings() -> Iterator[None]:
    """For calls of torch.jit that the user did not make, so that their deprecation is not theirs to act on."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=category)
        yield


def _described(value: object) -> str:
    name = type(value).__name__
    if isinstance(value, dict):
        return f"{name}; build the model and load this state_dict into it first"
    return f"{name}; call the function in forward of an nn.Module" if isinstance(value, torch.jit.ScriptFunction) else name


def _scripted(module: torch.nn.Module) -> torch.jit.ScriptModule:
    if module.training:
        raise Error("the module is in training mode; call .eval() on it before folding")
    try:
        with without_deprecation_warnings():
            return torch.jit.script(module)
    except Exception as error:
        raise Error(
            f"torch.jit.script can't compile {type(module).__name__}; trace it instead, with torch.jit.trace(module, example_inputs), "
            "and fold the result"
        ) from error
