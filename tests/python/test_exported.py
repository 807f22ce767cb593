"""Programs of torch.export and their .pt2 files: what folds in them, what has a reason, what is kept, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
import torch
import torchvision
from calibrate import relative_error
from cases import EXACT, double, prepared
from test_files import (
    DAMAGED,
    NAMES,
    claiming_huge_records,
    fold_damaged,
    outcomes_in_a_process,
    public_directory,
    rewritten,
    without_gpu,
    without_privileges,
)
from torch import nn
from zoo import saved_and_loaded

import bnfold

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.export

BATCH = torch.export.Dim("batch", min=1)
Program = torch.export.ExportedProgram


def exported(model: nn.Module, inputs: tuple[Any, ...], dynamic: bool = True, decomposed: bool = False) -> Program:
    prepared(model, inputs)
    shapes = tuple({0: BATCH} if isinstance(value, torch.Tensor) else None for value in inputs)
    program = torch.export.export(model, inputs, dynamic_shapes=shapes if dynamic else None)
    return program.run_decompositions() if decomposed else program


def targets(program: Program) -> list[str]:
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def norms_left(program: Program) -> int:
    return sum("batch_norm" in target for target in targets(program))


def assert_equal(model: nn.Module, program: Program, *inputs: Any, error: float = EXACT) -> None:
    assert relative_error(model(*inputs), program.module()(*inputs)) <= error


def fold(model: nn.Module, *inputs: Any, dynamic: bool = True, decomposed: bool = False, error: float = EXACT) -> bnfold.ExportedFoldResult:
    """Exports and folds a model, and compares the result with eager, as it is and once it was saved and loaded."""
    program = exported(model, inputs, dynamic, decomposed)
    before = (str(program), {name: value.clone() for name, value in program.state_dict.items()})
    result = bnfold.fold(program)
    assert (str(program), list(program.state_dict)) == (before[0], list(before[1])), "the program that came in was changed"
    assert all(torch.equal(value, before[1][name]) for name, value in program.state_dict.items())
    for one in (result.program, saved_and_loaded(result.program)):
        assert_equal(model, one, *inputs, error=error)
    assert norms_left(result.program) <= len(result.report.kept)
    return result


def assert_all_folded(result: bnfold.ExportedFoldResult, count: int = 1) -> None:
    assert result.report.kept == ()
    assert len(result.report.folded) == count
    assert norms_left(result.program) == 0


def assert_kept(result: bnfold.ExportedFoldResult, reason: str) -> None:
    assert [norm.reason for norm in result.report.kept] == [reason]
    assert result.report.folded == ()


def conv_norm(channels: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))


# ---- networks


@pytest.mark.parametrize("name, norms, dynamic", [("resnet18", 20, True), ("resnet18", 20, False), ("mobilenet_v2", 52, True)])
def test_networks(name, norms, dynamic):
    model, side = network(name), 64
    x = double(2, 3, side, side)
    prepared(model, (x,))
    program = torch.export.export(model, (x,), dynamic_shapes=({0: BATCH},) if dynamic else None)
    result = bnfold.fold(program)
    assert_all_folded(result, norms)
    for batch in (1, 2, 5) if dynamic else (2,):
        assert_equal(model, result.program, double(batch, 3, side, side), error=1e-9)
    assert_equal(model, saved_and_loaded(result.program), x, error=1e-9)
    assert_equal(model, result.program.run_decompositions(), x, error=1e-9)
    assert relative_error(model(x), torch.export.unflatten(result.program)(x)) <= 1e-9


def network(name: str) -> nn.Module:
    return getattr(torchvision.models, name)(num_classes=10)


@pytest.mark.parametrize("name, norms", [("resnet18", 20), ("mobilenet_v2", 52)])
def test_decomposed_networks(name, norms):
    result = fold(network(name), double(2, 3, 64, 64), decomposed=True, error=1e-9)
    assert_all_folded(result, norms)
    # What was functional stays so.
    assert not any(re.fullmatch(r"aten\.\w+_\.\w+", target) for target in targets(result.program))


# ---- what folds, and what is one detail away


class Linear(nn.Module):
    def __init__(self, rank: int):
        super().__init__()
        self.linear, self.norm, self.rank = nn.Linear(3, 4), nn.BatchNorm1d(4 if rank == 2 else 5), rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x))


@pytest.mark.parametrize("decomposed", [False, True])
def test_ranks_are_proven(decomposed):
    # No example tells them and no check is written: the metadata of the program does.
    result = fold(Linear(2), double(3, 3), decomposed=decomposed)
    assert_all_folded(result)
    assert not any("dim" in target for target in targets(result.program))
    fold(Linear(3), double(3, 5, 3), decomposed=decomposed)


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_bound_has_metadata(decomposed):
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU6(inplace=True), nn.Conv2d(3, 4, 1))
    result = fold(model, double(2, 3, 5, 5), decomposed=decomposed)
    assert_all_folded(result)
    assert "aten.maximum.default" in targets(result.program)
    program = exported(model, (double(2, 3, 5, 5),), decomposed=decomposed)
    (activation,) = [node for node in program.graph.nodes if "hardtanh" in str(node.target) or "clamp" in str(node.target)]
    (bound,) = [node for node in result.program.graph.nodes if node.target == torch.ops.aten.maximum.default]
    assert bound.meta["stack_trace"] == activation.meta["stack_trace"]
    assert bound.meta["nn_module_stack"] == activation.meta["nn_module_stack"]
    assert list(bound.meta["val"].shape[1:]) == [3, 5, 5] and isinstance(bound.meta["val"].shape[0], torch.SymInt)


class Dropout(nn.Module):
    """Writes into what a norm made: of what is there, or of what a layer made."""

    def __init__(self, behind_layer: bool):
        super().__init__()
        self.first, self.norm, self.dropout = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5, inplace=True)
        self.second, self.behind_layer = nn.Linear(4, 3), behind_layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.dropout(self.norm(self.first(x) if self.behind_layer else x)))


@pytest.mark.parametrize("behind_layer", [False, True])
def test_what_works_in_place_no_more_has_the_arguments_of_its_operator(behind_layer):
    # Which are named otherwise: dropout_(self, ...) and dropout(input, ...).
    result = fold(Dropout(behind_layer), double(3, 4))
    assert_all_folded(result)
    assert targets(result.program)[-2] == ("aten.dropout_.default" if behind_layer else "aten.dropout.default")


class Untouched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = conv_norm(), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(x).relu_())


def test_untouched_nodes_and_weights_stay():
    program = exported(Untouched(), (double(2, 3, 5, 5),))
    result = bnfold.fold(program)
    assert result.program.state_dict["head.weight"] is program.state_dict["head.weight"]
    assert list(result.program.state_dict) == ["block.0.weight", "head.weight", "head.bias", "block.0.bias"]
    names = [node.name for node in program.graph.nodes if node.op == "call_function" and "batch_norm" not in node.name]
    assert [node.name for node in result.program.graph.nodes if node.op == "call_function"] == names
    stacks = {node.name: node.meta["nn_module_stack"] for node in program.graph.nodes if node.op == "call_function"}
    for node in result.program.graph.nodes:
        if node.op == "call_function":
            assert node.meta["nn_module_stack"] == stacks[node.name] and "val" in node.meta
    assert result.program.range_constraints == saved_and_loaded(program).range_constraints
    assert result.program._guards_code == program._guards_code


class UnreadTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.other = conv_norm(), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(x)
        self.other(y)
        return y


def test_what_nobody_reads_and_trains_stays():
    model, x = UnreadTraining().double().eval(), double(2, 3, 7, 6)
    prepared(model, (x,))
    model.other.train()
    folded = bnfold.fold(torch.export.export(model, (x,))).program.module()
    for _ in range(2):
        assert relative_error(model(x), folded(x)) <= EXACT
        assert relative_error(model.other.running_mean, folded.other.running_mean) <= EXACT


class Unread(nn.Module):
    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.block, self.reads = conv_norm(), reads
        self.other = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block[0](x)
        gate = torch.sigmoid(y)
        other = self.other(gate.mul_(2).relu_())
        gate.add_(1)
        return self.block[1](y) + (other if self.reads else 0)


@pytest.mark.parametrize("decomposed", [False, True])
def test_what_nobody_reads_is_no_reader(decomposed):
    result = fold(Unread(reads=False), double(2, 3, 7, 6), decomposed=decomposed)
    assert [norm.name for norm in result.report.folded] == ["block.1"] and not result.report.kept
    assert not any("sigmoid" in target for target in targets(result.program))
    result = fold(Unread(reads=True), double(2, 3, 7, 6), decomposed=decomposed)
    assert {(norm.name, norm.reason) for norm in result.report.kept} >= {("block.1", "value_has_other_readers")}


def test_nothing_to_fold_changes_nothing():
    program = saved_and_loaded(exported(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (double(2, 3, 5, 5),)))
    result = bnfold.fold(program)
    assert str(result.program) == str(program) and list(result.program.state_dict) == list(program.state_dict)


def test_the_default_dtype_is_that_of_the_program():
    model = prepared(conv_norm(), (double(2, 3, 5, 5),)).float()
    x = torch.randn(2, 3, 5, 5)
    result = bnfold.fold(torch.export.export(model, (x,)), x)
    assert result.check.passed and result.check.largest_error < 1e-6
    assert result.program.state_dict["0.weight"].dtype is torch.float32


class Outputs(nn.Module):
    """The value before the norm is returned too, or the one behind it alone."""

    def __init__(self, both: bool):
        super().__init__()
        self.conv, self.norm, self.both = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), both

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = self.conv(x)
        z = self.norm(y)
        return {"z": z, "sizes": (x.shape[0], 7), **({"y": y} if self.both else {})}


def test_outputs():
    assert_all_folded(fold(Outputs(both=False), double(2, 3, 5, 5)))
    assert_kept(fold(Outputs(both=True), double(2, 3, 5, 5)), "value_has_other_readers")


class Counting(nn.Module):
    """Counts its calls in a buffer; the norm's own mean may be what is written."""

    def __init__(self, writes_mean: bool):
        super().__init__()
        self.conv, self.norm, self.writes_mean = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), writes_mean
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        if self.writes_mean:
            self.norm.running_mean.add_(1)
        return self.norm(self.conv(x)) + self.count


