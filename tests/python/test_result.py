"""What comes back is a module like any other, and what went in is what it was."""

from __future__ import annotations

import copy
import gc
import hashlib
import subprocess
import sys

import pytest
import torch
import zoo
from calibrate import norms_of, relative_error
from cases import EXACT, double, prepared
from torch import nn

import bnfold

NAMES = ("resnet18", "resnet50")

each_network = pytest.mark.parametrize("name", NAMES)
both_spellings = pytest.mark.parametrize("spelling", zoo.SPELLINGS)


def without_norms(model: nn.Module) -> nn.Module:
    """The same architecture with Identity for each norm and a bias in each conv."""
    bare = copy.deepcopy(model)
    for module in list(bare.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.Conv2d) and child.bias is None:
                child.bias = nn.Parameter(torch.zeros(child.out_channels, dtype=child.weight.dtype))
    return bare


def fingerprint(module: torch.jit.ScriptModule) -> list:
    """All that can be seen of a module, its tensors bit for bit."""

    def bits(tensor):
        return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()).hexdigest()

    tensors = list(module.named_parameters()) + list(module.named_buffers())
    facts = [(key, tensor.dtype, tensor.shape, tensor.requires_grad, tensor.data_ptr(), bits(tensor)) for key, tensor in tensors]
    modes = [(key, child.training) for key, child in module.named_modules()]
    graphs = [str(module.graph), str(module.inlined_graph), module.code]
    return [facts, modes, graphs]


@both_spellings
@each_network
def test_state_dict(name, spelling):
    net = zoo.network(name)
    state = zoo.fold_result(name, spelling).module.state_dict()
    norms = tuple(f"{norm}." for norm in norms_of(net.model))
    left = {key for key in net.model.state_dict() if not key.startswith(norms)}
    convs = {f"{key}.bias" for key, module in net.model.named_modules() if isinstance(module, nn.Conv2d)}
    assert set(state) == left | convs
    bare = without_norms(net.model)
    bare.load_state_dict(state, strict=True)
    assert relative_error(net.output, bare(*net.inputs)) < 1e-10


@both_spellings
def test_dtypes(spelling):
    net = zoo.network("resnet18")
    result = bnfold.fold(zoo.script_module("resnet18", spelling)).module
    single = result.to(torch.float32)
    assert {parameter.dtype for parameter in single.parameters()} == {torch.float32}
    assert relative_error(net.output, single(net.inputs[0].float())) < 1e-4
    assert relative_error(net.output, single.to(torch.float64)(*net.inputs)) < 1e-4
    assert relative_error(net.output, single.half()(net.inputs[0].half())) < 0.1
    assert {parameter.dtype for parameter in single.parameters()} == {torch.float16}


@both_spellings
def test_eval_and_train(spelling):
    net = zoo.network("resnet18")
    result = bnfold.fold(zoo.script_module("resnet18", spelling)).module
    assert result.training is False
    assert all(not module.training for module in result.modules())
    assert relative_error(net.output, result.eval()(*net.inputs)) < 1e-10
    result.train()
    assert result.training is True
    result.eval()
    assert result.training is False


@both_spellings
@each_network
def test_freeze_of_the_result(name, spelling):
    net = zoo.network(name)
    frozen = torch.jit.freeze(zoo.fold_result(name, spelling).module)
    assert relative_error(net.output, frozen(*net.inputs)) < 1e-10


def test_optimize_for_inference_of_the_result():
    net = zoo.network("resnet18")
    module = bnfold.fold(copy.deepcopy(net.model).float()).module
    assert relative_error(net.output, torch.jit.optimize_for_inference(module)(net.inputs[0].float())) < 1e-4


@both_spellings
def test_deep_copy(spelling):
    net = zoo.network("resnet18")
    module = zoo.fold_result("resnet18", spelling).module
    assert torch.equal(copy.deepcopy(module)(*net.inputs), module(*net.inputs))


