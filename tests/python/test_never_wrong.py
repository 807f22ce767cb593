"""Where a fold would be wrong, the norm is kept and the report says why; beside each such case, the one where it is right."""

from __future__ import annotations

import copy
import itertools
from typing import NamedTuple, Optional

import pytest
import torch
import zoo
from calibrate import calibrate, norms_of, relative_error
from cases import EXACT, assert_equal, assert_folded, assert_kept, double, folded, prepared
from torch import nn
from torch.nn import functional as F

import bnfold

both_spellings = pytest.mark.parametrize("spelling", zoo.SPELLINGS)


def image(channels: int = 3) -> torch.Tensor:
    return double(2, channels, 9, 9)


def conv_and_norm() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))


# ---- the norm itself


@both_spellings
def test_norm_without_running_statistics(spelling):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, track_running_stats=False))
    assert_kept(folded(model, (image(),), spelling), "norm_without_running_statistics")


@both_spellings
def test_norm_in_training_mode_inside_an_eval_model(spelling):
    inputs = (image(),)
    model = prepared(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)), inputs)
    model[1].train()
    module = zoo.to_torchscript(model, inputs, spelling)
    reference = copy.deepcopy(module)
    result = bnfold.fold(module)
    assert [(norm.name, norm.reason) for norm in result.report.kept] == [("1", "norm_in_training_mode")]
    assert [norm.name for norm in result.report.folded] == ["3"]
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert relative_error(reference(*inputs), result.module(*inputs)) < EXACT
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in before.items())
    # The norm goes on collecting its statistics.
    assert relative_error(reference.state_dict()["1.running_mean"], result.module.state_dict()["1.running_mean"]) < EXACT


@both_spellings
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tensor", ["running_mean", "running_var", "weight", "bias"])
def test_statistics_that_are_not_finite(tensor, value, spelling):
    inputs = (image(),)
    model = prepared(conv_and_norm(), inputs)
    getattr(model[1], tensor)[2] = value
    result = bnfold.fold(zoo.to_torchscript(model, inputs, spelling))
    if (tensor, value) == ("running_var", float("inf")):
        assert_folded(result)  # a scale of 0, as with a gamma of 0
    else:
        assert_kept(result, "norm_statistics_not_finite")
    assert_equal(model, result, *inputs)


@pytest.mark.parametrize("variance, kept", [(-1.0, True), (-1e-5, True), (-0.9e-5, False), (0.0, False)])
def test_variance_below_zero(variance, kept):
    inputs = (image(),)
    model = prepared(conv_and_norm(), inputs)
    model[1].running_var[2] = variance
    result = bnfold.fold(model)
    if kept:
        assert_kept(result, "norm_statistics_not_finite")
    else:
        assert_folded(result)
        assert relative_error(model(*inputs), result.module(*inputs)) < 1e-10


def test_norm_whose_tensors_disagree():
    inputs = (image(),)
    model = prepared(conv_and_norm(), inputs)
    model[1].running_mean = double(7)
    assert_kept(bnfold.fold(model), "norm_channels_disagree")


def test_norm_with_other_channels_than_the_conv():
    # It can't run; folding must not make it run.
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(7)).eval()
    result = bnfold.fold(model)
    assert_kept(result, "channels_differ")


def test_norm_with_one_channel_behind_a_conv_with_several():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(1)).eval()
    assert_kept(bnfold.fold(model), "channels_differ")


class ComputedStatistics(nn.Module):
    def __init__(self, factor: bool):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.register_buffer("mean", torch.randn(5))
        self.register_buffer("variance", torch.rand(5) + 0.5)
        self.factor = factor

    def forward(self, x):
        mean = self.mean
        if self.factor:
            mean = mean * x.mean()
        return F.batch_norm(self.conv(x), mean, self.variance)


@both_spellings
def test_computed_statistics(spelling):
    assert_kept(folded(ComputedStatistics(True), (image(),), spelling), "norm_parameters_not_static")
    assert_folded(folded(ComputedStatistics(False), (image(),), spelling), into="conv")