@pytest.mark.parametrize("decomposed", [False, True])
def test_buffers_that_are_written(decomposed):
    x = double(2, 3, 5, 5)
    for writes_mean in (False, True):
        model = Counting(writes_mean)
        program = exported(model, (x,), decomposed=decomposed)
        result = bnfold.fold(program)
        if writes_mean:
            assert_kept(result, "norm_parameters_not_static")
        else:
            assert_all_folded(result)
        assert result.program.graph_signature.buffers_to_mutate.keys() == program.graph_signature.buffers_to_mutate.keys() or decomposed
        original, folded = program.module(), result.program.module()
        before = original.count.clone()
        for _ in range(3):
            assert relative_error(original(x), folded(x)) <= EXACT
        assert folded.count == original.count == before + 3


@pytest.mark.parametrize("decomposed", [False, True])
def test_the_check_takes_back_what_its_run_writes(decomposed):
    x = double(2, 3, 5, 5)
    program = exported(Counting(writes_mean=True), (x,), decomposed=decomposed)
    before = {name: value.clone() for name, value in program.state_dict.items()}
    result = bnfold.fold(program, x)
    assert result.check.passed
    for one in (program, result.program):
        assert all(torch.equal(one.state_dict[name], before[name]) for name in ("count", "norm.running_mean"))


