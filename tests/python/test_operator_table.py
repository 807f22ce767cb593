"""Every row of the operator table holds for the real operator, on PyTorch's own samples."""

from __future__ import annotations

import itertools
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils import _pytree as pytree

ROOT = Path(__file__).resolve().parents[2]
DTYPES = (torch.float32, torch.float64, torch.int32, torch.int64, torch.bool)
ORDER_DTYPES = (torch.float32, torch.int64)
SAMPLES = 8  # of each operator and dtype


class Row(NamedTuple):
    overload: str
    shape: str
    dtype: str
    storage: str
    order: str
    in_place: bool


def rows() -> list[Row]:
    source = ROOT.joinpath("passes", "graph", "operator_table.cpp").read_text()
    found = []
    for shape, dtype, storage, order, in_place, names in re.findall(
        r"\{\{Shape::(\w+), Dtype::(\w+), Storage::(\w+), Order::(\w+)(, /\*in_place=\*/true)?\},\s*\{([^}]+)\}\}", source
    ):
        found += [Row(name, shape, dtype, storage, order, bool(in_place)) for name in re.findall(r'"([\w:.]+)"', names)]
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


def samples(row: Row, dtypes: tuple[torch.dtype, ...] = DTYPES):
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ImportError:
        pytest.skip("this torch has no samples")
    name = row.overload.rpartition("::")[2].partition(".")[0]
    if row.in_place:
        name = name.removesuffix("_")
    for info in op_db:
        if name not in (info.name.rpartition(".")[2], info.aten_name):
            continue
        for dtype in dtypes:
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
    if row.shape in ("same", "sequences"):
        return inputs[0].shape
    if row.shape == "broadcast":
        return torch.broadcast_shapes(*(tensor.shape for tensor in inputs))
    if row.shape == "like":
        return arguments[1].shape
    if row.shape == "gathered":
        return arguments[2].shape
    if row.shape == "given":
        return torch.Size(arguments[0])
    if row.shape == "attention":
        return (*inputs[0].shape[:-1], inputs[2].shape[-1])
    if row.shape == "linear":
        return (*inputs[0].shape[:-1], *inputs[1].shape[:-1])
    if row.shape in ("product", "matrix", "matrices"):
        one, other = inputs[-2:]
        if one.dim() >= 2 and other.dim() >= 2:
            return (*torch.broadcast_shapes(one.shape[:-2], other.shape[:-2]), one.shape[-2], other.shape[-1])
    if row.shape == "repeated":
        times = arguments[1]
        shape = (1,) * (len(times) - inputs[0].dim()) + inputs[0].shape
        return tuple(size * often for size, often in zip(shape, times))
    return None


def expected_rank(row: Row, inputs: list[torch.Tensor]):
    differences = {"adapted": 0, "bordered": 0, "channels": 0, "cut": 0, "padded": 0, "permuted": 0, "pieces": 0, "shuffled": 0}
    differences |= {"transposed": 0, "unshuffled": 0, "selected": -1, "unbound": -1, "unsqueezed": 1, "stacked": 1, "resized": 0}
    differences |= {"windowed": 1, "diagonal": -1}
    return inputs[0].dim() + differences[row.shape] if row.shape in differences else None


def stated_dtype(arguments: tuple, keywords: dict):
    dtypes = [leaf for leaf in (*pytree.tree_leaves(arguments), *keywords.values()) if isinstance(leaf, torch.dtype)]
    return dtypes[0] if dtypes else None


