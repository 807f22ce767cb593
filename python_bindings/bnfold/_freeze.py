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
        frozen = torch.jit.freeze(folded, preserved_attrs, optimize_numerics and report is None)
    if obstacle is not None:
        warnings.warn(f"frozen without folding: {obstacle}", stacklevel=2)
    if report is not None:
        remember(frozen, report)
        if optimize_numerics:
            _fold_sums_and_products(frozen, ["forward", *(preserved_attrs or [])])
    return frozen


def _fold_sums_and_products(frozen: torch.jit.ScriptModule, names: list[str]) -> None:
    """What torch.jit.freeze does to numbers but for its folds of norms: those that bnfold keeps it takes into a layer all the same, whether
    they train or not, and into a linear layer along whatever dimension.
    """
    for name in filter(frozen._c._has_method, names):
        graph = frozen._c._get_method(name).graph
        while torch._C._jit_pass_fold_frozen_conv_add_or_sub(graph) or torch._C._jit_pass_fold_frozen_conv_mul_or_div(graph):
            pass


def remember(frozen: torch.jit.ScriptModule, report: Report) -> None:
    _reports[frozen] = report


def report_of(frozen: torch.jit.ScriptModule) -> Report:
    """What :func:`freeze` or :func:`optimize_for_inference` folded in a module that it returned.

    Raises KeyError for another module, or where nothing could be folded.
    """
    if frozen not in _reports:
        raise KeyError("neither bnfold.freeze nor bnfold.optimize_for_inference returned this module, or it could not be folded")
    return _reports[frozen]