class TrainingFromOutside(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.register_buffer("mean", torch.randn(5))
        self.register_buffer("variance", torch.rand(5) + 0.5)

    def forward(self, x, train: bool):
        return F.batch_norm(self.conv(x), self.mean, self.variance, training=train)


def test_training_decided_at_run_time():
    inputs = (image(), False)
    result = folded(TrainingFromOutside(), inputs)
    assert_kept(result, "norm_in_training_mode")


# ---- who else reads the value


class OtherReader(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.kind = kind

    def forward(self, x):
        y = self.conv(x)
        z = self.norm(y)
        if self.kind == "sum":
            return z + y
        if self.kind == "size":
            return z * float(y.size(1)) * float(y.dim())
        return z


@both_spellings
def test_value_read_by_another_operator(spelling):
    assert_kept(folded(OtherReader("sum"), (image(),), spelling), "value_has_other_readers")


def test_value_whose_size_is_read():
    assert_folded(folded(OtherReader("size"), (image(),)), into="conv")


class Returned(OtherReader):
    def forward(self, x):
        y = self.conv(x)
        return self.norm(y), y


@both_spellings
def test_value_that_is_returned(spelling):
    assert_kept(folded(Returned(""), (image(),), spelling), "value_has_other_readers")


class ReturnedInADict(OtherReader):
    def forward(self, x):
        y = self.conv(x)
        return {"features": y, "out": self.norm(y)}


def test_value_that_is_returned_in_a_dict():
    assert_kept(folded(ReturnedInADict(""), (image(),)), "value_has_other_readers")


class NormOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(x)


@both_spellings
def test_norm_of_the_input(spelling):
    assert_kept(folded(NormOnly(), (image(),), spelling), "value_from_graph_input")


@both_spellings
def test_norm_behind_an_operator_without_a_rule(spelling):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.GroupNorm(1, 5), nn.BatchNorm2d(5))
    assert_kept(folded(model, (image(),), spelling), "no_rule_for_operator")


@both_spellings
def test_norm_behind_a_curve(spelling):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Sigmoid(), nn.BatchNorm2d(5))
    assert_kept(folded(model, (image(),), spelling), "operator_not_affine")


class Branch(nn.Module):
    def __init__(self, inside: bool):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.inside = inside

    def forward(self, x, choice: bool):
        if self.inside:
            if choice:
                x = self.norm(self.conv(x))
            return x
        x = self.conv(x)
        if choice:
            x = self.norm(x)
        return x


@pytest.mark.parametrize("inside", [True, False])
def test_branches(inside):
    model = prepared(Branch(inside), (image(), True))
    result = bnfold.fold(model)
    if inside:
        assert_folded(result, into="conv")
    else:
        # Without the choice, the conv's own value is the result.
        assert [norm.reason for norm in result.report.kept] == ["value_has_other_readers"]
    for choice in (True, False):
        inputs = (image(), choice)
        assert relative_error(model(*inputs), result.module(*inputs)) < EXACT


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x, rounds: int):
        for _ in range(rounds):
            x = self.norm(self.conv(x))
        return x


def test_loop():
    model = prepared(Loop(), (image(), 3))
    result = bnfold.fold(model)
    assert_folded(result, into="conv")
    for rounds in range(4):
        inputs = (image(), rounds)
        assert relative_error(model(*inputs), result.module(*inputs)) < 1e-12


# ---- one conv, several norms


class ConvTwice(nn.Module):
    def __init__(self, norms: int):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3) for _ in range(norms)])

    def forward(self, x):
        for norm in self.norms:
            x = norm(self.conv(x))
        return x


class ConvTwiceWithOneNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(self.norm(self.conv(x))))


@both_spellings
def test_conv_called_with_different_norms(spelling):
    result = folded(ConvTwice(3), (image(),), spelling, error=1e-12)
    assert_folded(result)
    assert [norm.name for norm in result.report.folded] == ["norms.0", "norms.1", "norms.2"]
    kernel, norms = 3 * 3 * 9 + 3, 3 * 6
    assert result.report.parameters_before == kernel + norms
    assert result.report.parameters_after == 3 * kernel