class SharedMemory(nn.Module):
    """A buffer that is written lies in the memory of the norm's bias, or in memory of its own."""

    def __init__(self, shares: bool):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.double()
        self.register_buffer("view", self.norm.bias.detach()[:2] if shares else torch.zeros(2, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.view.add_(1)
        return self.norm(self.conv(x))


@pytest.mark.parametrize("shares, decomposed", [(False, False), (False, True), (True, False)])  # which torch can't decompose
def test_written_memory_has_one_content(shares, decomposed):
    x = double(2, 3, 5, 5)
    model = SharedMemory(shares)
    model.double().eval()
    program = torch.export.export(model, (x,))
    program = program.run_decompositions() if decomposed else program
    result = bnfold.fold(program)
    assert_kept(result, "norm_parameters_not_static") if shares else assert_all_folded(result)


WRITES: dict[str, Callable[[torch.Tensor], object]] = {
    "in place": lambda value: value.mul_(1.5),
    "through a view": lambda value: value.view(4)[:2].fill_(2.0),
    "through a list": lambda value: value.chunk(2)[1].neg_(),
    "not": lambda value: value.mul(1.5),
}


class Written(nn.Module):
    """A parameter and a constant that is no buffer, both read behind the norm."""

    def __init__(self, what: str, write: Callable[[torch.Tensor], object]):
        super().__init__()
        self.conv, self.norm, self.what, self.write = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), what, write
        self.parameter, self.constant = nn.Parameter(double(4, 1, 1)), double(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.write(getattr(self, self.what))
        return self.norm(self.conv(x)).sigmoid() * self.parameter + self.constant


@pytest.mark.parametrize("what", ["parameter", "constant"])
@pytest.mark.parametrize("how", WRITES)
def test_a_run_of_the_folded_program_writes_its_own(how, what):
    model, x = Written(what, WRITES[how]).double().eval(), double(2, 3, 5, 5)
    with torch.no_grad():
        program = torch.export.export(model, (x,))
        tensors = {**program.state_dict, **program.constants}
        before = {name: value.clone() for name, value in tensors.items()}
        result = bnfold.fold(program, x)
        folded = result.program.module()
        outputs = [folded(x) for _ in range(3)]
        assert all(torch.equal(value, before[name]) for name, value in tensors.items())
        original = program.module()
        assert all(relative_error(original(x), output) <= EXACT for output in outputs)
    assert result.check.passed
    is_shared = {**result.program.state_dict, **result.program.constants}[what].data_ptr() == tensors[what].data_ptr()
    assert is_shared == (how == "not")


class Tied(nn.Module):
    """One weight of two layers, whose norms differ."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.norm_a, self.norm_b = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm_a(self.a(x)).tanh() + self.norm_b(self.b(x)).tanh()


def test_tied_weights():
    assert_all_folded(fold(Tied(), double(3, 3)), 2)


class Twice(nn.Module):
    """One layer that is called twice, before a norm of its own each time or alone."""

    def __init__(self, alone: bool):
        super().__init__()
        self.conv, self.norm, self.other, self.alone = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3), alone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.conv(x)).tanh()
        return self.conv(y) if self.alone else self.other(self.conv(y))


def test_a_layer_that_is_called_twice():
    result = fold(Twice(alone=False), double(2, 3, 5, 5))
    assert_all_folded(result, 2)
    assert {"conv.weight", "conv.weight_1"} <= set(result.program.state_dict)
    result = fold(Twice(alone=True), double(2, 3, 5, 5))
    assert_all_folded(result)
    assert {"conv.weight", "conv.weight_1"} <= set(result.program.state_dict)


class Offset(nn.Module):
    """Adds a buffer that no state_dict has, and a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.norm = conv_norm(), nn.BatchNorm2d(4)
        self.register_buffer("offset", double(4, 1, 1), persistent=False)
        self.constant = double(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.block(x) + self.offset + self.constant + torch.tensor([[[1.0]], [[2.0]], [[3.0]], [[4.0]]], dtype=torch.float64))


@pytest.mark.parametrize("decomposed", [False, True])
def test_buffers_that_are_not_persistent_and_constants(decomposed):
    result = fold(Offset(), double(2, 3, 5, 5), decomposed=decomposed)
    assert_all_folded(result, 2)
    assert "offset" not in result.program.state_dict


class NoGrad(nn.Module):
    """A norm in a region without gradients, the layer before it inside or outside."""

    def __init__(self, inside: bool):
        super().__init__()
        self.conv, self.norm, self.linear, self.inside = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 4), inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.inside else self.conv(x)
        with torch.no_grad():
            y = self.conv(y) if self.inside else y
            y = self.norm(y)
            with torch.enable_grad():
                y = y.relu()
        return self.linear(y.mean((2, 3)))


@pytest.mark.parametrize("inside", [True, False])
def test_regions_without_gradients_are_inlined(inside):
    with torch.enable_grad():
        result = fold(NoGrad(inside), double(2, 3, 5, 5))
    assert_all_folded(result)
    assert "wrap_with_set_grad_enabled" not in targets(result.program)


class AroundRegion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.inside, self.behind = conv_norm(), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 1)


