"""A module is folded once and then runs on inputs that nobody had in mind: equal to the original, or an error that names the rank."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Optional

import pytest
import torch
import zoo
from calibrate import calibrate, norms_of, relative_error
from torch import nn
from torch.nn import functional as F

import bnfold

Inputs = tuple[torch.Tensor, ...]

# Against the largest value of the output.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4, torch.float16: 2e-2}


class Model(NamedTuple):
    build: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]  # of the inputs that it is made for
    others: tuple[tuple[tuple[int, ...], ...], ...] = ()  # of other ranks, which the original takes where the sizes agree


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.behind = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        y = torch.relu(self.norm(self.first(x)))
        return self.behind(self.second(y)) + x


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.norm = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))


class Gated(nn.Module):
    """A norm without a shift, behind a gate."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(4, 4, 1), nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("variance", torch.rand(4) + 0.5)

    def forward(self, x, y):
        return F.batch_norm(self.conv(x) * self.gate(y).view(-1, 4, 1, 1), self.mean, self.variance)


class Viewed(nn.Module):
    """The convolution's output is viewed with sizes that an image without a batch has too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y.view(y.shape[0], 4, -1))


class Product(nn.Module):
    """A factor with two dimensions, and an input with as many or more."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.factor = nn.Linear(4, 6), nn.BatchNorm1d(4), nn.Parameter(torch.randn(4))

    def forward(self, x):
        return self.linear(self.norm(torch.softmax(self.factor, 0).view(1, 4) * x))


