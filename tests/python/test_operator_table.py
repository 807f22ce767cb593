"""Every row of the operator table holds for the real operator, on PyTorch's own samples."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils import _pytree as pytree

ROOT = Path(__file__).resolve().parents[2]
DTYPES = (torch.float32, torch.float64, torch.int64)
SAMPLES = 8  # of each operator and dtype


class Row(NamedTuple):
    overload: str
    shape: str
    dtype: str
    storage: str
    in_place: bool


def rows() -> list[Row]:
    source = ROOT.joinpath("passes", "graph", "operator_table.cpp").read_text()
    found = []
    for shape, dtype, storage, in_place, names in re.findall(
        r"\{\{Shape::(\w+), Dtype::(\w+), Storage::(\w+), Order::\w+(, /\*in_place=\*/true)?\},\s*\{([^}]+)\}\}", source
    ):
        found += [Row(name, shape, dtype, storage, bool(in_place)) for name in re.findall(r'"([\w:.]+)"', names)]
    return found


ROWS = rows()


def test_the_rows_are_read_from_the_source():
    # What follows reads the source; an expression that finds nothing would prove nothing.
    names = [row.overload for row in ROWS]
    assert len(names) > 250 and {"relu", "add.Tensor", "cat"} <= set(names)
    assert len(names) == len(set(names))


def overload_of(row: Row):
    namespace, _, name = row.overload.rpartition("::")
    operator, _, overload = name.partition(".")
    try:
        return getattr(getattr(getattr(torch.ops, namespace or "aten"), operator), overload or "default")
    except AttributeError:
        return None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.overload)
def test_every_row_names_an_operator_that_writes_nothing_unless_it_says_so(row):
    operator = overload_of(row)
    if operator is None:
        pytest.skip("this torch does not have it")
    written = [argument.name for argument in operator._schema.arguments if argument.alias_info and argument.alias_info.is_write]
    assert bool(written) == row.in_place


def samples(row: Row):
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ImportError:
        pytest.skip("this torch has no samples")
    name = row.overload.rpartition("::")[2].partition(".")[0]
    for info in op_db:
        if name not in (info.name.rpartition(".")[2], info.aten_name):
            continue
        for dtype in DTYPES:
            if dtype not in info.dtypes:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for index, sample in enumerate(info.sample_inputs("cpu", dtype)):
                    if index == SAMPLES:
                        break
                    yield (sample.input, *sample.args), sample.kwargs


def tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def expected_shape(row: Row, arguments: tuple, inputs: list[torch.Tensor]):
    if row.shape == "same":
        return inputs[0].shape
    if row.shape == "broadcast":
        return torch.broadcast_shapes(*(tensor.shape for tensor in inputs))
    if row.shape == "like":
        return arguments[1].shape
    return None


def expected_dtype(row: Row, arguments: tuple, inputs: list[torch.Tensor]):
    first = inputs[0].dtype
    if row.dtype == "same" or (row.dtype == "floating" and first.is_floating_point):
        return first
    if row.dtype == "layer":
        return first
    if row.dtype == "parts":
        result = inputs[0]
        for tensor in inputs[1:]:
            result = torch.empty((), dtype=torch.promote_types(result.dtype, tensor.dtype))
        return result.dtype
    operands = [leaf for leaf in arguments if isinstance(leaf, (torch.Tensor, int, float, complex, bool))]
    if row.dtype in ("promoted", "quotient") and len(operands) >= 2 and all(tensor.dtype == first for tensor in inputs):
        result = torch.result_type(operands[0], operands[1])
        return result if row.dtype == "promoted" or result.is_floating_point else None
    return None


def require_that_it_holds(row: Row) -> None:
    operator = overload_of(row)
    for arguments, keywords in samples(row):
        inputs = tensors((arguments, keywords))
        try:
            result = operator(*arguments, **keywords)
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
            continue  # a sample of another overload
        outputs = tensors(result)
        if not outputs or not inputs:
            continue
        said = f"{row} on {arguments} {keywords}"
        shared = [tensor for tensor in inputs if any(out.untyped_storage()._cdata == tensor.untyped_storage()._cdata for out in outputs)]
        if row.storage == "fresh":
            assert not shared, said
        elif row.storage == "view":
            assert all(tensor.untyped_storage()._cdata == inputs[0].untyped_storage()._cdata for tensor in shared), said
        shape, dtype = expected_shape(row, arguments, inputs), expected_dtype(row, arguments, inputs)
        assert shape is None or outputs[0].shape == shape, said
        assert dtype is None or outputs[0].dtype == dtype, said


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.overload)
def test_every_row_holds_on_the_samples_of_pytorch(row):
    if overload_of(row) is None:
        pytest.skip("this torch does not have it")
    require_that_it_holds(row)


WRONG_ROWS = (
    Row("reshape", "unknown", "unknown", "fresh", False),
    Row("sum.dim_IntList", "same", "unknown", "fresh", False),
    Row("sigmoid", "same", "same", "fresh", False),
    Row("mul.Tensor", "same", "unknown", "fresh", False),
)


@pytest.mark.parametrize("row", WRONG_ROWS, ids=lambda row: row.overload)
def test_a_row_that_is_wrong_does_not_hold(row):
    with pytest.raises(AssertionError):
        require_that_it_holds(row)