@both_spellings
def test_gradients(spelling):
    net = zoo.network("resnet18")
    # Folded anew: the executor of a module that ran without gradients goes on without.
    module = bnfold.fold(zoo.to_torchscript(copy.deepcopy(net.model), net.inputs, spelling)).module
    with torch.enable_grad():
        module(*net.inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


RUN_WITHOUT_BNFOLD = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
module = torch.jit.load(sys.argv[1])
inputs, expected = torch.load(sys.argv[2])
for _ in range(2):
    difference = (module(inputs) - expected).abs().max() / expected.abs().max()
    assert difference < 1e-10, difference
assert not hasattr(torch.ops.bnfold, "fold")
"""


@both_spellings
def test_saved_and_loaded_where_bnfold_is_not(spelling, tmp_path):
    net = zoo.network("resnet18")
    module = zoo.fold_result("resnet18", spelling).module
    torch.save((net.inputs[0], net.output), tmp_path / "data.pt")
    bnfold.save(module, tmp_path / "by_bnfold.pt")
    module.save(str(tmp_path / "by_torch.pt"))
    for file in ("by_bnfold.pt", "by_torch.pt"):
        command = [sys.executable, "-c", RUN_WITHOUT_BNFOLD, str(tmp_path / file), str(tmp_path / "data.pt")]
        subprocess.run(command, check=True)
        again = bnfold.load(tmp_path / file)
        assert isinstance(again, torch.jit.ScriptModule)
        assert torch.equal(again(*net.inputs), module(*net.inputs))


@both_spellings
@each_network
def test_a_loaded_module_folds_like_the_one_that_was_saved(name, spelling, tmp_path):
    net = zoo.network(name)
    bnfold.save(zoo.script_module(name, spelling), tmp_path / "model.pt")
    result = bnfold.fold(tmp_path / "model.pt")
    assert result.report.kept == ()
    assert result.report.folded == zoo.fold_result(name, spelling).report.folded
    assert relative_error(net.output, result.module(*net.inputs)) < 1e-10


@both_spellings
def test_the_input_module_stays_bit_for_bit(spelling):
    net = zoo.network("resnet18")
    module = zoo.to_torchscript(copy.deepcopy(net.model), net.inputs, spelling)
    module(*net.inputs)
    before = fingerprint(module)
    for change in (lambda result: result, lambda result: result.half(), lambda result: result.to(torch.float64)):
        change(bnfold.fold(module, net.inputs).module)
        assert fingerprint(module) == before
    assert relative_error(net.output, module(*net.inputs)) == 0


def test_changing_buffers_and_new_weights_of_the_result_does_not_reach_the_original():
    net = zoo.network("resnet18")
    module = zoo.to_torchscript(copy.deepcopy(net.model), net.inputs, "scripted")
    before = fingerprint(module)
    result = bnfold.fold(module).module
    for key, parameter in result.named_parameters():
        if not key.startswith("fc."):  # did not change, so it shares its storage
            parameter.zero_()
    for buffer in result.buffers():
        buffer.zero_()
    assert fingerprint(module) == before


@both_spellings
def test_folding_twice_changes_nothing(spelling):
    net = zoo.network("resnet18")
    once = zoo.fold_result("resnet18", spelling)
    twice = bnfold.fold(once.module)
    assert twice.report.folded == twice.report.kept == ()
    assert twice.report.parameters_before == twice.report.parameters_after == once.report.parameters_after
    assert twice.report.nodes_before == twice.report.nodes_after == once.report.nodes_after
    state, again = once.module.state_dict(), twice.module.state_dict()
    assert list(state) == list(again)
    assert all(torch.equal(state[key], again[key]) for key in state)
    assert torch.equal(once.module(*net.inputs), twice.module(*net.inputs))


@both_spellings
def test_a_frozen_module(spelling):
    # freeze without its own folding: weights are constants.
    inputs = (double(2, 3, 9, 9),)
    model = prepared(nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6)), inputs)
    frozen = torch.jit.freeze(zoo.to_torchscript(model, inputs, spelling), optimize_numerics=False)
    result = bnfold.fold(frozen, inputs)
    assert len(result.report.folded) == 1 and result.report.kept == ()
    assert relative_error(model(*inputs), result.module(*inputs)) < EXACT


def test_requires_grad_stays():
    inputs = (double(2, 3, 9, 9),)
    model = prepared(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)), inputs)
    assert all(parameter.requires_grad for parameter in bnfold.fold(model).module.parameters())
    model.requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in bnfold.fold(model).module.parameters())


def test_errors_of_the_result_name_the_layer():
    # The interpreter walks the call stack of the node that failed, which must not point into the module that was folded.
    module = bnfold.fold(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).eval()).module
    for _ in range(3):
        with pytest.raises(RuntimeError, match="to have 3 channels, but got 7") as error:
            module(torch.ones(2, 7, 9, 9))
        assert "conv.py" in str(error.value) and "in batch_norm" not in str(error.value)


@torch.jit.script
class Scaler:
    def __init__(self, factor: float):
        self.factor = factor

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 0):
            return x * self.factor
        return self.apply_to_negative(x)

    def apply_to_negative(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor * 2


class WithObject(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        scaler = Scaler(float(x.size(0)))
        return [scaler.apply(self.norm(self.conv(x)))], scaler.factor


@pytest.mark.parametrize("make", [lambda module: bnfold.fold(module).module, bnfold.freeze])
def test_a_result_outlives_the_module_that_it_was_made_of(make, tmp_path):
    path, x = tmp_path / "model.pt", torch.randn(2, 3, 4, 4)
    model = WithObject().eval()
    torch.jit.script(model).save(path)
    result = make(torch.jit.load(path))
    gc.collect()
    for _ in range(2):
        assert relative_error(model(x)[0][0], result(x)[0][0]) < 1e-5
        assert relative_error(model(-x)[0][0], result(-x)[0][0]) < 1e-5
    bnfold.save(result, path)
    assert relative_error(model(x)[0][0], torch.jit.load(path)(x)[0][0]) < 1e-5
