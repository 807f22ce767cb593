"""bnfold.optimize_for_inference: what it makes computes the same, in memory and from a file, and says what it fused."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
import zoo
from calibrate import relative_error
from torch import nn

import bnfold

# Rounding in float32 of networks with random weights, of which eager has as much.
NEAR = 1e-4
NETWORKS = ("resnet18", "vgg16_bn", "densenet121", "mobilenet_v2", "efficientnet_b0", "resnetv2_50", "repvgg_a0", "shufflenet_v2_x1_0")


class Block(nn.Module):
    """A residual block of two convolutions and a linear layer behind it."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        y = torch.relu(self.norm2(self.conv2(y)) + x)
        return self.head(y.mean([2, 3]))


IMAGE = torch.randn(2, 4, 9, 9)


def block() -> torch.jit.ScriptModule:
    torch.manual_seed(0)
    return torch.jit.script(Block().eval())


@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same(name, spelling):
    net = zoo.network(name)
    first, second = (tuple(value.float() for value in values) for values in (net.inputs, net.second_inputs))
    module = zoo.to_torchscript(copy.deepcopy(net.model).float(), first, spelling)
    optimized = bnfold.optimize_for_inference(module, first)
    fusions = bnfold.fusions_of(optimized)
    steps = len(fusions.fused) + sum(step.step == "linear" for step in fusions.unfused)  # of a single pixel: linear
    layers = sum(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in net.model.modules())
    assert steps == layers - len(bnfold.report_of(optimized).merged)
    with torch.no_grad():
        for _ in range(3):
            assert relative_error(net.output, optimized(*first)) < NEAR
            assert relative_error(net.second_output, optimized(*second)) < NEAR


def test_every_sum_of_a_resnet_is_fused():
    net = zoo.network("resnet18")
    image = net.inputs[0].float()
    optimized = bnfold.optimize_for_inference(copy.deepcopy(net.model).float(), image)
    steps = [layer.steps for layer in bnfold.fusions_of(optimized).fused]
    assert steps.count("conv2d, add, relu") == 8 and steps.count("conv2d, relu") == 9 and steps.count("conv2d") == 3
    assert "aten::add" not in str(optimized.graph)


def test_the_file_runs_without_bnfold(tmp_path):
    optimized = bnfold.optimize_for_inference(block(), IMAGE)
    optimized.save(str(tmp_path / "optimized.pt"))
    torch.save(IMAGE, tmp_path / "image.pt")
    code = (
        "import sys, torch; module = torch.jit.load('optimized.pt'); y = module(torch.load('image.pt'));"
        "assert 'bnfold' not in sys.modules; torch.save(y, 'y.pt'); module.save('again.pt');"
        "assert torch.equal(torch.jit.load('again.pt')(torch.load('image.pt')), y)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True)
    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "y.pt"), optimized(IMAGE))


def test_it_can_be_copied_and_frozen_again():
    module = block()
    optimized = bnfold.optimize_for_inference(module, IMAGE)
    with torch.no_grad():
        for other in (copy.deepcopy(optimized), torch.jit.freeze(optimized.eval())):
            assert relative_error(module(IMAGE), other(IMAGE)) < NEAR


def test_without_example_inputs_sums_of_one_size_are_fused():
    fusions = bnfold.fusions_of(bnfold.optimize_for_inference(block()))
    assert [(step.name, step.step, step.obstacle) for step in fusions.unfused] == [("head", "linear", "sizes_unknown")]
    assert [layer.steps for layer in fusions.fused] == ["conv2d, relu", "conv2d, add, relu"]


class Forked(nn.Module):
    """A convolution in a task beside another."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)

    def branch(self, x):
        return torch.relu(self.conv(x))

    def forward(self, x):
        task = torch.jit.fork(self.branch, x)
        return self.other(x) + torch.jit.wait(task)


def test_a_convolution_in_a_task(tmp_path):
    module = torch.jit.script(Forked().eval())
    optimized = bnfold.optimize_for_inference(module, IMAGE)
    assert "conv2d, relu" in [layer.steps for layer in bnfold.fusions_of(optimized).fused]
    optimized.save(str(tmp_path / "forked.pt"))
    with torch.no_grad():
        for one in (optimized, torch.jit.load(str(tmp_path / "forked.pt"))):
            for _ in range(2):
                assert relative_error(module(IMAGE), one(IMAGE)) < NEAR


class TwoMethods(Forked):
    @torch.jit.export
    def features(self, x):
        return self.branch(x)

    def forward(self, x):
        return self.other(self.features(x))


def test_preserved_methods_are_fused_too():
    module = torch.jit.script(TwoMethods().eval())
    optimized = bnfold.optimize_for_inference(module, IMAGE, preserved_attrs=["features"])
    assert [layer.steps for layer in bnfold.fusions_of(optimized).fused].count("conv2d, relu") == 2
    with torch.no_grad():
        assert relative_error(module.features(IMAGE), optimized.features(IMAGE)) < NEAR
    assert not hasattr(bnfold.optimize_for_inference(module, IMAGE), "features")


class Sum(nn.Module):
    """A convolution and an addend that is another input."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x, y):
        return torch.relu(self.conv(x) + y)


