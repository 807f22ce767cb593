"""Odd numbers and odd tensors in the weights: folded and equal to eager, or kept with the reason that fits, or refused in one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import zoo
from cases import EXACT, assert_equal, assert_folded, assert_kept, double, prepared
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import bnfold

Change = Callable[[nn.Sequential], object]


def image(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return double(2, 3, 9, 9).to(dtype)


def conv_and_norm(change: Change = lambda model: None, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    model = prepared(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)), (image(),)).to(dtype)
    change(model)
    return model.eval()


def parameter(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def assert_both_raise(model: nn.Module, result: bnfold.FoldResult, *inputs: torch.Tensor) -> None:
    with pytest.raises(Exception):
        model(*inputs)
    with pytest.raises(Exception):
        result.module(*inputs)


# ---- numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 5e-324, 0.0])
@pytest.mark.parametrize("tensor", ["weight", "bias"])
def test_numbers_of_the_layer(tensor, value):
    model = conv_and_norm(lambda model: getattr(model[0], tensor)[0].fill_(value))
    result = bnfold.fold(model)
    assert_folded(result)
    assert_equal(model, result, image())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 5e-324])
def test_numbers_of_the_input(value):
    model = conv_and_norm()
    x = image()
    x[0, 1, 3, 3] = value
    assert_equal(model, bnfold.fold(model), x)


@pytest.mark.parametrize("variance, epsilon, folds", [(0.0, 1e-5, True), (0.0, 0.0, False), (1e-310, 0.0, True), (1.0, 0.0, True)])
def test_small_variances(variance, epsilon, folds):
    if epsilon == 0 and torch.__version__ < "2.15":
        pytest.skip("this torch takes no eps of 0")

    def change(model):
        model[1].running_var.fill_(variance)
        model[1].eps = epsilon

    model = conv_and_norm(change)
    result = bnfold.fold(model)
    if folds:
        assert_folded(result)
    else:
        assert_kept(result, "norm_statistics_not_finite")
    assert_equal(model, result, image(), error=1e-10)


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_a_channel_that_is_multiplied_by_zero(value):
    # 0 * NaN is NaN, folded too.
    model = conv_and_norm(lambda model: model[1].weight.zero_())
    result = bnfold.fold(model)
    assert_folded(result)
    assert_equal(model, result, image() * value)


# Half ends at 65504; a scale is gamma / sqrt(variance), a weight here about 0.2.
@pytest.mark.parametrize(
    "dtype, gamma, folds",
    [
        (torch.float16, 3e2, True),
        (torch.float16, 6e4, False),
        (torch.bfloat16, 1e30, True),
        (torch.bfloat16, 3e38, False),
        (torch.float32, 1e30, True),
        (torch.float32, 3e38, False),
        (torch.float64, 1e300, True),
    ],
)
def test_weights_that_leave_their_range(dtype, gamma, folds):
    def change(model):
        model[1].weight.fill_(gamma)
        model[1].running_var.fill_(1e-3)

    model = conv_and_norm(change, dtype)
    result = bnfold.fold(model)
    if folds:
        assert_folded(result)
    else:
        assert_kept(result, "folded_weight_not_finite")
    tolerance = {torch.float16: 5e-2, torch.bfloat16: 2e-1, torch.float32: 1e-4, torch.float64: EXACT}
    assert_equal(model, result, image(dtype), error=tolerance[dtype])


def test_a_scale_that_leaves_the_range_of_double():
    def change(model):
        model[1].weight.fill_(1e308)
        model[1].running_var.fill_(1e-10)

    model = conv_and_norm(change)
    result = bnfold.fold(model)
    assert_kept(result, "norm_statistics_not_finite")
    assert_equal(model, result, image())


# ---- sizes


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 5])
def test_small_sizes(batch, channels):
    model = prepared(nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)), (double(2, channels, 3, 3),))
    result = bnfold.fold(model)
    assert_folded(result)
    for side in (1, 2, 3):
        x = double(batch, channels, side, side)
        assert_equal(model, result, x)


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 0, 1), nn.BatchNorm2d(0)), (2, 3, 4, 4)),
        (lambda: nn.Sequential(nn.Linear(5, 0), nn.BatchNorm1d(0)), (2, 5)),
        (lambda: nn.Sequential(nn.BatchNorm2d(0), nn.Conv2d(0, 3, 1)), (2, 0, 4, 4)),
        (lambda: nn.Sequential(nn.Conv2d(0, 5, 1), nn.BatchNorm2d(5)), (2, 0, 4, 4)),
        (lambda: nn.Sequential(nn.Linear(0, 5), nn.BatchNorm1d(5)), (2, 0)),
    ],
    ids=["conv to 0", "linear to 0", "before conv from 0", "conv from 0", "linear from 0"],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
def test_no_channels(make, shape):
    model = make().double().eval()
    result = bnfold.fold(model)
    try:
        expected = model(double(*shape))
    except (RuntimeError, IndexError):
        return  # eager can't run a norm of no channels
    assert torch.equal(expected, result.module(double(*shape)))


# ---- dtypes and devices

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MIXED = {(torch.float16, torch.float32), (torch.bfloat16, torch.float32)}


@pytest.mark.parametrize("norm", DTYPES)
@pytest.mark.parametrize("layer", DTYPES)
def test_dtypes_of_layer_and_norm(layer, norm):
    def change(model):
        model[0].to(layer)
        model[1].to(norm)

    model = conv_and_norm(change)
    result = bnfold.fold(model)
    if layer == norm or (layer, norm) in MIXED:
        assert_folded(result)
        tolerance = {torch.float16: 5e-2, torch.bfloat16: 2e-1, torch.float32: 1e-4, torch.float64: EXACT}[layer]
        assert_equal(model, result, image(layer), error=tolerance)
    else:
        assert_kept(result, "dtypes_differ")
        assert_both_raise(model, result, image(layer))


def gamma_in(dtype: torch.dtype) -> Change:
    def change(model):
        model[1].weight = parameter(model[1].weight.detach().to(dtype))

    return change


def variance_in(dtype: torch.dtype) -> Change:
    def change(model):
        model[1].register_buffer("running_var", model[1].running_var.to(dtype))

    return change


@pytest.mark.parametrize("other", [torch.float16, torch.float64])
@pytest.mark.parametrize("part", [gamma_in, variance_in])
def test_dtypes_inside_the_norm(part, other):
    # batch_norm takes tensors of one dtype; folding must not make it run.
    model = conv_and_norm(part(other), torch.float32)
    result = bnfold.fold(model)
    assert_kept(result, "dtypes_differ")
    assert_both_raise(model, result, image(torch.float32))
    assert_folded(bnfold.fold(conv_and_norm(part(torch.float32), torch.float32)))


def weight_becomes(convert: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def change(model):
        model[0].weight = parameter(convert(model[0].weight.detach()))

    return change


def variance_becomes(convert: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def change(model):
        model[1].register_buffer("running_var", convert(model[1].running_var))

    return change


UNSUPPORTED = {
    "complex weight": weight_becomes(lambda weight: weight.to(torch.complex128)),
    "conjugate weight": weight_becomes(lambda weight: weight.to(torch.complex128).conj()),
    "integer weight": weight_becomes(lambda weight: weight.long()),
    "quantized weight": weight_becomes(lambda weight: torch.quantize_per_tensor(weight.float(), 0.1, 0, torch.qint8)),
    "sparse weight": weight_becomes(lambda weight: weight.to_sparse()),
    "float8 weight": weight_becomes(lambda weight: weight.to(torch.float8_e4m3fn)),
    "float8 variance": variance_becomes(lambda variance: variance.to(torch.float8_e5m2)),
    "integer variance": variance_becomes(lambda variance: variance.long()),
    "bool variance": variance_becomes(lambda variance: variance.bool()),
    "complex variance": variance_becomes(lambda variance: variance.to(torch.complex128)),
    "sparse variance": variance_becomes(lambda variance: variance.to_sparse()),
    "meta variance": variance_becomes(lambda variance: variance.to("meta")),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
@pytest.mark.filterwarnings("ignore")  # of quantized and sparse tensors
def test_tensors_that_are_not_dense_floats(kind):
    assert_kept(bnfold.fold(conv_and_norm(UNSUPPORTED[kind])), "weight_dtype_unsupported")


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("sparse", [True, False])
def test_a_sparse_linear_layer(sparse):
    model = prepared(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), (double(3, 4),))
    if sparse:
        model[0].weight = parameter(model[0].weight.detach().to_sparse_csr())
    result = bnfold.fold(model)
    if sparse:
        assert_kept(result, "weight_dtype_unsupported")
    else:
        assert_folded(result)
    assert_equal(model, result, double(3, 4))


def test_opaque_tensors(tmp_path):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    result = bnfold.fold(conv_and_norm(weight_becomes(lambda weight: weight.to_mkldnn()), torch.float32))
    assert_kept(result, "weight_dtype_unsupported")
    with pytest.raises(bnfold.SaveError, match="model.pt: the module can't be serialized: .*storage of OpaqueTensorImpl"):
        bnfold.save(result.module, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


DEVICES = ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("norm", DEVICES)
@pytest.mark.parametrize("layer", DEVICES)
def test_devices(layer, norm):
    def change(model):
        model[0].to(layer)
        model[1].to(norm)

    model = conv_and_norm(change)
    result = bnfold.fold(model)
    if layer == norm == "meta":
        assert_kept(result, "weight_dtype_unsupported")
        assert result.module(image().to("meta")).shape == model(image().to("meta")).shape
    elif layer == norm:
        assert_folded(result)
        assert_equal(model, result, image().to(layer), error=1e-12)
    else:
        assert_kept(result, "weight_dtype_unsupported" if norm == "meta" else "devices_differ")


# ---- memory


def strided(weight: torch.Tensor) -> torch.Tensor:
    return torch.stack([weight, weight]).transpose(0, 1)[:, 1]


def overlapping(weight: torch.Tensor) -> torch.Tensor:
    return weight.flatten()[:100].clone().as_strided(weight.shape, (3, 2, 2, 1))


MEMORY = {
    "transposed": lambda weight: weight.transpose(2, 3),
    "strided": strided,
    "channels last": lambda weight: weight.to(memory_format=torch.channels_last),
    "expanded": lambda weight: weight[:1].expand_as(weight),
    "overlapping": overlapping,
    "with an offset": lambda weight: torch.cat([weight, weight])[weight.shape[0] :],
}


@pytest.mark.parametrize("kind", MEMORY)
def test_memory_of_the_weight(kind):
    model = conv_and_norm(weight_becomes(MEMORY[kind]))
    before = model[0].weight.clone()
    result = bnfold.fold(model)
    assert_folded(result)
    assert_equal(model, result, image())
    assert torch.equal(model[0].weight, before)


def test_a_negative_view():
    # The sign is a bit of the tensor and not in its memory.
    model = conv_and_norm(weight_becomes(torch._neg_view))
    assert_equal(model, bnfold.fold(model), image())


def one_buffer(model: nn.Sequential) -> None:
    conv, norm = model
    tensors = (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
    views = [view.view_as(tensor) for view, tensor in zip(flat.split([tensor.numel() for tensor in tensors]), tensors)]
    conv.weight, conv.bias, norm.weight, norm.bias = map(parameter, views[:4])
    norm.register_buffer("running_mean", views[4])
    norm.register_buffer("running_var", views[5])


def gamma_is_the_bias(model: nn.Sequential) -> None:
    model[1].weight = model[0].bias


def mean_is_the_bias(model: nn.Sequential) -> None:
    model[1].running_mean = model[0].bias.data


@pytest.mark.parametrize("share", [one_buffer, gamma_is_the_bias, mean_is_the_bias])
@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
def test_shared_memory(share, spelling, tmp_path):
    model = conv_and_norm(share)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = bnfold.fold(zoo.to_torchscript(model, (image(),), spelling))
    assert_folded(result)
    assert_equal(model, result, image())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    bnfold.save(result.module, tmp_path / "model.pt")
    x = image()
    assert torch.equal(bnfold.load(tmp_path / "model.pt")(x), result.module(x))


def test_weights_that_are_mapped_from_a_file(tmp_path):
    torch.save(conv_and_norm().state_dict(), tmp_path / "weights.pt")
    content = (tmp_path / "weights.pt").read_bytes()
    model = conv_and_norm()
    model.load_state_dict(torch.load(tmp_path / "weights.pt", mmap=True), assign=True)
    result = bnfold.fold(model)
    assert_folded(result)
    assert_equal(model, result, image())
    assert (tmp_path / "weights.pt").read_bytes() == content


# ---- autograd and parametrizations


def test_parameters_that_require_gradients():
    model = conv_and_norm(lambda model: [one.requires_grad_() for one in model.parameters()])
    with torch.enable_grad():
        result = bnfold.fold(model)
        assert all(one.requires_grad and one.is_leaf for one in result.module.parameters())
        result.module(image()).sum().backward()
    assert_equal(model, result, image())


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("fold", [True, False])
def test_inference_mode(weights, fold):
    with torch.inference_mode(weights):
        model = conv_and_norm()
    assert model[0].weight.is_inference() == weights
    with torch.inference_mode(fold):
        result = bnfold.fold(model)
    assert_folded(result)
    assert_equal(model, result, image())


class Standardized(nn.Conv2d):
    """Weight standardization as timm spells it."""

    def forward(self, x):
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, training=True, momentum=0.0).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias)


@pytest.mark.parametrize(
    "computed",
    [
        parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal, nn.utils.weight_norm,
        nn.utils.spectral_norm, lambda conv: Standardized(3, 5, 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("trainable", [True, False])
def test_weights_that_are_computed_from_parameters(computed, trainable):
    def prepare(model):
        model[0] = computed(model[0]).double()
        model.requires_grad_(trainable)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = conv_and_norm(prepare)
        module = torch.jit.trace(model, image(), check_trace=False)
    result = bnfold.fold(module)
    assert_folded(result)
    assert [norm.into for norm in result.report.folded] == [("0",)]
    assert_equal(model, result, image())
    assert "batch_norm" not in str(bnfold.freeze(module).graph)
    if trainable:
        with torch.enable_grad():
            result.module(image()).sum().backward()
        assert all(one.grad is not None for one in result.module.parameters())


@pytest.mark.parametrize("make", [lambda: nn.LazyConv2d(5, 3), lambda: nn.Conv2d(3, 5, 3)])
def test_weights_that_are_not_there_yet(make):
    model = nn.Sequential(make(), nn.BatchNorm2d(5)).eval()
    if isinstance(model[0], nn.modules.lazy.LazyModuleMixin):
        with pytest.raises(bnfold.Error, match="torch.jit.script can't compile Sequential"):
            bnfold.fold(model)
    else:
        assert_folded(bnfold.fold(model))