@both_spellings
def test_conv_called_with_and_without_a_norm(spelling):
    class Model(ConvTwice):
        def forward(self, x):
            return self.norms[0](self.conv(x)) + self.conv(x * 2)

    result = folded(Model(1), (image(),), spelling, error=1e-12)
    assert_folded(result)
    kernel = 3 * 3 * 9 + 3
    assert result.report.parameters_after == 2 * kernel
    assert "conv.weight" in result.module.state_dict()


@both_spellings
def test_conv_called_twice_with_the_same_norm(spelling):
    result = folded(ConvTwiceWithOneNorm(), (image(),), spelling, error=1e-12)
    assert_folded(result)
    assert result.report.parameters_after == 3 * 3 * 9 + 3
    assert set(result.module.state_dict()) == {"conv.weight", "conv.bias"}


class TwoConvs(nn.Module):
    def __init__(self, share: str):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.last = nn.BatchNorm2d(3)
        if "weight" in share:
            self.second.weight = self.first.weight
        if "bias" in share:
            self.second.bias = self.first.bias

    def forward(self, x):
        return self.second(self.norm(self.first(x)))


class TwoConvsTwoNorms(TwoConvs):
    def forward(self, x):
        return self.last(self.second(self.norm(self.first(x))))


@both_spellings
@pytest.mark.parametrize("model, share", list(itertools.product([TwoConvs, TwoConvsTwoNorms], ["", "weight", "bias", "weight and bias"])))
def test_tied_parameters(model, share, spelling):
    result = folded(model(share), (image(),), spelling, error=1e-12)
    assert_folded(result)
    names = set(result.module.state_dict())
    assert len(names) == 4
    # A trace reads a tied parameter from one place, so only a script knows that it is the second layer's too.
    if spelling == "scripted":
        assert names == {"first.weight", "first.bias", "second.weight", "second.bias"}


def test_tied_parameters_that_stay_are_tied():
    model = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    model[2].weight = model[0].weight
    model[4].weight = model[0].weight
    module = folded(model, (image(),), error=1e-12).module
    state = module.state_dict()
    assert state["0.weight"].data_ptr() == state["2.weight"].data_ptr() != state["4.weight"].data_ptr()
    module.to(torch.float32)
    assert len({id(parameter) for parameter in module.parameters()}) == len(list(module.parameters()))


class Exported(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.other = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x))

    @torch.jit.export
    def encode(self, x):
        return self.other(self.conv(x))

    @torch.jit.export
    def raw(self, x):
        return self.conv(x)


def test_exported_methods_that_share_a_conv():
    inputs = (image(),)
    model = prepared(Exported(), inputs)
    model.other.running_mean.normal_()
    model.other.weight.normal_()
    result = bnfold.fold(model, inputs)
    assert_folded(result)
    assert sorted(norm.name for norm in result.report.folded) == ["norm", "other"]
    for method in ("forward", "encode", "raw"):
        assert relative_error(getattr(model, method)(*inputs), getattr(result.module, method)(*inputs)) < EXACT


def test_preserved_attributes_choose_the_methods():
    inputs = (image(),)
    model = prepared(Exported(), inputs)
    model.version = 3
    result = bnfold.fold(model, inputs, preserved_attributes=["encode", "version"])
    assert sorted(norm.name for norm in result.report.folded) == ["norm", "other"]
    assert relative_error(model.encode(*inputs), result.module.encode(*inputs)) < EXACT
    assert not hasattr(result.module, "raw")
    assert result.module.version == 3


# ---- values that change


class DynamicWeight(nn.Module):
    def __init__(self, dynamic: bool):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.dynamic = dynamic

    def forward(self, x):
        weight = self.conv.weight
        if self.dynamic:
            weight = weight * x.mean()
        return self.norm(F.conv2d(x, weight, self.conv.bias))


