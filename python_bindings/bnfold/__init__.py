"""bnfold removes batch normalization from TorchScript modules, exactly.

    >>> import bnfold
    >>> result = bnfold.fold("model.pt")
    >>> print(result.report)
    >>> result.module.save("folded.pt")

The folded module is plain ATen: it loads and runs where bnfold is not installed.
"""

from ._check import CheckResult, check
from ._cuda_graph_runner import CudaGraphRunner
from ._errors import Error, LoadError, SaveError
from ._exported import ExportedFoldResult
from ._files import extra_files_of, load, save
from ._fold import FoldOptions, FoldResult, fold
from ._freeze import freeze, report_of
from ._library import ops as _ops
from ._optimize import FusedLayer, Fusions, UnfusedStep, fusions_of, optimize_for_inference
from ._pass import pass_is_registered, register_pass, registered_pass, unregister_pass
from ._report import FoldedNorm, KeptNorm, MergedConv, Obstacle, Report

__version__: str = _ops.version()

__all__ = [
    "CheckResult",
    "CudaGraphRunner",
    "Error",
    "ExportedFoldResult",
    "FoldOptions",
    "FoldResult",
    "FoldedNorm",
    "FusedLayer",
    "Fusions",
    "KeptNorm",
    "Obstacle",
    "LoadError",
    "MergedConv",
    "Report",
    "SaveError",
    "UnfusedStep",
    "check",
    "extra_files_of",
    "fold",
    "freeze",
    "fusions_of",
    "load",
    "optimize_for_inference",
    "pass_is_registered",
    "register_pass",
    "registered_pass",
    "report_of",
    "save",
    "unregister_pass",
]