def expected_dtype(row: Row, arguments: tuple, keywords: dict, inputs: list[torch.Tensor]):
    first = inputs[0].dtype
    if row.dtype in ("stated", "summed", "averaged") and stated_dtype(arguments, keywords) is not None:
        return stated_dtype(arguments, keywords)
    if row.dtype in ("same", "layer", "stated", "averaged") or (row.dtype in ("floating", "inexact", "summed") and first.is_floating_point):
        return first
    if row.dtype == "inexact":
        return torch.get_default_dtype()
    if row.dtype == "like":
        return arguments[1].dtype
    if row.dtype == "chosen":
        return torch.result_type(arguments[1], arguments[2])
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
        if row.in_place:
            arguments = pytree.tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf, arguments)
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
        shape, dtype = expected_shape(row, arguments, inputs), expected_dtype(row, arguments, keywords, inputs)
        rank = expected_rank(row, inputs)
        assert shape is None or outputs[0].shape == shape, said
        assert rank is None or outputs[0].dim() == rank, said
        assert row.order != "contiguous" or outputs[0].is_contiguous(), said
        assert dtype is None or outputs[0].dtype == dtype, said


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.overload)
def test_every_row_holds_on_the_samples_of_pytorch(row):
    if overload_of(row) is None:
        pytest.skip("this torch does not have it")
    require_that_it_holds(row)


def relaid(value: Any, shape: torch.Size, order: tuple[int, ...]) -> Any:
    """The tensors of that shape, with dimension order[i] in place i of memory."""
    inverse = [order.index(dimension) for dimension in range(len(order))]

    def relay(leaf: Any) -> Any:
        lies_otherwise = isinstance(leaf, torch.Tensor) and leaf.shape == shape
        return leaf.detach().permute(order).clone(memory_format=torch.contiguous_format).permute(inverse) if lies_otherwise else leaf

    return pytree.tree_map(relay, value)


def is_in_a_memory_format(value: torch.Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return value.is_contiguous() or (value.dim() in formats and value.is_contiguous(memory_format=formats[value.dim()]))


def require_that_its_order_holds(row: Row) -> None:
    operator = overload_of(row)
    of_one_tensor = ((torch.rand(3, 4, 5),), {})  # PyTorch has no samples under the names of some
    for arguments, keywords in itertools.chain([of_one_tensor], samples(row, ORDER_DTYPES)):
        found = tensors((arguments, keywords))
        if keywords.get("memory_format") is not None or any(tensor.layout != torch.strided for tensor in found):
            continue
        shape = found[0].shape if found else ()
        orders = list(itertools.permutations(range(len(shape)))) if 2 <= len(shape) <= 4 else []
        for order in orders:
            arguments, keywords = relaid((arguments, keywords), shape, order)
            try:
                output = tensors(operator(*arguments, **keywords))[0]
            except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
                continue  # a sample of another overload
            said = f"{row} on {arguments} {keywords} in the order {order}"
            assert row.order != "contiguous" or output.is_contiguous(), said
            assert row.order != "followed" or is_in_a_memory_format(output), said
            same = row.shape in ("same", "broadcast") and all(tensor.shape in (shape, ()) for tensor in found)
            assert row.order != "kept" or not same or output.permute(order).is_contiguous(), said


@pytest.mark.parametrize("row", [row for row in ROWS if not row.in_place], ids=lambda row: row.overload)
def test_the_order_in_memory_of_every_row_holds_whatever_that_of_its_input_is(row):
    if overload_of(row) is None:
        pytest.skip("this torch does not have it")
    require_that_its_order_holds(row)


WRONG_ROWS = (
    Row("reshape", "unknown", "unknown", "fresh", "unknown", False),
    Row("sum.dim_IntList", "same", "unknown", "fresh", "unknown", False),
    Row("sigmoid", "same", "same", "fresh", "unknown", False),
    Row("mul.Tensor", "same", "unknown", "fresh", "unknown", False),
    Row("cumsum", "same", "same", "fresh", "unknown", False),
    Row("abs", "same", "inexact", "fresh", "unknown", False),
    Row("select.int", "cut", "same", "view", "unknown", False),
    Row("transpose.int", "transposed", "same", "view", "contiguous", False),
)


@pytest.mark.parametrize("row", WRONG_ROWS, ids=lambda row: row.overload)
def test_a_row_that_is_wrong_does_not_hold(row):
    with pytest.raises(AssertionError):
        require_that_it_holds(row)