@both_spellings
def test_dynamic_weight(spelling):
    assert_kept(folded(DynamicWeight(True), (image(),), spelling), "weight_not_static")
    assert_folded(folded(DynamicWeight(False), (image(),), spelling), into="conv")


class WeightFromOutside(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x, weight):
        return self.norm(F.conv2d(x, weight))


@both_spellings
def test_weight_that_is_an_argument(spelling):
    assert_kept(folded(WeightFromOutside(), (image(), double(5, 3, 3, 3)), spelling), "weight_not_static")


class WeightChangedInPlace(nn.Module):
    def __init__(self, alias: bool):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.alias = alias

    def forward(self, x):
        if self.alias:
            self.conv.weight.detach().view(-1)[0:10].mul_(1.5)
        else:
            self.conv.weight.detach().mul_(1.5)
        return self.norm(self.conv(x))


@both_spellings
@pytest.mark.parametrize("alias", [True, False])
def test_weight_changed_in_place(alias, spelling):
    inputs = (image(),)
    model = prepared(WeightChangedInPlace(alias), inputs)
    module = zoo.to_torchscript(copy.deepcopy(model), inputs, spelling)
    model = copy.deepcopy(module)  # tracing ran it, and changed it
    result = bnfold.fold(module)
    assert_kept(result, "weight_not_static")
    for _ in range(3):
        assert relative_error(model(*inputs), result.module(*inputs)) < EXACT


class StatisticsChangedInPlace(WeightChangedInPlace):
    def forward(self, x):
        self.norm.running_mean.add_(1.0)
        return self.norm(self.conv(x))


@both_spellings
def test_statistics_changed_in_place(spelling):
    inputs = (image(),)
    module = zoo.to_torchscript(prepared(StatisticsChangedInPlace(False), inputs), inputs, spelling)
    model = copy.deepcopy(module)
    before = module.norm.running_mean.clone()
    result = bnfold.fold(module)
    assert_kept(result, "norm_parameters_not_static")
    for _ in range(3):
        assert relative_error(model(*inputs), result.module(*inputs)) < EXACT
    assert torch.equal(module.norm.running_mean, before)


class OutputChangedInPlace(nn.Module):
    def __init__(self, when: str):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.when = when

    def forward(self, x):
        y = self.conv(x)
        if self.when == "before":
            y.add_(1.0)
        if self.when == "alias":
            y[:, 0].mul_(3.0)
        z = self.norm(y)
        if self.when == "behind":
            z.mul_(3.0)
        if self.when == "late":
            y.add_(1.0)
        return z


@both_spellings
def test_output_changed_in_place_as_a_whole(spelling):
    assert_folded(folded(OutputChangedInPlace("before"), (image(),), spelling), into="conv")


@both_spellings
def test_output_changed_in_place_through_a_view(spelling):
    result = folded(OutputChangedInPlace("alias"), (image(),), spelling)
    assert len(result.report.kept) == 1
    assert result.report.kept[0].reason in ("value_changed_in_place", "value_has_other_readers", "no_rule_for_operator", "affine_varies_elsewhere")


@both_spellings
@pytest.mark.parametrize("when", ["behind", "late"])
def test_changes_that_nobody_sees(when, spelling):
    assert_folded(folded(OutputChangedInPlace(when), (image(),), spelling), into="conv")


class InputChangedInPlaceLater(OutputChangedInPlace):
    """The norm made a copy; without it, the in-place operator behind would write into what the identity returned."""

    def forward(self, x):
        y = self.conv(x)
        z = self.norm(F.dropout(y, training=False))
        z.add_(1.0)
        return z


@both_spellings
def test_result_changed_in_place_behind_an_identity(spelling):
    folded(InputChangedInPlaceLater(""), (image(),), spelling)


