"""Every layer that takes a norm in, in every form that changes how its weight or its graph looks."""

from __future__ import annotations

import itertools

import pytest
import torch
import torchvision
import zoo
from cases import assert_equal, assert_folded, assert_kept, double, folded, prepared
from torch import nn
from torch.nn import functional as F

import bnfold

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
SIDES = {1: 12, 2: 9, 3: 7}

both_spellings = pytest.mark.parametrize("spelling", zoo.SPELLINGS)


def image(dimensions: int, channels: int) -> torch.Tensor:
    return double(2, channels, *[SIDES[dimensions]] * dimensions)


def conv_and_norm(conv: nn.Module, **norm_options) -> nn.Sequential:
    dimensions = conv.weight.dim() - 2
    return nn.Sequential(conv, NORMS[dimensions](conv.out_channels, **norm_options))


@both_spellings
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_conv(dimensions, groups, bias, spelling):
    for stride, dilation, padding in [(1, 1, 0), (2, 1, 1), (1, 2, 2)]:
        conv = CONVS[dimensions](4, 8, 3, stride, padding, dilation, groups, bias)
        assert_folded(folded(conv_and_norm(conv), (image(dimensions, 4),), spelling), into="0")


@both_spellings
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_conv_transpose(dimensions, groups, bias, spelling):
    for stride, dilation, padding, output_padding in [(1, 1, 0, 0), (2, 1, 1, 1), (2, 2, 0, 1)]:
        conv = TRANSPOSED[dimensions](
            4, 8, 3, stride, padding, output_padding=output_padding, groups=groups, bias=bias, dilation=dilation
        )
        assert_folded(folded(conv_and_norm(conv), (image(dimensions, 4),), spelling), into="0")


@both_spellings
@pytest.mark.parametrize("groups", [1, 3])
def test_conv_transpose_with_as_many_channels_in_a_group_as_groups(groups, spelling):
    # 9 in, 9 out: a wrong layout of the weight would go unnoticed by its shape.
    conv = nn.ConvTranspose2d(9, 9, 3, groups=groups)
    assert_folded(folded(conv_and_norm(conv), (image(2, 9),), spelling), into="0")


@both_spellings
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_padding_modes(dimensions, mode, spelling):
    conv = CONVS[dimensions](3, 5, 3, padding=2, padding_mode=mode)
    assert_folded(folded(conv_and_norm(conv), (image(dimensions, 3),), spelling), into="0")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@both_spellings
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_string_padding(dimensions, padding, mode, spelling):
    # An even kernel makes 'same' pad unevenly.
    conv = CONVS[dimensions](3, 5, 4, padding=padding, padding_mode=mode, bias=dimensions != 2)
    assert_folded(folded(conv_and_norm(conv), (image(dimensions, 3),), spelling), into="0")


@both_spellings
@pytest.mark.parametrize("affine, eps", list(itertools.product([True, False], [1e-5, 0.1, 10.0])))
def test_norm_options(affine, eps, spelling):
    assert_folded(folded(conv_and_norm(nn.Conv2d(3, 5, 3), affine=affine, eps=eps), (image(2, 3),), spelling), into="0")


@both_spellings
def test_channels_last(spelling):
    model = conv_and_norm(nn.Conv2d(3, 5, 3)).to(memory_format=torch.channels_last)
    assert_folded(folded(model, (image(2, 3).to(memory_format=torch.channels_last),), spelling), into="0")


def test_sync_batch_norm_traced():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(conv_and_norm(nn.Conv2d(3, 5, 3)))
    assert isinstance(model[1], nn.SyncBatchNorm)
    assert_folded(folded(model, (image(2, 3),), "traced"), into="0")


@both_spellings
def test_several_norms_in_a_row(spelling):
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.BatchNorm2d(5), nn.Dropout(), nn.BatchNorm2d(5))
    result = folded(model, (image(2, 3),), spelling)
    assert_folded(result)
    assert [norm.into for norm in result.report.folded] == [("0",), ("0",), ("0",)]


class FunctionalConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(5, 3, 3, 3))
        self.offset = nn.Parameter(torch.randn(5))
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x):
        return self.norm(F.conv2d(x, self.kernel, self.offset, padding=1))


class FunctionalConvWithoutBias(FunctionalConv):
    def forward(self, x):
        return self.norm(F.conv2d(x, self.kernel, padding=1))


@both_spellings
@pytest.mark.parametrize("model", [FunctionalConv, FunctionalConvWithoutBias])
def test_functional_conv(model, spelling):
    assert_folded(folded(model(), (image(2, 3),), spelling))


@both_spellings
@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias, spelling):
    model = nn.Sequential(nn.Linear(4, 6, bias), nn.BatchNorm1d(6))
    assert_folded(folded(model, (double(8, 4),), spelling), into="0")


class MatmulAndAdd(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 6))
        self.b = nn.Parameter(torch.randn(6))
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(x @ self.w + self.b)


class Matmul(MatmulAndAdd):
    def forward(self, x):
        return self.norm(torch.matmul(x, self.w))


