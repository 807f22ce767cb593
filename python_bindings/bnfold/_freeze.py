"""torch.jit.freeze with every fold before it."""

from __future__ import annotations

import warnings
import weakref
from typing import Optional

import torch

from ._errors import Error, raised_as
from ._files import extra_files_of, remember_extra_files, wrapped
from ._library import ops
from ._modules import plain_mode, raw, without_deprecation_warnings
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
            with raised_as(Error):
                raw_module, text = ops.fold_before_freezing(raw(mod), ["forward", *(preserved_attrs or [])])
            folded, report = wrapped(raw_module), Report.from_json(text)
        except Error as error:
            obstacle = error
    with plain_mode(), without_deprecation_warnings():
        frozen = torch.jit.freeze(folded, preserved_attrs, optimize_numerics and report is None)
    remember_extra_files(frozen, extra_files_of(mod))
    if obstacle is not None:
        warnings.warn(f"frozen without folding: {obstacle}", stacklevel=2)
    if report is not None:
        remember(frozen, report)
        if optimize_numerics:
            ops.fold_sums_and_products(raw(frozen), [name for name in ("forward", *(preserved_attrs or [])) if raw(frozen)._has_method(name)])
    return frozen


def remember(frozen: torch.jit.ScriptModule, report: Report) -> None:
    _reports[frozen] = report


def report_of(frozen: torch.jit.ScriptModule) -> Report:
    """What :func:`freeze` or :func:`optimize_for_inference` folded in a module that it returned.

    Raises KeyError for another module, or where nothing could be folded.
    """
    if frozen not in _reports:
        raise KeyError("neither bnfold.freeze nor bnfold.optimize_for_inference returned this module, or it could not be folded")
    return _reports[frozen]