class Assigned(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.offset = torch.zeros(5, dtype=torch.float64)

    def forward(self, x):
        self.offset = self.offset + 1.0
        return self.norm(F.conv2d(x, self.conv.weight, self.offset))


def test_bias_that_is_assigned():
    inputs = (image(),)
    model = prepared(Assigned(), inputs)
    module = torch.jit.script(model)
    result = bnfold.fold(module)
    assert_kept(result, "weight_not_static")
    for _ in range(3):
        assert relative_error(module(*inputs), result.module(*inputs)) < EXACT


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls.add_(1)
        return self.norm(self.conv(x)) * self.calls


@pytest.mark.parametrize("with_example", [False, True])
def test_a_counter_stays_and_counts_for_itself(with_example):
    inputs = (image(),)
    module = torch.jit.script(prepared(Counter(), inputs))
    calls = int(module.calls)
    result = bnfold.fold(module, inputs if with_example else None)
    assert_folded(result, into="conv")
    assert int(module.calls) == calls
    assert int(result.module.calls) == calls
    output = result.module(*inputs)
    assert int(result.module.calls) == calls + 1
    assert int(module.calls) == calls
    assert relative_error(module(*inputs), output) < EXACT


# ---- dtypes


def test_complex_weights():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 6, dtype=torch.complex128))
            self.norm = nn.BatchNorm1d(6).double()

        def forward(self, x):
            return self.norm(torch.view_as_real(x @ self.w)[..., 0])

    model = Model().eval()
    inputs = (torch.randn(8, 4, dtype=torch.complex128),)
    result = bnfold.fold(model, inputs)
    assert len(result.report.kept) == 1
    assert relative_error(model(*inputs), result.module(*inputs)) < EXACT


@pytest.mark.filterwarnings("ignore:.*quantize.*deprecated", "ignore:.*quantization.*")
def test_quantized_conv():
    conv = torch.ao.nn.quantized.Conv2d(3, 5, 3)
    quantize = torch.ao.nn.quantized.Quantize(0.1, 0, torch.quint8)
    model = nn.Sequential(quantize, conv, torch.ao.nn.quantized.DeQuantize(), nn.BatchNorm2d(5)).eval()
    inputs = (image().float(),)
    model[3].running_mean.normal_()
    result = bnfold.fold(zoo.to_torchscript(model, inputs, "traced"))
    assert len(result.report.kept) == 1
    assert torch.equal(model(*inputs), result.module(*inputs))


@pytest.mark.parametrize("weight_dtype", [torch.float16, torch.bfloat16])
def test_a_float_norm_behind_narrow_weights(weight_dtype):
    inputs = (torch.randn(2, 3, 9, 9),)
    model = conv_and_norm().eval()
    calibrate(model, inputs)
    reference = copy.deepcopy(model).double()
    model[0].to(weight_dtype)
    result = bnfold.fold(model)
    narrow = inputs[0].to(weight_dtype)
    assert model(narrow).dtype == result.module(narrow).dtype
    assert relative_error(reference(narrow.double()), result.module(narrow)) < 3e-2


class NarrowedAgain(nn.Module):
    """A constant scale behind a layer in half, of which nothing but the dtype is read, and its value where `is_read`."""

    def __init__(self, constants: torch.dtype, is_read: bool):
        super().__init__()
        self.layer, self.is_read = nn.Linear(6, 6).half(), is_read
        self.register_buffer("scale", torch.rand(1, 6, dtype=constants) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        scaled = x * self.scale
        return x + scaled if self.is_read else torch.zeros_like(scaled) + x.to(scaled.dtype)


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("constants", [torch.float32, torch.float16])
def test_a_dtype_that_only_the_constants_make(constants, is_read):
    model, inputs = NarrowedAgain(constants, is_read).eval(), (torch.randn(2, 6).half(),)
    module, program = bnfold.fold(torch.jit.script(model)), bnfold.fold(torch.export.export(model, inputs))
    for run in (module.module, program.program.module()):
        assert run(*inputs).dtype == model(*inputs).dtype
        assert relative_error(model(*inputs), run(*inputs)) < 1e-2
    keeps_dtype = constants == torch.float16
    assert len(program.report.scales) == (keeps_dtype and not is_read)


def test_a_double_norm_behind_float_weights_does_not_run_and_is_kept():
    model = conv_and_norm().eval()
    model[1].double()
    assert_kept(bnfold.fold(model), "dtypes_differ")


def test_a_fold_that_would_overflow():
    inputs = (torch.randn(2, 3, 9, 9).half(),)
    model = conv_and_norm().half().eval()
    model[0].weight.fill_(1.0)
    model[1].weight.fill_(6e4)
    model[1].running_var.fill_(1e-4)
    assert_kept(bnfold.fold(model), "folded_weight_not_finite")
    assert model(*inputs).dtype == torch.float16


# ---- a conv without a batch dimension


class ConvAndFunctionalNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 7, 3)
        self.register_buffer("mean", torch.randn(7))
        self.register_buffer("variance", torch.rand(7) + 0.5)

    def forward(self, x):
        return F.batch_norm(self.conv(x), self.mean, self.variance)