class Addmm(MatmulAndAdd):
    def forward(self, x):
        return self.norm(torch.addmm(self.b, x, self.w))


class AddmmOfTranspose(MatmulAndAdd):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 4))

    def forward(self, x):
        return self.norm(torch.addmm(self.b, x, self.w.t()))


class ScaledAddmm(MatmulAndAdd):
    def forward(self, x):
        return self.norm(torch.addmm(self.b, x, self.w, alpha=2.0))


class ScaledAdd(MatmulAndAdd):
    def forward(self, x):
        return self.norm(torch.add(x @ self.w, self.b, alpha=3))


class AddedMatrix(MatmulAndAdd):
    """The addend differs from row to row."""

    def __init__(self):
        super().__init__()
        self.b = nn.Parameter(torch.randn(8, 6))


@both_spellings
@pytest.mark.parametrize("model", [MatmulAndAdd, Matmul, Addmm, AddmmOfTranspose, ScaledAdd, AddedMatrix])
def test_products_with_a_parameter(model, spelling):
    assert_folded(folded(model(), (double(8, 4),), spelling))


@both_spellings
def test_a_product_that_is_kept(spelling):
    assert_kept(folded(ScaledAddmm(), (double(8, 4),), spelling), "operand_not_constant")


def linear_norm(features: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, features), nn.BatchNorm1d(channels))


@both_spellings
def test_a_norm_along_the_length_is_no_norm_of_the_features(spelling):
    # [N, L, F] with L == F: the shapes would allow the wrong fold.
    assert_kept(folded(linear_norm(6, 6), (double(8, 6, 4),), spelling), "affine_varies_elsewhere")


def test_a_linear_folded_for_rank_2_refuses_rank_3():
    model = linear_norm(6, 6)
    result = folded(model, (double(8, 4),), ranks=False)
    assert_folded(result)
    with pytest.raises(torch.jit.Error, match="RuntimeError: a batch norm was folded into this layer for inputs of rank 2"):
        result.module(double(8, 6, 4))


def test_the_option_input_ranks_does_what_example_inputs_do():
    model = prepared(linear_norm(6, 6), (double(8, 6, 4),))
    assert_kept(bnfold.fold(model, input_ranks=[3]), "affine_varies_elsewhere")
    assert_folded(bnfold.fold(model, input_ranks=[2]))


class LinearTransposed(nn.Module):
    def __init__(self, first: int = 1, second: int = 2):
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.first, self.second = first, second

    def forward(self, x):
        return self.norm(self.linear(x).transpose(self.first, self.second))


@both_spellings
@pytest.mark.parametrize("first, second", [(1, 2), (-1, -2), (2, 1)])
def test_linear_behind_a_transpose(first, second, spelling):
    assert_folded(folded(LinearTransposed(first, second), (double(3, 5, 4),), spelling), into="linear")


@both_spellings
def test_linear_behind_the_wrong_transpose(spelling):
    # [N, L, F] -> [L, N, F]: the norm works along N.
    assert_kept(folded(LinearTransposed(0, 1), (double(6, 5, 4),), spelling), "affine_varies_elsewhere")


class LinearFlattened(LinearTransposed):
    def forward(self, x):
        return self.norm(self.linear(x).flatten(0, 1))


class LinearFlattenedFeatures(LinearTransposed):
    """[N, 3, 2 * L] -> [N, 6]: the norm's channels are no features."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.norm(self.linear(x).flatten(1, 2))


@both_spellings
def test_linear_behind_a_flatten(spelling):
    assert_folded(folded(LinearFlattened(), (double(3, 5, 4),), spelling), into="linear")


@both_spellings
def test_linear_behind_a_flatten_of_its_features(spelling):
    assert_kept(folded(LinearFlattenedFeatures(), (double(8, 3, 4),), spelling), "affine_varies_elsewhere")


class LinearPermuted(nn.Module):
    """Channels last, as ConvNeXt's pointwise layers: [N, H, W, F] -> [N, F, H, W]."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 6)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        return self.norm(self.linear(x).permute(0, 3, 1, 2))


@both_spellings
def test_linear_behind_a_permute(spelling):
    result = folded(LinearPermuted(), (double(2, 3, 5, 4),), spelling)
    assert_folded(result, into="linear")


@both_spellings
@pytest.mark.parametrize("model, shape", [(LinearPermuted, (2, 3, 5, 4)), (LinearTransposed, (3, 5, 4))])
def test_strides_of_the_output_stay(model, shape, spelling):
    # A norm gives its output the memory format of its input, or makes it contiguous. Others would make a view() behind it fail.
    model, inputs = model(), (double(*shape),)
    result = folded(model, inputs, spelling)
    assert result.module(*inputs).stride() == model(*inputs).stride()


