"""Programs of torch.export."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import os
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

import torch

from ._check import CheckResult
from ._errors import Error, LoadError, raised_as
from ._library import ops
from ._modules import plain_mode, without_deprecation_warnings
from ._report import Report
from ._written import written_tensors

if TYPE_CHECKING:
    from torch.export import ExportedProgram


@dataclasses.dataclass(frozen=True)
class ExportedFoldResult:
    program: ExportedProgram
    report: Report
    check: Optional[CheckResult]  #: the comparison on the example inputs, None without them


def is_program(module: Any) -> bool:
    return hasattr(torch, "export") and isinstance(module, torch.export.ExportedProgram)


def program_in(path: Union[str, os.PathLike[str]]) -> Optional[ExportedProgram]:
    """The program in a .pt2 file, None where it is another file. Raises LoadError where it can't be loaded."""
    with raised_as(LoadError):
        if not ops.is_exported_file(os.fsencode(path)):
            return None
    try:
        with open(path, "rb") as file:
            return torch.export.load(file)
    except Exception as error:
        if not torch.cuda.is_available() and _is_from_a_gpu(path):
            why = "was exported on a GPU, and there is none; the program bnfold folds it without one"
        else:
            why = f"torch.export can't load it: {_first_line(error)}"
        raise LoadError(f"{os.fsdecode(path)}: {why}") from error


def _is_from_a_gpu(path: Union[str, os.PathLike[str]]) -> bool:
    with zipfile.ZipFile(os.fsdecode(path)) as archive:
        tables = [archive.read(name) for name in archive.namelist() if name.endswith("_config.json")]
    return any(b'"cuda"' in table for table in tables)


def fold_program(program: ExportedProgram, options: str) -> tuple[ExportedProgram, Report]:
    from torch._export.serde import schema
    from torch._export.serde.serialize import ExportedProgramDeserializer, _bytes_to_dataclass

    tensors = {name: value for name, value in {**program.constants, **program.state_dict}.items() if _is_plain(value)}
    with raised_as(Error):
        text, folded, report = ops.fold_exported(_json_of(program), tensors, options)
    serialized = _bytes_to_dataclass(schema.ExportedProgram, text.encode())
    state, constants = _state_of(serialized, program, dict(folded))
    result = ExportedProgramDeserializer().deserialize(serialized, state, constants, program.example_inputs)
    return result, Report.from_json(report)


def _json_of(program: ExportedProgram) -> str:
    """The program as a .pt2 file has it, without its tensors where torch knows how to leave them out."""
    from torch._export.serde.serialize import serialize

    known = inspect.signature(serialize).parameters
    left_out = {name: False for name in ("serialize_state_dict", "serialize_constants") if name in known}
    try:
        return serialize(program, **left_out).exported_program.decode()
    except Exception as error:
        raise Error(f"torch.export can't serialize this program: {_first_line(error)}") from error


class _Outputs(torch.nn.Module):
    """Returns what a program returned, so that it is compared as the outputs of modules are."""

    def __init__(self, values: list[torch.Tensor]):
        super().__init__()
        self.values = values

    def forward(self) -> list[torch.Tensor]:
        return self.values


def outputs_of(program: ExportedProgram, arguments: tuple[Any, ...]) -> torch.jit.ScriptModule:
    """A module that returns the tensors that the program makes of these arguments."""
    with plain_mode():
        try:
            with _restored(program):
                outputs = copy.deepcopy(program.module()(*copy.deepcopy(arguments)))
        except Exception as error:
            raise Error(f"the program can't run on the given input: {_first_line(error)}") from error
    values = [value for value in torch.utils._pytree.tree_leaves(outputs) if isinstance(value, torch.Tensor)]
    with without_deprecation_warnings():
        return torch.jit.script(_Outputs(values))


@contextlib.contextmanager
def _restored(program: ExportedProgram) -> Iterator[None]:
    """What a run writes, as a norm that trains or a counter, is taken back: the module of a program has its tensors."""
    written = written_tensors(program)
    tensors = {name: value for name, value in {**program.constants, **program.state_dict}.items() if _is_plain(value)}
    before = [
        (value, value.detach().clone()) for name, value in tensors.items() if name in written or not isinstance(value, torch.nn.Parameter)
    ]
    try:
        yield
    finally:
        for value, content in before:
            if not torch.equal(value, content):
                value.detach().copy_(content)


def _is_plain(value: Any) -> bool:
    """Whether its elements can be read; those of a tensor subclass may be made up as it runs."""
    return type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided and not value.is_meta


def _state_of(serialized: Any, program: ExportedProgram, folded: dict[str, torch.Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state and the constants of the folded program; what did not change is what it was."""
    old = {**program.constants, **program.state_dict}
    copies = _copies_of_what_is_written(program, old)
    was_read = {spec.target for spec in program.graph_signature.input_specs if spec.target is not None}
    state = {name: value for name, value in program.state_dict.items() if name not in was_read}
    constants = {name: value for name, value in program.constants.items() if name not in was_read or not isinstance(value, torch.Tensor)}
    for spec in serialized.graph_module.signature.input_specs:
        if spec.type not in ("parameter", "buffer", "tensor_constant"):
            continue
        name = getattr(spec.value, f"{spec.type}_name")
        value = old.get(name)
        new = folded.get(name)
        if new is not None and (value is None or not _is_same(value, new)):
            value = torch.nn.Parameter(new.detach(), new.requires_grad) if spec.type == "parameter" else new.detach()
        else:
            value = copies.get(name, value)
        lasts = spec.type == "parameter" or (spec.type == "buffer" and spec.value.persistent)
        (state if lasts else constants)[name] = value
    order = {name: place for place, name in enumerate(program.state_dict)}
    return dict(sorted(state.items(), key=lambda item: order.get(item[0], len(order)))), constants


def _copies_of_what_is_written(program: ExportedProgram, old: dict[str, Any]) -> dict[str, Any]:
    """Buffers, and what else a run writes, which both programs may do. What lies in one memory does so afterwards, and what lies in the memory of a parameter
    that nobody writes stays there."""
    written = written_tensors(program)
    plain = {name: value for name, value in old.items() if _is_plain(value)}
    parameters = {name for name in program.graph_signature.parameters if name in plain}
    storage = {name: value.untyped_storage().data_ptr() for name, value in plain.items()}
    changing = {storage[name] for name in written if name in plain}
    fixed = {storage[name] for name in parameters} - changing
    chosen = [name for name in plain if storage[name] in changing or (name in program.graph_signature.buffers and storage[name] not in fixed)]
    return copy.deepcopy({name: plain[name] for name in chosen})


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride())


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