class Maybe(nn.Module):
    """What the branch proves holds where it runs."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        y = self.norm(self.linear(x))
        if y.dim() == 2:
            y = y.permute(1, 0)
        return y


class Reached(nn.Module):
    """The norm is reached by images with a batch alone."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        if x.dim() == 4:
            y = F.batch_norm(y, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
        else:
            y = torch.zeros_like(y)
        return y


class Repeated(nn.Module):
    """The norm stands in a loop that may have no round."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        for _ in range(x.size(0) - 1):
            x = self.norm(self.linear(x))
        return x


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(4, 5, 1), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x):
        return self.linear(self.norm(self.conv(x).mean([-2, -1])))


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(8)

    def forward(self, x, y):
        return self.norm(torch.cat([self.one(x), self.other(y)], 1))


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other, self.norm = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x, y):
        return self.norm(self.one(x) + self.other(y))


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)

    def forward(self, x, mask: Optional[torch.Tensor] = None):
        y = self.linear(x)
        if mask is not None:
            y = y * mask
        return self.norm(y)


class Permuted(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(self.linear(x).transpose(-1, -2))


class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(F.adaptive_avg_pool2d(self.conv(x), 1).squeeze(-1).squeeze(-1))


class AllSqueezed(Squeezed):
    def forward(self, x):
        return self.norm(self.conv(x).squeeze())


class Unflattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 12), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.linear(x).unflatten(-1, (3, 2, 2)))


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(self.linear(F.normalize(x)))


class Attended(nn.Module):
    """Rows of two inputs, of which a loop goes through one."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x, y):
        for row in range(y.size(0)):
            x = x + self.norm(self.linear(x)) * y[row]
        return x


class Frozen(nn.Module):
    """A norm of constants, which broadcast."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.register_buffer("scale", torch.rand(1, 4, 1, 1) + 0.5)
        self.register_buffer("shift", torch.randn(1, 4, 1, 1))

    def forward(self, x):
        return torch.relu(self.conv(x) * self.scale + self.shift)


MODELS = {
    "conv": Model(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), ((2, 3, 6, 6),), (((3, 6, 6),),)),
    "norm, conv": Model(lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), ((2, 3, 6, 6),), (((3, 3, 6),),)),
    "conv1d": Model(lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU()), ((2, 3, 6),), (((3, 6),),)),
    "linear": Model(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), ((3, 4),), (((3, 6, 4),), ((4,),))),
    "norm, linear": Model(lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 6)), ((3, 4),), (((3, 4, 4),),)),
    "residual": Model(Residual, ((2, 4, 5, 5),), (((4, 4, 5),),)),
    "squeeze and excite": Model(SqueezeExcite, ((2, 4, 5, 5),), (((4, 4, 5),),)),
    "gated": Model(Gated, ((2, 4, 5, 5), (2, 4)), (((4, 4, 5), (2, 4)), ((2, 4, 5, 5), (1, 4)))),
    "viewed": Model(Viewed, ((2, 3, 8, 8),), (((3, 8, 8),),)),
    "product": Model(Product, ((2, 4),), (((2, 4, 4),), ((4,),), ((2, 4, 4, 4),))),
    "maybe": Model(Maybe, ((3, 4),), (((3, 6, 4),),)),
    "reached": Model(Reached, ((2, 3, 6, 6),), (((3, 6, 6),),)),
    "repeated": Model(Repeated, ((3, 4),), (((3, 4, 4),), ((1, 4),), ((1, 4, 4, 4),), ((1,),))),
    "mean": Model(Mean, ((2, 4, 5, 5),), (((4, 5, 5),),)),
    "joined": Model(Joined, ((2, 3, 5, 5), (2, 3, 5, 5)), (((3, 5, 5), (3, 5, 5)),)),
    "sum": Model(Sum, ((3, 4), (3, 4)), (((3, 4, 4), (3, 4)), ((4,), (3, 4)), ((3, 4), (4, 3, 4)), ((3, 4), (4,)))),
    "masked": Model(Masked, ((3, 4),), (((3, 6, 4),), ((3, 4), (3, 6)), ((3, 4), (3, 3, 6)), ((3, 4), (2, 3, 3, 6)))),
    "permuted": Model(Permuted, ((3, 5, 4),), (((6, 4),), ((2, 6, 5, 4),))),
    "squeezed": Model(Squeezed, ((2, 4, 5, 5),), (((4, 4, 5),), ((4, 5, 5),))),
    "all squeezed": Model(AllSqueezed, ((2, 4, 3, 1),), (((2, 4, 1, 1),), ((1, 4, 4, 1),), ((4, 1, 4),))),
    "unflattened": Model(Unflattened, ((2, 4),), (((2, 3, 4),),)),
    "normalized": Model(Normalized, ((3, 4),), (((3, 6, 4),),)),
    "attended": Model(Attended, ((3, 4), (2, 4)), (((3, 4, 4), (2, 4)), ((3, 4), (2, 3, 4)), ((3, 4), (2, 3, 3, 4)))),
    "frozen": Model(Frozen, ((2, 4, 5, 5),), (((4, 4, 5),),)),
    "pooled": Model(
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4)),
        ((2, 4, 4, 4),),
        (((4, 4, 4),),),
    ),
}

# Loops, conditions and what depends on sizes are lost in a trace.
TRACED = ("conv", "norm, conv", "conv1d", "linear", "norm, linear", "residual", "squeeze and excite", "gated", "viewed", "product", "mean", "joined", "sum",
          "permuted", "squeezed", "normalized", "frozen", "pooled")


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield


class Door(NamedTuple):
    """A way in: what it makes of a module, and what runs around the result."""

    open: Callable[[torch.jit.ScriptModule, Inputs], Any]
    around: Callable[[], Any] = _nothing


DOORS = {
    "fold": Door(lambda module, example: bnfold.fold(module).module),
    "fold with an example": Door(lambda module, example: bnfold.fold(module, example).module),
    "freeze": Door(lambda module, example: bnfold.freeze(module)),
    "pass": Door(lambda module, example: torch.jit.freeze(module, optimize_numerics=False), bnfold.registered_pass),
}


@torch.no_grad()
def module_of(name: str, spelling: str) -> tuple[torch.jit.ScriptModule, Inputs]:
    torch.manual_seed(0)
    model = MODELS[name].build().eval()
    inputs = tuple(torch.randn(shape) for shape in MODELS[name].shapes)
    ran = calibrate(model, inputs)
    for norm in (norm for path, norm in norms_of(model).items() if path not in ran):  # called as a function
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.normal_()
    return zoo.to_torchscript(model, inputs, spelling), inputs


def unfriendly(model: Model, inputs: Inputs) -> Iterator[tuple[str, Inputs]]:
    yield "those that it is made for", inputs
    for shapes in model.others:
        yield f"{shapes}", tuple(torch.randn(shape) for shape in shapes)
    for batch in (0, 1, 3):
        yield f"batch {batch}", tuple(torch.randn(batch, *x.shape[1:]) for x in inputs)
    if inputs[0].dim() > 2:
        yield "spatial size 1", tuple(torch.randn(*x.shape[:2], *(1 for _ in x.shape[2:])) for x in inputs)
    yield "expanded", tuple(torch.randn(1, *x.shape[1:]).expand(x.shape) for x in inputs)
    yield "transposed", tuple(torch.randn(*x.shape[:-2], x.shape[-1], x.shape[-2]).transpose(-1, -2) for x in inputs)
    if inputs[0].dim() == 4:
        yield "channels_last", tuple(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs)
    yield "overlapping", tuple(torch.randn(2 * x.numel()).as_strided(x.shape, [1] * x.dim()) for x in inputs)
    if len(inputs) > 1:
        yield "one tensor for all", (inputs[0],) * len(inputs)


def ran(module: Any, inputs: Inputs) -> tuple[Optional[torch.Tensor], str]:
    """The output, or the error."""
    try:
        return module(*inputs), ""
    except (RuntimeError, torch.jit.Error) as error:
        return None, str(error)


def assert_right(case: str, expected: torch.Tensor, actual: Optional[torch.Tensor], error: str) -> None:
    if actual is None:
        assert "rank" in error or "dimension" in error, (case, error)
        return
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, case
    if expected.numel() == 0:
        return
    largest = expected.double().abs().max().clamp_min(1e-3)
    assert float((actual.double() - expected.double()).abs().max() / largest) <= TOLERANCE[expected.dtype], case


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name, spelling", [(name, "scripted") for name in MODELS] + [(name, "traced") for name in TRACED])
@torch.no_grad()
def test_inputs_that_nobody_had_in_mind(name, spelling, door, dtype):
    module, inputs = module_of(name, spelling)
    original = copy.deepcopy(module).to(dtype)
    folded = DOORS[door].open(module.to(dtype), tuple(x.to(dtype) for x in inputs))
    with DOORS[door].around():
        for case, some in unfriendly(MODELS[name], inputs):
            given = tuple(x.to(dtype) if x.dtype != dtype else x for x in some)
            before = [x.clone() for x in given]
            expected, _ = ran(original, given)
            for _ in range(2):
                actual, error = ran(folded, given)
                if expected is not None:
                    assert_right(case, expected, actual, error)
                assert all(torch.equal(x, y) for x, y in zip(given, before)), case


@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
def test_what_it_is_made_for_is_not_refused(spelling):
    for name in MODELS if spelling == "scripted" else TRACED:
        module, inputs = module_of(name, spelling)
        for example in (None, inputs):
            bnfold.fold(module, example).module(*inputs)


class ViewedInstanceNorm(nn.Module):
    """instance_norm makes contiguous memory, which a view needs, of an image in channels_last."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.behind = nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.Conv2d(4, 4, 1)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        y = self.norm(self.conv(x))
        z = self.behind(y)
        return y.view(y.shape[0], -1), z.view(z.shape[0], -1)


def test_what_an_instance_norm_made_is_viewed():
    torch.manual_seed(0)
    original = torch.jit.script(ViewedInstanceNorm().eval().double())
    result = bnfold.fold(original)
    assert not result.report.kept
    for batch in (1, 2):
        x = torch.randn(batch, 3, 6, 6, dtype=torch.float64).to(memory_format=torch.channels_last)
        for expected, actual in zip(original(x), result.module(x)):
            assert relative_error(expected, actual) <= TOLERANCE[torch.float64]