@both_spellings
def test_conv_without_a_batch_dimension(spelling):
    # [C, H, W] is for the norm a batch of C with H channels. A trace shows a squeeze between the two.
    reason = {"scripted": "input_not_batched", "traced": "sizes_unknown"}[spelling]
    assert_kept(folded(ConvAndFunctionalNorm(), (double(3, 9, 9),), spelling), reason)
    assert_folded(folded(ConvAndFunctionalNorm(), (double(2, 3, 9, 9),), spelling), into="conv")


# ---- inputs of other kinds


def test_integer_input():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(10, 4)
            self.linear = nn.Linear(4, 6)
            self.norm = nn.BatchNorm1d(6)

        def forward(self, index):
            return self.norm(self.linear(self.embedding(index)))

    assert_folded(folded(Model(), (torch.arange(8),)), into="linear")
    # [N, L] indices: the norm works along L.
    assert_kept(folded(Model(), (torch.arange(48).remainder(10).view(8, 6),)), "affine_varies_elsewhere")


def test_two_inputs():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = conv_and_norm()
            self.b = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))

        def forward(self, x, y):
            return self.a(x).mean([2, 3]) * self.b(y)

    result = folded(Model(), (image(), double(2, 4)))
    assert_folded(result)
    assert len(result.report.folded) == 2


def test_norms_keep_their_names_in_the_report():
    model = nn.ModuleDict({"a": nn.Sequential(conv_and_norm(), nn.ReLU())})

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = model

        def forward(self, x):
            return self.parts["a"](x)

    module = Model()
    result = folded(module, (image(),))
    assert [norm.name for norm in result.report.folded] == list(norms_of(module)) == ["parts.a.0.1"]