def test_the_table_of_fusions():
    text = str(bnfold.fusions_of(bnfold.optimize_for_inference(Sum().eval())))
    assert "1  conv2d" in text and "left  add of conv: sizes_unknown, its addend may be broadcast" in text
    assert str(bnfold.Fusions((), ())) == "nothing fused"


def test_the_table_has_one_line_for_what_is_left_alike():
    small = [bnfold.UnfusedStep(f"fc{i}", "linear", "product_too_small", f"[{i}, 8] of 1 rows") for i in (1, 2)]
    sums = [bnfold.UnfusedStep("conv", "add", "sizes_unknown", "its addend may be broadcast")]
    lines = str(bnfold.Fusions((), (small[0], *sums, small[1]))).splitlines()
    assert lines == [
        "  left  2 linear, such as fc1: product_too_small, [1, 8] of 1 rows",
        "  left  add of conv: sizes_unknown, its addend may be broadcast",
    ]


def test_the_report_of_the_folds():
    optimized = bnfold.optimize_for_inference(block(), IMAGE)
    assert [norm.name for norm in bnfold.report_of(optimized).folded] == ["norm1", "norm2"]


@pytest.mark.parametrize("about", [bnfold.report_of, bnfold.fusions_of])
def test_another_module_has_no_report(about):
    with pytest.raises(KeyError):
        about(block())


def test_a_module_in_double_is_frozen_alone():
    module = block().double()
    optimized = bnfold.optimize_for_inference(module, IMAGE.double())
    assert {step.obstacle for step in bnfold.fusions_of(optimized).unfused} == {"weight_unsupported"}
    assert relative_error(module(IMAGE.double()), optimized(IMAGE.double())) < 1e-12


def test_an_addend_may_be_broadcast_that_was_not_in_the_example():
    module = Sum().eval()
    optimized = bnfold.optimize_for_inference(module, (IMAGE, IMAGE))
    with torch.no_grad():
        for inputs in ((IMAGE, IMAGE[:, :, :1, :1]), (IMAGE[:, :, :1, :1], IMAGE), (IMAGE, IMAGE[:1])):
            assert relative_error(module(*inputs), optimized(*inputs)) < NEAR


class CutAlongTime(nn.Module):
    """A causal convolution: what it cuts off leaves gaps in memory, and batch_norm makes dense memory of that."""

    def __init__(self, steps):
        super().__init__()
        self.conv, self.norm, self.steps = nn.Conv1d(4, 4, 3, padding=2), nn.BatchNorm1d(4), steps

    def forward(self, x):
        y = self.norm(self.conv(x)[:, :, :-2])
        for _ in range(self.steps):
            y = torch.relu(y + 1)
        return y.view(-1)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_view_behind_a_cut(steps):
    module, x = CutAlongTime(steps).eval(), torch.randn(2, 4, 9)
    for spelling in (torch.jit.trace(module, x), torch.jit.script(module)):
        optimized = bnfold.optimize_for_inference(spelling, x)
        with torch.no_grad():
            assert relative_error(module(x), optimized(x)) < NEAR


@pytest.mark.parametrize(
    "module, inputs, error, text",
    [
        (block().train(), None, bnfold.Error, "eval mode"),
        (block(), torch.randn(2, 3, 9, 9), bnfold.Error, "can't run on the given input"),
        (block(), [IMAGE], TypeError, "example_inputs must be a tensor or a tuple"),
        ("no such file.pt", None, bnfold.LoadError, "no such file"),
        (3, None, TypeError, "module must be a ScriptModule"),
    ],
    ids=["training", "inputs", "list", "path", "number"],
)
def test_bad_arguments(module, inputs, error, text):
    with pytest.raises(error, match=text):
        bnfold.optimize_for_inference(module, inputs)
