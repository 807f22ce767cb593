"""What is on a GPU is folded there. Skipped where there is none."""

from __future__ import annotations

import copy

import pytest
import torch
import zoo
from calibrate import relative_error
from cases import double, prepared
from torch import nn
from torch.profiler import profile

import bnfold

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

both_spellings = pytest.mark.parametrize("spelling", zoo.SPELLINGS)
each_network = pytest.mark.parametrize("name", ["resnet18", "densenet121"])

# On both devices each weight is computed in double by the same operations, but sums are added up in another order.
ROUNDING = 1e-14


def on_gpu(name: str, spelling: str) -> tuple[torch.jit.ScriptModule, torch.Tensor]:
    net = zoo.network(name)
    inputs = net.inputs[0].cuda()
    return zoo.to_torchscript(copy.deepcopy(net.model).cuda(), (inputs,), spelling), inputs


@each_network
@both_spellings
def test_folds_on_the_gpu(name, spelling):
    module, inputs = on_gpu(name, spelling)
    result = bnfold.fold(module, inputs)
    assert result.report.kept == ()
    assert all(value.is_cuda for value in result.module.state_dict().values())
    assert relative_error(zoo.network(name).output, result.module(inputs).cpu()) < 1e-10


@each_network
@both_spellings
def test_gives_the_weights_that_the_cpu_gives(name, spelling):
    module, _ = on_gpu(name, spelling)
    here, there = bnfold.fold(zoo.script_module(name, spelling)).module, bnfold.fold(module).module
    expected, actual = dict(here.named_parameters()), dict(there.named_parameters())
    assert list(expected) == list(actual)
    assert all(relative_error(value, actual[key].cpu()) < ROUNDING for key, value in expected.items())


@each_network
def test_what_the_cpu_folded_moves_to_the_gpu(name):
    net = zoo.network(name)
    moved = bnfold.fold(zoo.script_module(name, "scripted")).module.to("cuda")
    assert relative_error(net.output, moved(net.inputs[0].cuda()).cpu()) < 1e-10


class TwoDevices(nn.Module):
    def __init__(self):
        super().__init__()
        self.near = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
        self.far = nn.Sequential(nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x):
        return self.far(self.near(x).to(self.far[0].weight.device))


def test_several_devices_stay_where_they_are():
    inputs = (double(2, 3, 9, 9),)
    model = prepared(TwoDevices(), inputs)
    expected = model(*inputs)
    model.far.cuda()
    result = bnfold.fold(torch.jit.trace(model, inputs), inputs)
    assert len(result.report.folded) == 2
    assert {name: value.device.type for name, value in result.module.named_parameters()} == {
        "near.0.weight": "cpu", "near.0.bias": "cpu", "far.0.weight": "cuda", "far.0.bias": "cuda",
    }  # fmt: skip
    assert relative_error(expected, result.module(*inputs).cpu()) < 1e-10


@both_spellings
def test_a_bound_is_one_kernel(spelling):
    module, _ = on_gpu("densenet121", spelling)
    graph = bnfold.freeze(module).graph
    assert graph.findAllNodes("aten::clamp", recurse=True)
    assert not graph.findAllNodes("aten::clamp_max_", recurse=True)


@both_spellings
def test_the_pass_folds_on_the_gpu(spelling):
    module, inputs = on_gpu("densenet121", spelling)
    frozen = torch.jit.freeze(module)
    with bnfold.registered_pass(), torch.no_grad():
        for _ in range(3):
            frozen(inputs)
        with profile(acc_events=True) as measured:
            output = frozen(inputs)
    assert not [event for event in measured.key_averages() if event.key == "aten::batch_norm"]
    assert relative_error(zoo.network("densenet121").output, output.cpu()) < 1e-10


@each_network
@both_spellings
def test_a_cuda_graph_computes_what_the_module_computes(name, spelling):
    module, inputs = on_gpu(name, spelling)
    folded = bnfold.fold(module, inputs).module
    run = bnfold.CudaGraphRunner(folded, inputs)
    first = run(inputs)
    for other in (torch.randn_like(inputs), torch.randn_like(inputs).cpu()):
        assert relative_error(module(other.cuda()).cpu(), run(other).cpu()) < 1e-10
    assert relative_error(zoo.network(name).output, first.cpu()) < 1e-10


@each_network
def test_a_fused_network_computes_what_the_module_computes(name):
    net = zoo.network(name)
    module, inputs = copy.deepcopy(net.model).float().cuda(), net.inputs[0].float().cuda()
    optimized = bnfold.optimize_for_inference(module, inputs)
    assert relative_error(module(inputs), optimized(inputs)) < 1e-4
    assert relative_error(module(inputs), bnfold.CudaGraphRunner(optimized, inputs)(inputs)) < 1e-4


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count.add_(1)
        return x * self.count


class Branching(nn.Module):
    def forward(self, x):
        return x if bool(x.sum() > 0) else -x


def test_a_cuda_graph_counts_from_the_buffers_that_came_in():
    module, x = torch.jit.script(Counting().cuda()), torch.ones(3, device="cuda")
    run = bnfold.CudaGraphRunner(module, x)
    assert module.count.item() == 0
    assert [run(x)[0].item() for _ in range(3)] == [1, 2, 3]


def test_a_cuda_graph_refuses_what_it_cant_capture_and_other_sizes():
    x = torch.ones(3, device="cuda")
    with pytest.raises(bnfold.Error, match="can't capture"):
        bnfold.CudaGraphRunner(torch.jit.script(Branching()), x)
    run = bnfold.CudaGraphRunner(torch.jit.script(Counting().cuda()), x)
    for other in ((x[:2],), (x.half(),), (x, x), ()):
        with pytest.raises(bnfold.Error, match=r"captured for float32 \[3\], not for"):
            run(*other)
