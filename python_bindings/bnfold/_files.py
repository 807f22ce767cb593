"""TorchScript files, with errors that a program can act on."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Mapping
from typing import Any, Optional, Union

import torch

from ._errors import LoadError, SaveError, raised_as
from ._library import load_onednn, ops

PathLike = Union[str, "os.PathLike[str]"]


# What a file held beside the module, for as long as the module lives.
_extra_files: weakref.WeakKeyDictionary[torch.jit.ScriptModule, dict[str, bytes]] = weakref.WeakKeyDictionary()


def load(path: PathLike, map_location: Union[str, torch.device, None] = None) -> torch.jit.ScriptModule:
    """Loads a module that torch.jit.save wrote, onto ``map_location``, as in ``"cpu"``, or else onto the devices it was saved from.

    Compares every checksum of the file, which torch.jit.load does not. :func:`extra_files_of` tells what was saved beside the module as
    ``_extra_files``; :func:`save` writes it again, of what :func:`fold` returns for this module too. Raises LoadError, and ImportError for a
    module with networks of oneDNN's primitives, where their library is not there.
    """
    try:
        module, files = _loaded(path, map_location)
    except LoadError as error:
        if "bnfold.OneDnnSteps" not in str(error):
            raise
        load_onednn()
        module, files = _loaded(path, map_location)
    loaded = wrapped(module)
    remember_extra_files(loaded, {name: ctypes.string_at(content.data_ptr(), content.numel()) for name, content in files.items()})
    return loaded


def _loaded(path: PathLike, map_location: Union[str, torch.device, None]) -> tuple[Any, dict[str, torch.Tensor]]:
    with raised_as(LoadError):
        return ops.load_with_extra_files(os.fsencode(path), None if map_location is None else str(map_location))


def save(module: torch.jit.ScriptModule, path: PathLike, extra_files: Optional[Mapping[str, Union[str, bytes]]] = None) -> None:
    """Writes ``module`` beside ``path`` and renames it, so ``path`` holds the old file or the whole new one.

    ``extra_files`` are what ``_extra_files`` are for torch.jit.save; where they are not given, those of the file that the module comes from
    are written. Raises SaveError, and TypeError for arguments of another kind.
    """
    if not isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"module must be a ScriptModule, not {type(module).__name__}")
    files = extra_files_of(module) if extra_files is None else dict(extra_files)
    for name, content in files.items():
        if not isinstance(name, str) or not isinstance(content, (str, bytes)):
            raise TypeError(f"extra_files must be texts or bytes by name, not {type(content).__name__} by {name!r}")
    with raised_as(SaveError):
        ops.save_with_extra_files(module._c, os.fsencode(path), files)


def extra_files_of(module: torch.jit.ScriptModule) -> dict[str, bytes]:
    """What was saved as ``_extra_files`` beside the module that :func:`load` loaded, by name; of a module that was folded, beside the original.

    Empty for every other module.
    """
    return dict(_extra_files.get(module, {}))


def remember_extra_files(module: torch.jit.ScriptModule, files: dict[str, bytes]) -> None:
    if files:
        _extra_files[module] = files


def wrapped(module: object) -> torch.jit.ScriptModule:
    """The Python ScriptModule of a module that an operator returned."""
    if isinstance(module, torch.jit.ScriptModule):
        return module
    return torch.jit._recursive.wrap_cpp_module(module)