class Autocast(AroundRegion):
    """Norms before, inside of and behind a region of another dtype."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=True):
            y = self.inside(y)
        return self.behind(self.conv(y.double()))


class Cond(AroundRegion):
    """Norms before, inside of and behind a branch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        if torch.compiler.is_exporting():
            y = torch.cond(y.sum() > 0, lambda one: self.inside(one), lambda one: one * 2, (y,))
        else:
            y = self.inside(y) if y.sum() > 0 else y * 2
        return self.behind(self.conv(y))


@pytest.mark.parametrize("model, region", [(Autocast, "wrap_with_autocast"), (Cond, "cond")])
def test_norms_around_regions_fold(model, region):
    result = fold(model(), double(2, 3, 5, 5), dynamic=False, error=1e-2 if model is Autocast else EXACT)
    assert sorted(norm.name for norm in result.report.folded) == ["before.1", "behind"]
    (kept,) = result.report.kept
    assert (kept.name, kept.reason) == ("inside.1", "value_from_other_block")
    assert region in kept.detail and kept.source.startswith("test_exported.py:")


class Training(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.norm = conv_norm(), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.block(x))


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_norm_that_trains_has_its_reason(decomposed):
    model = Training().double().eval()
    model.norm.train()
    program = torch.export.export(model, (double(2, 3, 5, 5),))
    result = bnfold.fold(program.run_decompositions() if decomposed else program)
    assert [norm.name for norm in result.report.folded] == ["block.1"]
    assert [(norm.name, norm.reason) for norm in result.report.kept] == [("norm", "norm_in_training_mode")]