class DefaultArguments(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = conv_and_norm()

    def forward(self, x, factor: float = 2.0, offset: Optional[torch.Tensor] = None):
        y = self.body(x) * factor
        return y if offset is None else y + offset


def test_default_and_keyword_arguments():
    inputs = (image(),)
    model = prepared(DefaultArguments(), inputs)
    result = bnfold.fold(model, inputs)
    assert_folded(result)
    for keywords in ({}, {"factor": 3.0}, {"offset": double(1)}):
        assert relative_error(model(*inputs, **keywords), result.module(*inputs, **keywords)) < EXACT


class Pair(NamedTuple):
    low: torch.Tensor
    high: torch.Tensor


class NamedOutputs(DefaultArguments):
    def forward(self, x) -> Pair:
        y = self.body(x)
        return Pair(y, y + 1.0)


def test_named_tuples_keep_their_names():
    inputs = (image(),)
    model = prepared(NamedOutputs(), inputs)
    output = bnfold.fold(model, inputs).module(*inputs)
    assert relative_error(model(*inputs).high, output.high) < EXACT


class Forked(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = conv_and_norm(), conv_and_norm()

    def forward(self, x):
        task = torch.jit.fork(self.a, x)
        return self.b(x) + torch.jit.wait(task) + self.a(x * 2.0)


def test_forks():
    result = folded(Forked(), (image(),), error=1e-12)
    assert sorted(norm.name for norm in result.report.folded) == ["a.1", "b.1"]


class TwoForks(Forked):
    def forward(self, x):
        tasks = [torch.jit.fork(self.a, x), torch.jit.fork(self.b, x)]
        return torch.jit.wait(tasks[0]) + torch.jit.wait(tasks[1])


def test_what_was_folded_in_a_fork_is_gone():
    result = folded(TwoForks(), (image(),), error=1e-12)
    assert sorted(name for name, _ in result.module.named_parameters()) == ["a.0.bias", "a.0.weight", "b.0.bias", "b.0.weight"]


class WritingFork(Forked):
    """The fork changes what the norm outside of it reads."""

    def change(self, x):
        self.b[1].running_mean.add_(1.0)
        return x

    def forward(self, x):
        task = torch.jit.fork(self.change, x)
        return self.b(torch.jit.wait(task))


def test_forks_that_write():
    inputs = (image(),)
    result = bnfold.fold(torch.jit.script(prepared(WritingFork(), inputs)))
    assert [(norm.name, norm.reason) for norm in result.report.kept] == [("b.1", "norm_parameters_not_static")]


class LinearOfTranspose(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 6))
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(F.linear(x, self.w.t()))


@both_spellings
def test_linear_of_a_transposed_weight(spelling):
    assert_folded(folded(LinearOfTranspose(), (double(8, 6),), spelling))


# ---- ranks and dtypes that an operand tells only where it is there


class OptionalLimit(nn.Module):
    """A limit of more dimensions adds them."""

    def __init__(self):
        super().__init__()
        self.weight, self.norm, self.last = nn.Parameter(torch.randn(4, 4)), nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x, limit: Optional[torch.Tensor] = None):
        return self.last(self.norm(torch.clamp(torch.mm(x, self.weight), limit, None)))


@pytest.mark.parametrize("door", [bnfold.freeze, lambda module: bnfold.fold(module).module])
def test_an_optional_limit_of_another_rank(door):
    model = prepared(OptionalLimit(), (double(4, 4), double(4, 4)))
    module = door(torch.jit.script(model))
    for limit in (double(4, 4), double(1, 4), double(2, 4, 4)):
        x = double(4, 4)
        try:
            output = module(x, limit)
        except torch.jit.Error as error:
            assert "a batch norm was folded into this layer for inputs of rank" in str(error)
        else:
            assert relative_error(model(x, limit), output) < EXACT


class OptionalLimitInPlace(nn.Module):
    """A limit of a wider dtype widens nothing in place."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x, limit: Optional[torch.Tensor] = None):
        return torch.sigmoid(self.conv(x)).clamp_(limit, None), self.norm(self.conv(x))


def test_an_optional_limit_of_another_dtype():
    model = prepared(OptionalLimitInPlace(), (image(), double(3, 1, 1))).float()
    module = bnfold.fold(torch.jit.script(model)).module
    x, limit = image().float(), double(3, 1, 1)
    for given in (limit, limit.float()):
        assert module(x, given)[0].dtype == model(x, given)[0].dtype


class Resized(nn.Module):
    """What is written into gets other dimensions."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        y = torch.empty([0], dtype=torch.double)
        torch.exp(x, out=y)
        z = self.norm(x)
        if y.dim() == 4:
            z = z * 2
        return z


class SqueezedNumber(nn.Module):
    """A number keeps no dimension where it is reduced, and so there is none to drop."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        z = x.sum().mean(0, keepdim=True).squeeze(0)
        y = self.norm(x)
        if z.dim() == 0:
            y = y * 2
        return y


@pytest.mark.parametrize("kind", [Resized, SqueezedNumber])
@pytest.mark.parametrize("hinted", [False, True])
def test_conditions_on_ranks_that_are_not_what_they_seem(kind, hinted):
    inputs = (image(),)
    model = prepared(kind(), inputs)
    module = bnfold.fold(torch.jit.script(model), inputs if hinted else None).module
    for x in (inputs[0], image()[:1]):
        assert relative_error(model(x), module(x)) < EXACT
