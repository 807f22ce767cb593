"""The main call of the package."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, TypedDict, Union, overload

import torch

from ._check import CheckResult, check
from ._errors import Error, raised_as
from ._exported import ExportedFoldResult, fold_program, is_program, outputs_of, program_in
from ._files import PathLike, extra_files_of, remember_extra_files, wrapped
from ._library import ops
from ._modules import raw, script_module_from
from ._report import Report

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from typing_extensions import Unpack


class FoldOptions(TypedDict, total=False):
    """The options of :func:`fold`."""

    preserved_attributes: Sequence[str]
    """Methods and attributes to keep beside forward. Empty: every method that no other method of the module calls."""

    input_ranks: Sequence[Optional[int]]
    """The rank of each argument of forward, None where it is open or no tensor. Example inputs give them too."""

    target: str
    """What is to run the folded module, or convert it for that: "libtorch" (where it is not given), "onnxruntime", "openvino", "ncnn", "coreml" or
    "quantization". A norm that is cheaper there than what its fold would add is kept, and nothing is left to be checked as the module runs,
    which conversions lose: a fold that would need it wants ``example_inputs``. See docs/consumers.md."""

    fold_limit: int
    """For developers: fold so many norms and scales at most, to find the fold that goes wrong."""


@dataclasses.dataclass(frozen=True)
class FoldResult:
    module: torch.jit.ScriptModule
    report: Report
    check: Optional[CheckResult]  #: the comparison on the example inputs, None without them


@overload
def fold(module: ExportedProgram, example_inputs: Any = None, **options: Unpack[FoldOptions]) -> ExportedFoldResult: ...


@overload
def fold(
    module: torch.nn.Module, example_inputs: Any = None, *, map_location: Union[str, torch.device, None] = None, **options: Unpack[FoldOptions]
) -> FoldResult: ...


@overload
def fold(
    module: PathLike, example_inputs: Any = None, *, map_location: Union[str, torch.device, None] = None, **options: Unpack[FoldOptions]
) -> Any: ...


def fold(
    module: Any, example_inputs: Any = None, *, map_location: Union[str, torch.device, None] = None, **options: Unpack[FoldOptions]
) -> Any:
    """Folds every batch norm of ``module`` that can be folded exactly, and says of every other one why it was kept.

    ``module``: a ScriptModule, the path of one, or an nn.Module, which is scripted first; in eval mode. It stays as it was. Or a program
    that torch.export made, or the path of one: what comes back is an :class:`ExportedFoldResult`, with a ``program`` in the place of the
    ``module``. A program tells its ranks itself, and keeps its signature and its dynamic shapes.

    ``example_inputs``: a tensor, or a tuple of the arguments of forward. The folded module is compared with the original on them, and
    a run on them tells the rank of each value, and with it which dimension a norm behind a linear layer works along: folded for [N, C] they
    may differ from those for [N, L, C]. Without them, a folded module that depends on a rank nothing proves checks it, and raises torch.jit.Error for another one.

    ``map_location``: the device that a file is loaded onto, as in ``"cpu"``; where it is not given, those that it was saved from.

    ``options``: see :class:`FoldOptions`.

    The module that comes back keeps the names of the layers that stay. Parameters that did not change share their storage with those of
    ``module``, buffers are copied. :func:`save` writes beside it the ``_extra_files`` that were in the file of ``module``.

    Raises LoadError where the file can't be loaded, Error where the module is in training mode, can't be scripted or flattened, or the
    comparison fails, and TypeError for arguments of another kind.
    """
    settings = _checked(options)
    arguments = arguments_of(example_inputs)
    program = module if is_program(module) else program_in(module) if isinstance(module, (str, os.PathLike)) else None
    if program is not None:
        if map_location is not None:
            raise TypeError("map_location is for TorchScript files; move a program with torch.export.passes.move_to_device_pass")
        return _folded_program(program, arguments, json.dumps(settings))
    if arguments is not None and "input_ranks" in settings:
        raise TypeError("give either example_inputs or input_ranks; example inputs have ranks")
    original = script_module_from(module, map_location)
    with raised_as(Error):
        raw_module, report = ops.fold_on_inputs(raw(original), json.dumps(settings), arguments or ())
    folded = wrapped(raw_module)
    remember_extra_files(folded, extra_files_of(original))
    compared = None if arguments is None else _compared(original, folded, arguments)
    return FoldResult(folded, Report.from_json(report), compared)


def _folded_program(program: ExportedProgram, arguments: Optional[tuple[Any, ...]], settings: str) -> ExportedFoldResult:
    folded, report = fold_program(program, settings)
    if arguments is None:
        return ExportedFoldResult(folded, report, None)
    return ExportedFoldResult(folded, report, _compared(outputs_of(program, arguments), outputs_of(folded, arguments), ()))


def _checked(options: FoldOptions) -> dict[str, Any]:
    known = FoldOptions.__annotations__
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"there is no option '{name}'; the options are example_inputs, map_location, {', '.join(known)}")
        if name == "fold_limit":
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"fold_limit must be a whole number, not {type(value).__name__}")
        elif name == "target":
            if not isinstance(value, str):
                raise TypeError(f"target must be a name, not {type(value).__name__}")
        elif isinstance(value, str) or not isinstance(value, Sequence):
            raise TypeError(f"{name} must be a list, not {type(value).__name__}")
    return {name: value if isinstance(value, (int, str)) else list(value) for name, value in options.items()}  # type: ignore[call-overload]


def arguments_of(example_inputs: Any) -> Optional[tuple[Any, ...]]:
    if example_inputs is None or isinstance(example_inputs, tuple):
        return example_inputs
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,)
    raise TypeError(f"example_inputs must be a tensor or a tuple of the arguments of forward, not {type(example_inputs).__name__}")


def _compared(original: torch.jit.ScriptModule, folded: torch.jit.ScriptModule, arguments: tuple[Any, ...]) -> CheckResult:
    result = check(original, folded, [arguments])
    if not result.passed:
        raise Error(
            f"the folded module differs from the original on the example inputs: by {result.largest_error:.1e} of the largest value of "
            f"{result.worst_output}, where {result.tolerance:.0e} is the tolerance"
        )
    return result