class Sizes(nn.Module):
    """Views by sizes that the run computes, and cuts a value into pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.linear, self.norm = conv_norm(), nn.Linear(4 * 4, 6), nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> tuple[Any, ...]:
        y = self.block(x)
        a, b = y.chunk(2, dim=2)
        y = torch.cat([a, b], dim=2)[:, :, ::2, ::2]
        y = self.norm(self.linear(y.reshape(x.shape[0] * 1, -1)))
        return y, x.shape[0] + 1, tuple(y.max(1))


@pytest.mark.parametrize("decomposed", [False, True])
def test_symbolic_sizes(decomposed):
    result = fold(Sizes(), double(3, 3, 4, 4), decomposed=decomposed)
    assert_all_folded(result, 2)


class NamedResult(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = conv_norm()

    def forward(self, x: torch.Tensor) -> Any:
        return self.block(x).max(1)


@pytest.mark.skipif(torch.__version__ < "2.15", reason="this torch can't save a program with a named result")
def test_a_named_result():
    assert_all_folded(fold(NamedResult(), double(3, 3, 4, 4)))


class Ordered(nn.Module):
    """A norm makes the usual order in memory of what lies in another one, or of what lies in that one."""

    def __init__(self, transposes: bool):
        super().__init__()
        self.linear, self.conv, self.norm, self.transposes = nn.Linear(4, 4), nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4), transposes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x).transpose(1, 2) if self.transposes else self.conv(x.transpose(1, 2))
        return self.norm(y)


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("transposes", [True, False])
def test_a_copy_has_symbolic_strides(transposes, decomposed):
    model, x = Ordered(transposes), double(2, 5, 4)
    prepared(model, (x,))
    program = torch.export.export(model, (x,), dynamic_shapes=({0: BATCH, 1: torch.export.Dim("length", min=2)},))
    result = bnfold.fold(program.run_decompositions() if decomposed else program)
    assert_all_folded(result)
    copies = [node for node in result.program.graph.nodes if node.name.startswith(("contiguous", "clone"))]
    assert [str(node.target) for node in copies] == ([f"aten.{'clone' if decomposed else 'contiguous'}.default"] if transposes else [])
    assert all(isinstance(node.meta["val"].stride(1), torch.SymInt) and node.meta["val"].is_contiguous() for node in copies)
    for one in (result.program, saved_and_loaded(result.program)):
        for inputs in (x, double(3, 7, 4)):
            assert_equal(model, one, inputs)
            assert one.module()(inputs).stride() == model(inputs).stride()


class Rows(nn.Module):
    """A norm of the rows that a linear layer makes, which core ATen views as a matrix, or of what a view mixes them to."""

    def __init__(self, mixes: bool):
        super().__init__()
        self.linear, self.norm, self.mixes = nn.Linear(4, 6), nn.BatchNorm1d(6), mixes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        return self.norm(y.reshape(x.shape[0], 6, x.shape[1]) if self.mixes else y.flatten(0, 1))


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("mixes", [False, True])
def test_rows_of_a_product_of_matrices(mixes, decomposed):
    model, x = Rows(mixes), double(2, 5, 4)
    result = bnfold.fold(exported(model, (x,), decomposed=decomposed))
    assert_kept(result, "sizes_unknown" if decomposed else "affine_varies_elsewhere") if mixes else assert_all_folded(result)
    for inputs in (x, double(3, 5, 4)):
        assert_equal(model, result.program, inputs)


class PermutedRows(nn.Module):
    """Core ATen makes a batch of products with one matrix of a linear layer whose input is permuted."""

    def __init__(self, bias: bool, norm_before: bool):
        super().__init__()
        self.before = nn.BatchNorm1d(3) if norm_before else nn.Identity()
        self.linear, self.norm = nn.Linear(3, 6, bias=bias), nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(self.before(x.flatten(2)).transpose(1, 2))
        return self.norm(y.flatten(0, 1)).reshape_as(y)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("norm_before", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_of_a_permuted_value(bias, norm_before, dynamic):
    model, x = PermutedRows(bias, norm_before), double(2, 3, 4, 5)
    assert "aten.bmm.default" in targets(exported(model, (x,), dynamic, decomposed=True))
    result = fold(model, x, dynamic=dynamic, decomposed=True)
    assert_all_folded(result, 1 + norm_before)
    for batch in (1, 5) if dynamic else ():
        assert_equal(model, result.program, double(batch, 3, 4, 5))


class Named(nn.Module):
    """Names that are no identifiers, or are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"a-b": nn.Conv2d(3, 4, 1, bias=False), "norm": nn.BatchNorm2d(4)})
        self.conv = nn.Conv2d(4, 4, 1, bias=False)
        self.conv.register_buffer("bias_1", double(4, 1, 1))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        y = self.layers["norm"](self.layers["a-b"](input)).sigmoid()
        return torch.maximum(self.norm(self.conv(y)), self.conv.bias_1)


