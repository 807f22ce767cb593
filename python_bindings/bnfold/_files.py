"""TorchScript files, with errors that a program can act on."""

from __future__ import annotations

import os
from typing import Union

import torch

from ._errors import LoadError, SaveError, raised_as
from ._library import ops

PathLike = Union[str, "os.PathLike[str]"]


def load(path: PathLike) -> torch.jit.ScriptModule:
    """Loads a module that torch.jit.save wrote, onto the devices it was saved from.

    Compares every checksum of the file, which torch.jit.load does not. Raises LoadError.
    """
    with raised_as(LoadError):
        module = ops.load(os.fsencode(path))
    return wrapped(module)


def save(module: torch.jit.ScriptModule, path: PathLike) -> None:
    """Writes ``module`` beside ``path`` and renames it, so ``path`` holds the old file or the whole new one. Raises SaveError."""
    if not isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"module must be a ScriptModule, not {type(module).__name__}")
    with raised_as(SaveError):
        ops.save(module._c, os.fsencode(path))


def wrapped(module: object) -> torch.jit.ScriptModule:
    """The Python ScriptModule of a module that an operator returned."""
    if isinstance(module, torch.jit.ScriptModule):
        return module
    return torch.jit._recursive.wrap_cpp_module(module)
