"""torch.jit.freeze with every fold before it."""

from __future__ import annotations

import warnings
import weakref
from typing import Optional

import torch

from ._errors import Error
from ._fold import fold
from ._modules import without_deprecation_warnings
from ._report import Report

_reports: weakref.WeakKeyDictionary[torch.jit.ScriptModule, Report] = weakref.WeakKeyDictionary()


def freeze(mod: torch.jit.ScriptModule, preserved_attrs: Optional[list[str]] = None, optimize_numerics: bool = True) -> torch.jit.ScriptModule:
    """``torch.jit.freeze`` with every fold before it: takes the same arguments, raises the same errors, returns the frozen module.

    :func:`report_of` gives the report of the folds. A module that can be frozen and not folded is frozen all the same, with a warning
    that says why.
    """
    folded, report, obstacle = mod, None, None
    if isinstance(mod, torch.jit.ScriptModule) and not mod.training:
        try:
            result = fold(mod, preserved_attributes=["forward", *(preserved_attrs or [])])
            folded, report = result.module, result.report
        except Error as error:
            obstacle = error
    with without_deprecation_warnings():
        frozen = torch.jit.freeze(folded, preserved_attrs, optimize_numerics)
    if obstacle is not None:
        warnings.warn(f"frozen without folding: {obstacle}", stacklevel=2)
    if report is not None:
        _reports[frozen] = report
    return frozen


def report_of(frozen: torch.jit.ScriptModule) -> Report:
    """What :func:`freeze` folded in a module that it returned. Raises KeyError for another module, or where nothing could be folded."""
    if frozen not in _reports:
        raise KeyError("bnfold.freeze did not return this module, or could not fold it")
    return _reports[frozen]