class PreActivation(nn.Module):
    """norm, ReLU, convolution with zero padding, twice, beside an identity."""

    def __init__(self, dimensions: int, activation: bool):
        super().__init__()
        self.norm1, self.norm2 = NORMS[dimensions](6), NORMS[dimensions](6)
        self.conv1 = CONVS[dimensions](6, 6, 3, padding=1, bias=False)
        self.conv2 = CONVS[dimensions](6, 6, 3, padding=1, bias=False)
        self.first = nn.ReLU() if activation else nn.Identity()

    def forward(self, x):
        return x + self.conv2(F.relu(self.norm2(self.conv1(self.first(self.norm1(x))))))


def pre_activation(dimensions: int, activation: bool = True) -> nn.Sequential:
    stem = CONVS[dimensions](3, 6, 3, padding=1)
    return nn.Sequential(stem, PreActivation(dimensions, activation), PreActivation(dimensions, activation))


@both_spellings
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_pre_activation_blocks(dimensions, spelling):
    model, inputs = pre_activation(dimensions), (image(dimensions, 3),)
    result = folded(model, inputs, spelling)
    assert_folded(result)
    for size in [1, 5]:
        assert_equal(model, result, double(1, 3, *[size] * dimensions))
    model[2].norm1.weight.data[1] = 1e-3
    model[2].norm1.bias.data[1] = 1.0
    kept = bnfold.fold(zoo.to_torchscript(model, inputs, spelling), inputs).report.kept
    assert [norm.name for norm in kept] == ["2.norm1"]
    assert "scale_not_invertible" in [obstacle.reason for obstacle in kept[0].obstacles]


@both_spellings
def test_pre_activation_blocks_without_an_activation(spelling):
    model, inputs = prepared(pre_activation(2, activation=False), (image(2, 3),)), (image(2, 3),)
    for block in (model[1], model[2]):
        block.norm1.weight.data.masked_fill_(block.norm1.weight == 0, -0.5)
    result = bnfold.fold(zoo.to_torchscript(model, inputs, spelling), inputs)
    assert_folded(result)
    for size in [1, 5]:
        assert_equal(model, result, double(1, 3, size, size))
    # a constant that zeros surround
    model[1].norm1.weight.data[1] = 0
    kept = bnfold.fold(zoo.to_torchscript(model, inputs, spelling), inputs).report.kept
    assert [norm.name for norm in kept] == ["1.norm1"]


class ReparametrizedDepthwise(nn.Module):
    """The token mixer of RepViT."""

    def __init__(self):
        super().__init__()
        self.conv, self.point = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 6, 1, groups=6)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        return self.norm(self.conv(x) + self.point(x) + x)


@both_spellings
def test_a_value_beside_convolutions_of_it_with_gammas_of_zero(spelling):
    model, inputs = nn.Sequential(nn.Conv2d(3, 6, 3), ReparametrizedDepthwise(), ReparametrizedDepthwise()), (image(2, 3),)
    prepared(model, inputs)
    for block in (model[1], model[2]):
        block.norm.weight.data[:2] = 0
    result = bnfold.fold(zoo.to_torchscript(model, inputs, spelling), inputs)
    assert_folded(result)
    assert "aten::add" not in str(result.module.inlined_graph)
    assert_equal(model, result, double(1, 3, 4, 7))


class Levels(nn.Module):
    """A head of two levels, each with a scale of its own, as that of FCOS."""

    def __init__(self, normalizes: bool):
        super().__init__()
        self.head = nn.Conv2d(4, 4, 3)
        self.scales = nn.ParameterList([nn.Parameter(torch.tensor(scale)) for scale in (1.3, 0.7)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(4) if normalizes else nn.Identity() for _ in range(2)])

    def forward(self, x):
        low = self.norms[0](self.head(x)) * self.scales[0]
        high = self.norms[1](self.head(x[:, :, ::2, ::2])) * self.scales[1]
        return torch.exp(low), torch.exp(high)


@both_spellings
def test_a_shared_head_is_copied_only_where_that_removes_a_norm(spelling):
    inputs = (double(2, 4, 9, 9),)
    heads = [folded(Levels(normalizes), inputs, spelling) for normalizes in (False, True)]
    assert [sum(parameter.dim() == 4 for parameter in result.module.parameters()) for result in heads] == [1, 2]
    assert [len(result.report.scales) for result in heads] == [0, 2]


class Deformable(nn.Module):
    """A convolution, a norm, and an operator of another library, whose schema tells that it writes nothing."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.offset = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(3, 18, 3, padding=1)
        self.weight, self.behind = nn.Parameter(torch.randn(2, 4, 3, 3)), nn.BatchNorm2d(2)

    def forward(self, x):
        y = torchvision.ops.deform_conv2d(self.norm(self.conv(x)), self.offset(x), self.weight, padding=(1, 1))
        return self.behind(y)


@both_spellings
def test_an_operator_of_another_library(spelling):
    result = folded(Deformable(), (double(2, 3, 6, 6),), spelling)
    assert [(norm.name, norm.into) for norm in result.report.folded] == [("norm", ("conv",))]
    assert [(norm.name, norm.reason) for norm in result.report.kept] == [("behind", "no_rule_for_operator")]
