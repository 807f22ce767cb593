"""What a fold leaves lies in memory as the norm's output did: a view of it, and what is written through a view, is that of the original."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import zoo
from calibrate import relative_error
from cases import EXACT, double, prepared
from torch import nn
from torch.nn import functional as F

import bnfold

FORMS = ("traced", "exported")
Parts = nn.ModuleDict
Step = Callable[[Parts, torch.Tensor], torch.Tensor]


class Written(nn.Module):
    """Its norm's output, behind a product that makes memory of its own, is written through what is a view where that is contiguous."""

    def __init__(self, compute: Step):
        super().__init__()
        self.compute = compute
        self.parts = Parts(
            {
                "conv": nn.Conv2d(4, 4, 3, padding=1),
                "other": nn.Conv2d(4, 4, 3, padding=1),
                "linear": nn.Linear(6, 6),
                "norm": nn.BatchNorm2d(4),
                "signal_norm": nn.BatchNorm1d(4),
                "signal_conv": nn.Conv1d(4, 4, 1),
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.compute(self.parts, x) * 2
        y.flatten(1).mul_(3)
        return y


def folds_of(model: nn.Module, inputs: tuple[torch.Tensor, ...], form: str) -> tuple[Callable, bnfold.Report]:
    if form == "exported":
        result = bnfold.fold(torch.export.export(model, inputs))
        return result.program.module(), result.report
    result = bnfold.fold(zoo.to_torchscript(model, inputs, form))
    return result.module, result.report


def assert_in_order(model: nn.Module, run: Callable, *inputs: torch.Tensor) -> None:
    for _ in range(2):
        expected, actual = model(*inputs), run(*inputs)
        assert relative_error(expected, actual) <= EXACT
        assert actual.stride() == expected.stride()


def swapped(value: torch.Tensor) -> torch.Tensor:
    return value.transpose(2, 3)


BACKWARD: dict[str, Step] = {
    "a view of a view": lambda parts, x: parts["norm"](swapped(swapped(parts["conv"](x)))),
    "permuted": lambda parts, x: parts["norm"](swapped(parts["conv"](x))),
    "made contiguous between": lambda parts, x: parts["norm"](swapped(swapped(parts["conv"](x)).contiguous())),
    "copied as contiguous between": lambda parts, x: parts["norm"](
        swapped(swapped(parts["conv"](x)).clone(memory_format=torch.contiguous_format))
    ),
    "pooled between": lambda parts, x: parts["norm"](swapped(F.avg_pool2d(swapped(parts["conv"](x)), 2))),
    "interpolated between": lambda parts, x: parts["norm"](swapped(F.interpolate(swapped(parts["conv"](x)), scale_factor=2.0))),
    "rolled between": lambda parts, x: parts["norm"](swapped(swapped(parts["conv"](x)).roll(1, 2))),
    "flipped between": lambda parts, x: parts["norm"](swapped(swapped(parts["conv"](x)).flip(2))),
    "elementwise between": lambda parts, x: parts["norm"](swapped(swapped(parts["conv"](x)) * 2 + 1)),
    "a sum of permuted values": lambda parts, x: parts["norm"](swapped(parts["conv"](x)) + swapped(parts["other"](x))),
    "a concatenation of permuted values": lambda parts, x: parts["norm"](
        torch.cat([swapped(parts["conv"](x))[:, :2], swapped(parts["other"](x))[:, 2:]], 1)
    ),
    "pixels last": lambda parts, x: parts["norm"](parts["linear"](x.permute(0, 2, 3, 1)[..., :1].expand(2, 6, 6, 6)).permute(0, 3, 1, 2)[:, :4]),
    "a signal, pooled": lambda parts, x: parts["signal_norm"](F.avg_pool1d(parts["linear"](x[:, 0]).transpose(1, 2)[:, :4], 2)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", BACKWARD)
def test_what_a_layer_makes_in_the_place_of_a_norm(what, form):
    inputs = (double(2, 4, 6, 6),)
    model = prepared(Written(BACKWARD[what]), inputs)
    run, report = folds_of(model, inputs, form)
    assert report.kept == ()
    assert_in_order(model, run, *inputs)


DECLINED: dict[str, Step] = {
    "padded between": lambda parts, x: parts["norm"](swapped(F.pad(swapped(parts["conv"](x)), (1, 1, 1, 1), mode="replicate"))),
    "rows taken between": lambda parts, x: parts["norm"](swapped(swapped(parts["conv"](x)).index_select(2, torch.tensor([0, 2, 1])))),
    "a sum in two orders": lambda parts, x: parts["norm"](parts["conv"](x) + swapped(parts["other"](x))),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", DECLINED)
def test_an_order_that_is_not_known(what, form):
    inputs = (double(2, 4, 6, 6),)
    model = prepared(Written(DECLINED[what]), inputs)
    run, report = folds_of(model, inputs, form)
    assert [norm.reason for norm in report.kept] == ["memory_order_unknown"]
    assert_in_order(model, run, *inputs)


class Viewed(nn.Module):
    def __init__(self, pool: Callable):
        super().__init__()
        self.norm, self.linear, self.pool = nn.BatchNorm1d(4), nn.Linear(12, 2), pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(self.pool(x.transpose(1, 2), 2)).view(x.shape[0], 12))


# Averages lie as what they are taken of, with the channels last here, and the norm makes contiguous memory of that.
@pytest.mark.parametrize(("pool", "lies_as_its_input"), [(F.avg_pool1d, True), (F.max_pool1d, False)])
def test_a_view_of_a_pooled_signal(pool, lies_as_its_input):
    inputs = (double(2, 6, 4),)
    model = prepared(Viewed(pool), inputs)
    run, report = folds_of(model, inputs, "traced")
    obstacles = [obstacle.reason for norm in report.kept for obstacle in norm.obstacles]
    assert ("memory_order_unknown" in obstacles) == lies_as_its_input
    assert (report.kept == ()) != lies_as_its_input
    assert relative_error(model(*inputs), run(*inputs)) <= EXACT


# A weight in channels_last makes channels_last of every input; the norm of an input lies as the input.
SUMS: dict[str, tuple[Step, bool]] = {
    "norm + conv": (lambda parts, x: parts["norm"](x) + parts["conv"](x), False),
    "conv + norm": (lambda parts, x: parts["conv"](x) + parts["norm"](x), True),
    "norm + (conv + conv)": (lambda parts, x: parts["norm"](x) + (parts["other"](x.tanh()) + parts["conv"](x)), False),
    "norm of x + conv": (lambda parts, x: parts["norm"](x + parts["conv"](x)), False),
    "norm of conv + x": (lambda parts, x: parts["norm"](parts["conv"](x) + x), True),
    "conv + norm of conv": (lambda parts, x: parts["conv"](x) + parts["norm"](parts["other"](x)), True),
    "norm + conv of what a layer makes": (lambda parts, x: parts["norm"](y := parts["other"](x).relu()) + parts["conv"](y), True),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_channels_last", [False, True])
@pytest.mark.parametrize("weights_in_channels_last", [False, True])
@pytest.mark.parametrize("what", SUMS)
def test_what_is_left_of_a_sum(what, weights_in_channels_last, in_channels_last, form):
    compute, folds_in_channels_last = SUMS[what]
    inputs = (double(2, 4, 6, 6),)
    model = prepared(Written(compute), inputs)
    if weights_in_channels_last:
        for conv in (model.parts["conv"], model.parts["other"]):
            conv.to(memory_format=torch.channels_last)
    if in_channels_last:
        inputs = (inputs[0].contiguous(memory_format=torch.channels_last),)
    run, report = folds_of(model, inputs, form)
    assert (report.kept == ()) == (folds_in_channels_last or not weights_in_channels_last)
    assert_in_order(model, run, *inputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first_in_channels_last", [False, True])
@pytest.mark.parametrize("in_channels_last", [False, True])
def test_parallel_convolutions_of_two_formats(in_channels_last, first_in_channels_last, form):
    model = Written(lambda parts, x: parts["norm"](parts["conv"](x)) + parts["other"](x)).double().eval()
    model.parts["conv" if first_in_channels_last else "other"].to(memory_format=torch.channels_last)
    x = double(2, 4, 6, 6)
    inputs = (x.contiguous(memory_format=torch.channels_last) if in_channels_last else x,)
    run, report = folds_of(model, inputs, form)
    assert len(report.merged) == 1
    assert_in_order(model, run, *inputs)


# The operators that make new memory in the place of the first four lay it out as contiguous.
OVERWRITES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "masked_fill_": lambda y: y.masked_fill_(y > 0, 1.0),
    "cumsum_": lambda y: y.cumsum_(1),
    "tril_": lambda y: y.tril_(),
    "triu_": lambda y: y.triu_(),
    "relu_": lambda y: y.relu_(),
    "add_": lambda y: y.add_(y.sigmoid()),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_channels_last", [False, True])
@pytest.mark.parametrize("overwrite", OVERWRITES)
def test_what_overwrites_a_norms_output_keeps_its_order(overwrite, in_channels_last, form):
    inputs = (double(2, 4, 6, 6),)
    model = prepared(Written(lambda parts, x: OVERWRITES[overwrite](parts["norm"](parts["conv"](x)))), inputs)
    if in_channels_last:
        inputs = (inputs[0].contiguous(memory_format=torch.channels_last),)
    run, report = folds_of(model, inputs, form)
    assert report.kept == ()
    assert_in_order(model, run, *inputs)
    frozen = bnfold.freeze(torch.jit.trace(model, inputs))
    assert_in_order(model, frozen, *inputs)


TOKENS: dict[str, Step] = {
    "flattened": lambda parts, x: parts["signal_norm"](parts["conv"](x).flatten(2)),
    "reshaped": lambda parts, x: parts["signal_norm"](parts["conv"](x).reshape(x.shape[0], 4, -1)),
    "cut and squeezed": lambda parts, x: parts["signal_norm"](parts["conv"](x)[..., :1].squeeze(3)),
    "averaged": lambda parts, x: parts["signal_norm"](parts["conv"](x).mean(3)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("in_channels_last", [False, True])
@pytest.mark.parametrize("what", TOKENS)
def test_what_an_image_becomes_for_a_norm_of_three_dimensions(what, in_channels_last, form):
    inputs = (double(2, 4, 6, 6),)
    model = prepared(Written(TOKENS[what]), inputs)
    if in_channels_last:
        inputs = (inputs[0].contiguous(memory_format=torch.channels_last),)
    run, report = folds_of(model, inputs, form)
    assert report.kept == ()
    assert_in_order(model, run, *inputs)


STEPS: dict[str, Step] = {
    "pooled": lambda parts, x: F.max_pool2d(parts["conv"](x), 2),
    "joined": lambda parts, x: torch.cat([parts["conv"](x), parts["other"](x)], 1),
    "stacked": lambda parts, x: torch.stack([parts["conv"](x), parts["other"](x)], 0)[1],
    "averaged": lambda parts, x: parts["conv"](x) * parts["other"](x).mean((2, 3), keepdim=True).sigmoid(),
}


@pytest.mark.parametrize("example_in_channels_last", [False, True])
@pytest.mark.parametrize("what", STEPS)
def test_what_is_written_behind_a_step(what, example_in_channels_last):
    image = torch.randn(2, 4, 6, 6)
    in_channels_last = image.contiguous(memory_format=torch.channels_last)
    model = Written(STEPS[what]).eval()
    example = in_channels_last if example_in_channels_last else image
    optimized = bnfold.optimize_for_inference(torch.jit.trace(model, example), example)
    for inputs in (image, in_channels_last, image.transpose(2, 3), torch.randn(5, 4, 6, 6)):
        assert relative_error(model(inputs), optimized(inputs)) < 1e-5


class Chosen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        if bool(x.sum() > 0):
            y = self.other(x)
        y = y * 1
        y.flatten(1).mul_(3)
        return y


@pytest.mark.parametrize("example_in_channels_last", [False, True])
def test_what_is_written_behind_a_branch(example_in_channels_last):
    image = torch.randn(2, 4, 6, 6).abs()
    in_channels_last = image.contiguous(memory_format=torch.channels_last)
    model = Chosen().eval()
    optimized = bnfold.optimize_for_inference(torch.jit.script(model), in_channels_last if example_in_channels_last else image)
    for inputs in (image, in_channels_last, -image, -in_channels_last):
        assert relative_error(model(inputs), optimized(inputs)) < 1e-5


# LibTorch's kernels for volumes choose an order by size and dtype, whatever that of the input is.
VOLUMES: dict[str, Step] = {
    "norm + conv": lambda parts, x: parts["norm"](x) + parts["conv"](x),
    "conv + norm": lambda parts, x: parts["conv"](x) + parts["norm"](x),
    "norm of conv + conv of it": lambda parts, x: parts["norm"](y := parts["conv"](x)) + parts["pixel"](y),
    "conv of a voxel + norm of conv": lambda parts, x: parts["pixel"](x) + parts["norm"](parts["conv"](x)),
    "norm of conv + conv of a voxel": lambda parts, x: parts["norm"](parts["conv"](x)) + parts["pixel"](x),
    "norm of x + conv of x": lambda parts, x: parts["norm"](x + parts["pixel"](x)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weights_in_channels_last", [False, True])
@pytest.mark.parametrize("in_channels_last", [False, True])
@pytest.mark.parametrize("what", VOLUMES)
def test_volumes(what, in_channels_last, weights_in_channels_last, dtype):
    model = Written(VOLUMES[what])
    layers = {"conv": nn.Conv3d(4, 4, 3, padding=1), "pixel": nn.Conv3d(4, 4, 1), "norm": nn.BatchNorm3d(4)}
    model.parts = Parts(layers)
    prepared(model, (double(2, 4, 4, 6, 5),)).to(dtype)
    if weights_in_channels_last:
        model.to(memory_format=torch.channels_last_3d)
    run, _ = folds_of(model, (torch.randn(2, 4, 4, 6, 5, dtype=dtype),), "traced")
    for batch in (1, 2, 4):
        x = torch.randn(batch, 4, 4, 6, 5, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last_3d) if in_channels_last else x
        expected, actual = model(x), run(x)
        assert relative_error(expected, actual) < (1e-5 if dtype == torch.float32 else EXACT)
        assert actual.stride() == expected.stride()


class OfTwo(Written):
    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        y = self.parts["norm"](x) + (self.parts["other"](other) + self.parts["conv"](x))
        y.flatten(1).mul_(3)
        return y


@pytest.mark.parametrize("form", FORMS)
def test_what_is_left_has_the_order_of_another_input(form):
    inputs = (double(2, 4, 6, 6), double(2, 4, 6, 6).contiguous(memory_format=torch.channels_last))
    model = prepared(OfTwo(F.relu), inputs)
    run, report = folds_of(model, inputs, form)
    assert len(report.kept) == 1
    assert_in_order(model, run, *inputs)