class ComputedWeight(nn.Module):
    def __init__(self, weight: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.weight, self.gain, self.bias = (nn.Parameter(torch.randn(size)) for size in ((4, 3, 3, 3), (4, 1, 1, 1), (4,)))
        self.compute, self.norm = weight, nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(torch.conv2d(x, self.compute(self.weight, self.gain), self.bias.to(x.dtype)))


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize(
    "weight",
    [
        lambda weight, gain: weight.clone().view(4, 3, 3, 3),
        lambda weight, gain: weight * gain / weight.flatten(1).norm(dim=1).view(4, 1, 1, 1),
        lambda weight, gain: (weight - weight.mean([1, 2, 3], keepdim=True)) / (weight.var([1, 2, 3], keepdim=True) + 1e-5).sqrt(),
        lambda weight, gain: torch.cat([weight[:2], weight[[3, 2]].flip(3)], 0),
    ],
    ids=["cloned", "weight norm", "standardized", "put together"],
)
def test_weights_that_are_computed(weight, decomposed):
    result = fold(ComputedWeight(weight), double(2, 3, 7, 6), decomposed=decomposed)
    assert [norm.name for norm in result.report.folded] == ["norm"]


def test_names():
    result = fold(Named(), double(2, 3, 5, 5))
    assert_all_folded(result, 2)
    assert {"layers.a-b.weight", "layers.a-b.bias", "conv.bias_1"} <= set(result.program.state_dict)


class Own(torch.Tensor):
    """What its elements are, is made up as it runs."""


def test_a_weight_of_a_class_of_its_own_is_not_known():
    program = exported(conv_norm(), (double(2, 3, 5, 5),))
    program.state_dict["1.running_mean"] = program.state_dict["1.running_mean"].as_subclass(Own)
    assert_kept(bnfold.fold(program), "norm_parameters_not_static")


def test_other_kinds_of_arguments():
    program = exported(conv_norm(), (double(2, 3, 5, 5),))
    for options, sentence in (({"preserved_attributes": ["encode"]}, "has one method"), ({"input_ranks": [4]}, "tells its ranks itself")):
        with pytest.raises(bnfold.Error, match=sentence):
            bnfold.fold(program, **options)
    with pytest.raises(TypeError, match="map_location is for TorchScript files"):
        bnfold.fold(program, map_location="cpu")
    assert len(bnfold.fold(program, fold_limit=0).report.folded) == 0
    assert len(bnfold.fold(program, target="onnxruntime").report.folded) == 1


# ---- files


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Sigmoid(), nn.BatchNorm2d(5))
        self.register_buffer("offset", double(5, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + self.offset


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.no_grad():
        return prepared(Model(), (double(2, 3, 9, 9),))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.pt2"
    program = torch.export.export(model, (double(2, 3, 9, 9),), dynamic_shapes=({0: BATCH},))
    torch.export.save(program, path, extra_files={"labels.txt": "cat\ndog"})
    return path


def program_run(*arguments: object) -> subprocess.CompletedProcess[str]:
    from bnfold import _library

    texts = [argument if isinstance(argument, bytes) else str(argument) for argument in arguments]
    return subprocess.run([_library.program(), *texts], capture_output=True, text=True, timeout=120)


def test_a_file(saved, model):
    result = bnfold.fold(saved)
    assert [norm.name for norm in result.report.folded] == ["layers.1"]
    assert_equal(model, result.program, double(5, 3, 9, 9))
    with pytest.raises(bnfold.LoadError, match="a torch.export program, not a TorchScript module"):
        bnfold.load(saved)


def test_the_program(saved, model, tmp_path):
    out = tmp_path / "folded.pt2"
    done = program_run(saved, out, "--json", tmp_path / "report.json", "--explain", "--plot", tmp_path / "fold.dot")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["parameters_before"] == 160 and [norm["name"] for norm in report["folded"]] == ["layers.1"]
    assert "layers.1  backward into layers.0" in done.stdout and "conv2d" in (tmp_path / "fold.dot").read_text()
    extra = {"labels.txt": ""}
    folded = torch.export.load(out, extra_files=extra)
    assert extra["labels.txt"] == "cat\ndog"
    assert_equal(model, folded, double(5, 3, 9, 9))
    assert norms_left(folded) == len(report["kept"])
    # The same as in memory, and whole, with the records of what did not change as they were.
    in_memory = bnfold.fold(saved).program
    assert str(in_memory) == str(folded) and list(in_memory.state_dict) == list(folded.state_dict)
    assert all(torch.equal(value, folded.state_dict[name]) for name, value in in_memory.state_dict.items())
    with zipfile.ZipFile(out) as new, zipfile.ZipFile(saved) as old:
        assert new.testzip() is None
        contents = {old.read(name) for name in old.namelist()}
        weights = [new.read(name) for name in new.namelist() if "/data/weights/weight_" in name]
        assert sum(content in contents for content in weights) == len(weights) - 2


def test_the_program_is_strict_and_knows_its_options(saved, tmp_path):
    out = tmp_path / "folded.pt2"
    done = program_run(saved, out, "--strict")
    assert (done.returncode, out.exists()) == (4, False), done.stderr
    for option in (["--check", "1"], ["--check", "1", "--input", "1,3,9,9"], ["--bench", "1"], ["--input", "1,3,9,9"], ["--frozen"], ["--preserve", "forward"], ["--device", "cpu"]):
        done = program_run(saved, out, *option)
        assert (done.returncode, out.exists()) == (2, False) and "is for TorchScript files" in done.stderr, done.stderr


def assert_refused(path: Path, sentence: str) -> None:
    with pytest.raises(bnfold.Error, match=sentence) as error:
        bnfold.fold(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    out = path.with_name("folded.pt2")
    out.write_text("what was there")
    done = program_run(path, out)
    assert (done.returncode, out.read_text()) == (3, "what was there")
    assert done.stderr.count("\n") == 1, done.stderr


def changed(record: str, old: Optional[bytes], new: bytes = b"") -> Callable[[str, bytes], Optional[bytes]]:
    """Replaces in a record; leaves it out where there is nothing to replace."""

    def edit(name: str, content: bytes) -> Optional[bytes]:
        if record not in name:
            return content
        if old is None:
            return None
        assert old in content
        return content.replace(old, new)

    return edit


@pytest.mark.parametrize(
    "edit, sentence",
    [
        (changed("/models/", None), "holds no program"),
        (changed("/archive_format", None), "not a TorchScript module|holds no program"),
        (changed("/archive_version", b"0", b"1"), "is an archive of version 1, and this reads version 0"),
        (changed("/models/", b'"major": 8', b'"major": 9'), r"schema 9\.\d+ of torch.export, and this reads 8"),
        (changed("/models/", b'"graph_module"', b'"graf_module"'), "no program that torch.export wrote"),
        (changed("/models/", b"{", b"["), "no program that torch.export wrote|DAMAGED"),
        (changed("/data/weights/weight_0", None), DAMAGED),
        (changed("_weights_config.json", None), DAMAGED),
        (changed("_weights_config.json", b'"use_pickle": false', b'"use_pickle": true'), "is pickled, as one of a class of its own"),
        (changed("_weights_config.json", b'"cpu", "index": null}, "strides": [{"as_int": 27}', b'"cuda", "index": 0}, "strides": [{"as_int": 27}'), "on several devices"),
        (changed("_weights_config.json", b'"as_int": 5', b'"as_int": 500000'), DAMAGED),
        (changed("_weights_config.json", b'"as_int": 3', b'"as_int": -3'), DAMAGED),
    ],
)
def test_records_that_are_missing_or_of_another_version(edit, sentence, saved, tmp_path):
    path = rewritten(saved, tmp_path / "model.pt2", edit)
    assert_refused(path, sentence.replace("DAMAGED", DAMAGED))


def test_what_aotinductor_compiled_is_told_apart(tmp_path):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("archive_format", "pt2"), ("archive_version", "0"), ("data/aotinductor/model/model.so", "ELF"), (".data/version", "6"), ("version", "6")):
            archive.writestr(f"model/{name}", content)
    assert_refused(path, "is compiled by AOTInductor; fold the program before it is compiled")


@pytest.mark.parametrize("part", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files(part, saved, tmp_path):
    content = saved.read_bytes()
    (tmp_path / "model.pt2").write_bytes(content[: int(len(content) * part)])
    assert_refused(tmp_path / "model.pt2", DAMAGED)


def test_every_number_is_checked(saved, tmp_path):
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        (weight,) = [one for one in archive.infolist() if one.filename.endswith("/data/weights/weight_0")]
    content[weight.header_offset + 200] ^= 1
    (tmp_path / "model.pt2").write_bytes(content)
    assert_refused(tmp_path / "model.pt2", DAMAGED)


def test_a_program_that_was_packed_again(saved, model, tmp_path):
    path = rewritten(saved, tmp_path / "model.pt2", lambda name, content: content, zipfile.ZIP_DEFLATED)
    out = tmp_path / "folded.pt2"
    assert program_run(path, out).returncode == 0
    for program in (bnfold.fold(path).program, torch.export.load(out)):
        assert_equal(model, program, double(2, 3, 9, 9))


def test_a_newer_format(saved, tmp_path):
    path = rewritten(saved, tmp_path / "model.pt2", lambda name, content: b"99" if name.endswith("/.data/version") else content)
    assert_refused(path, "a newer PyTorch wrote it, in a format that this one can't read")


def test_an_archive_that_claims_huge_records(saved, tmp_path):
    (tmp_path / "model.pt2").write_bytes(claiming_huge_records(saved.read_bytes()))
    assert_refused(tmp_path / "model.pt2", DAMAGED)


@pytest.mark.parametrize("record, sentence", [("/models/model.json", "no program that torch.export wrote"), ("_weights_config.json", DAMAGED)])
def test_a_record_that_unpacks_to_much_more(record, sentence, saved, tmp_path):
    bomb = bytes(1 << 28)
    path = rewritten(saved, tmp_path / "model.pt2", lambda name, content: bomb if record in name else content, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    assert_refused(path, sentence)


@pytest.mark.parametrize("name", [name.replace(b".pt", b".pt2") for name in NAMES if len(name) < 255], ids=lambda name: repr(name[:12]))
def test_names(name, saved, tmp_path):
    path = os.fsencode(tmp_path) + b"/" + name
    assert program_run(saved, path).returncode == 0
    assert len(bnfold.fold(os.fsdecode(path)).report.kept) == 1


def test_without_permission_to_read(saved, public_directory):
    path = public_directory / "model.pt2"
    path.write_bytes(saved.read_bytes())
    path.chmod(0)
    with without_privileges(), pytest.raises(bnfold.LoadError, match="no permission to read it"):
        bnfold.fold(path)


def test_a_folder_that_is_not_there(saved, tmp_path):
    done = program_run(saved, tmp_path / "no" / "folded.pt2")
    assert (done.returncode, done.stderr.count("\n")) == (5, 1) and "there is no folder" in done.stderr


@without_gpu
def test_a_program_from_a_gpu(saved, tmp_path):
    def moved(name: str, content: bytes) -> bytes:
        return content.replace(b'"cpu", "index": null', b'"cuda", "index": 0') if name.endswith(".json") else content

    path = rewritten(saved, tmp_path / "model.pt2", moved)
    with pytest.raises(bnfold.LoadError, match="was exported on a GPU, and there is none; the program bnfold folds it without one"):
        bnfold.fold(path)
    assert program_run(path, tmp_path / "folded.pt2").returncode == 0
    with zipfile.ZipFile(tmp_path / "folded.pt2") as archive:
        (weights,) = [name for name in archive.namelist() if name.endswith("_weights_config.json")]
        assert b'"cpu"' not in archive.read(weights) and b'"cuda"' in archive.read(weights)


def load_damaged(path: str, seed: int, count: int) -> None:
    expected = bnfold.fold(path).program.state_dict

    def assert_unharmed(result: bnfold.ExportedFoldResult) -> None:
        state = result.program.state_dict
        assert all(torch.equal(value, state[name]) for name, value in expected.items()), "a damaged file was taken for what was saved"

    fold_damaged(path, seed, count, assert_unharmed)


def test_damaged_files(saved, tmp_path):
    (tmp_path / "model.pt2").write_bytes(saved.read_bytes())
    outcomes = outcomes_in_a_process("import test_exported; test_exported.load_damaged('model.pt2', 7, 40)", tmp_path)
    assert outcomes["truncation refused"] == 40 and outcomes["flip refused"] > outcomes["flip harmless"] > 0
