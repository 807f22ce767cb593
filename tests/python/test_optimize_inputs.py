"""Unfriendly inputs for optimized modules: whatever they are, the result is that of the original, or an error that says what was not expected,
and what comes in stays as it is."""

from __future__ import annotations

from typing import Dict, List

import pytest
import torch
from calibrate import relative_error
from torch import Tensor, nn
from torch.nn import functional as F

import bnfold

NEAR = 1e-4


def norm(channels):
    layer = nn.BatchNorm2d(channels)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    layer.weight.data.normal_()
    layer.bias.data.normal_()
    return layer


class Layers(nn.Module):
    """What the models are made of: images of 4 channels."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.short, self.strided, self.depth = nn.Conv2d(4, 6, 1, stride=2), nn.Conv2d(4, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 1, 1, groups=6)
        self.up, self.joined, self.more = nn.ConvTranspose2d(6, 6, 2, 2), nn.Conv2d(12, 6, 3, padding=1), nn.Conv2d(10, 6, 1)
        self.squeeze, self.excite, self.rows, self.gate = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1), nn.Linear(6, 6), nn.Linear(6, 6)
        self.n, self.m = norm(6), norm(6)


class Residual(Layers):
    def forward(self, x):
        y = F.relu(self.n(self.a(x)), inplace=True)
        return F.relu(self.m(self.b(y)) + y, inplace=True)


class Strided(Layers):
    def forward(self, x):
        return F.relu(self.n(self.strided(x)) + self.m(self.short(x)))


class Excited(Layers):
    def forward(self, x):
        y = F.silu(self.n(self.depth(self.a(x))))
        return y * torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))


class Gated(Layers):
    def forward(self, x):
        y = self.a(x)
        return torch.relu(y.mean(0, keepdim=True)) * y + torch.tanh(y.mean([2, 3], keepdim=True))


class Dense(Layers):
    def forward(self, x):
        y = self.a(x)
        z = F.relu(self.b(torch.relu(torch.cat([y], 1))))
        w = F.relu(self.joined(torch.cat([y, z], 1)))
        return torch.cat([y, z, w], 1).abs()


class Pools(Layers):
    def forward(self, x):
        a = F.max_pool2d(x, 3, 1, 1)
        b = F.max_pool2d(a, 3, 1, 1)
        return torch.cat([x, a], 1).abs(), torch.cat([x, a, b], 1).abs(), torch.cat([x, a, b, b.tanh()], 1).abs()


class UNet(Layers):
    def forward(self, x):
        y = F.relu(self.n(self.a(x)))
        z = F.relu(self.b(F.max_pool2d(y, 2)))
        return F.relu(self.joined(torch.cat([y, F.interpolate(self.up(z), y.shape[2:])], 1)))


class Tokens(Layers):
    def forward(self, x):
        y = self.a(x)
        t = y.flatten(2).transpose(1, 2)
        t = t + self.rows(F.gelu(self.gate(t)))
        w = torch.softmax(t @ t.transpose(1, 2) * 0.3, -1)
        return y + (w @ t).transpose(1, 2).reshape(y.shape)


class Bounded(Layers):
    def forward(self, x):
        return torch.clamp(self.a(x), 0.5, -0.2), F.relu6(self.a(x) * 3), torch.sigmoid(x.argmax(1)), self.a(x).clamp_min(0.1)


class Overwritten(Layers):
    def forward(self, x):
        y = torch.tanh(x)
        z = y[:, :2]
        w = self.a(y)
        z.mul_(2)
        w += 1
        return w.relu_(), y


class Elementwise(Layers):
    """Nothing but what may be written in place; no layer tells dtype or rank."""

    def forward(self, x):
        return torch.relu(x) * 2 + x, torch.sigmoid(x.flatten(1)), torch.relu_(torch.einsum("nchw->nhwc", x) * 1.0), torch.relu(x[0])


class Padded(Layers):
    def forward(self, x):
        return F.hardswish(self.strided(F.pad(x, [1, 1, 1, 1]))).reshape(x.shape[0], -1)


class Sum(Layers):
    def forward(self, x, p):
        y = self.a(x) + p
        return torch.relu(y), torch.relu(self.a(p[:, :4]) + self.a(x))


class Parts(Layers):
    def forward(self, d: Dict[str, Tensor], parts: List[Tensor]):
        f: Dict[str, Tensor] = {}
        f["stem"] = self.a(torch.relu(d["image"]))
        return torch.relu(f["stem"]), self.n(f["stem"]), torch.relu(parts[0]) + self.a(torch.tanh(parts[1]))


ONE = (Residual, Strided, Excited, Gated, Dense, Pools, UNet, Tokens, Bounded, Overwritten, Elementwise, Padded)


def image(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(len(size)))


IMAGES = {
    "as_it_was": image(2, 4, 8, 8),
    "batch_0": image(0, 4, 8, 8),
    "batch_1": image(1, 4, 8, 8),
    "batch_3": image(3, 4, 8, 8),
    "another_size": image(2, 4, 7, 10),
    "one_pixel_wide": image(2, 4, 8, 2)[..., :1],
    "expanded": image(1, 4, 8, 8).expand(3, 4, 8, 8),
    "expanded_in_space": image(2, 4, 1, 1).expand(2, 4, 8, 8),
    "transposed": image(2, 4, 8, 8).transpose(2, 3),
    "batch_behind": image(4, 8, 8, 2).permute(3, 0, 1, 2),
    "channels_last": image(2, 4, 8, 8).to(memory_format=torch.channels_last),
    "overlapping": image(200).as_strided((2, 4, 8, 8), (64, 16, 3, 1)),
    "a_part": image(2, 8, 9, 9)[:, 2:6, 1:, 1:],
    "without_a_batch": image(4, 8, 8),
    "five_dimensions": image(1, 2, 4, 8, 8),
    "double": image(2, 4, 8, 8).double(),
    "half": image(2, 4, 8, 8).half(),
    "integers": (image(2, 4, 8, 8) * 9).long(),
}


def tensors_in(values):
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in (values.values() if isinstance(values, dict) else values) for tensor in tensors_in(value)]


def result_of(module, inputs):
    """What it returns, or the error that it raises; the inputs stay as they are."""
    before = [tensor.clone() for tensor in tensors_in(inputs)]
    try:
        result = module(*inputs)
    except Exception as error:
        result = error
    for tensor, kept in zip(tensors_in(inputs), before):
        assert torch.equal(tensor, kept), "an input was overwritten"
    return result


def expect_same(original, optimized, inputs):
    with torch.no_grad():
        for _ in range(2):
            want, result = result_of(original, inputs), result_of(optimized, inputs)
            if isinstance(want, Exception):
                # A step takes half beside float weights where the CPU has instructions for it; eager does nowhere.
                is_half = any(tensor.dtype == torch.half for tensor in tensors_in(inputs))
                assert isinstance(result, Exception) or is_half, "the original raises"
                continue
            if isinstance(result, Exception):
                assert "rank" in str(result) or "dimension" in str(result) or "dtype" in str(result)
                continue
            for one, other in zip(tensors_in(want), tensors_in(result)):
                assert (one.shape, one.dtype) == (other.shape, other.dtype)
                assert other.is_contiguous() or not one.is_contiguous()
                if one.numel():
                    assert relative_error(one, other) < (NEAR if one.dtype != torch.half else 1e-2)


def optimized_of(model, inputs, spelling):
    module = torch.jit.trace(model, inputs) if spelling == "traced" else torch.jit.script(model)
    return bnfold.optimize_for_inference(module, None if spelling == "no_example" else inputs)


@pytest.mark.parametrize("example", ["as_it_was", "batch_1", "channels_last"])
@pytest.mark.parametrize("spelling", ["scripted", "traced", "no_example"])
@pytest.mark.parametrize("kind", ONE, ids=lambda kind: kind.__name__)
def test_an_image(kind, spelling, example):
    torch.manual_seed(0)
    model = kind().eval()
    optimized = optimized_of(model, (IMAGES[example],), spelling)
    for name, inputs in IMAGES.items():
        if spelling == "traced" and inputs.dim() != 4:
            continue  # a trace is one of four dimensions
        try:
            expect_same(model, optimized, (inputs,))
        except AssertionError as error:
            raise AssertionError(name) from error


@pytest.mark.parametrize("spelling", ["scripted", "no_example"])
def test_two_inputs(spelling):
    torch.manual_seed(0)
    model = Sum().eval()
    x, p = image(2, 4, 8, 8), image(2, 6, 8, 8)
    optimized = optimized_of(model, (x, p), spelling)
    both = image(2, 6, 8, 8)
    for inputs in ((x, p), (x[:1], p), (x, p[:1]), (both[:, :4], both), (x, p[:, :, :1, :1]), (x, p.double()), (x, image(6, 8, 8))):
        expect_same(model, optimized, inputs)


@pytest.mark.parametrize("spelling", ["scripted", "no_example"])
def test_one_tensor_in_many_places(spelling):
    torch.manual_seed(0)
    model = Parts().eval()
    x, y = image(2, 4, 8, 8), image(2, 6, 8, 8)
    optimized = optimized_of(model, ({"image": x}, [y, x]), spelling)
    expect_same(model, optimized, ({"image": x}, [y, x]))
    expect_same(model, optimized, ({"image": y[:, 1:5]}, [y, y[:, :4]]))


class Rows(nn.Module):
    """Linear layers that are steps."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(256, 512), nn.Linear(512, 256)

    def forward(self, x):
        return torch.relu(x + self.second(F.gelu(self.first(x))))


@pytest.mark.parametrize("spelling", ["scripted", "traced"])
def test_rows_of_a_linear_layer(spelling):
    torch.manual_seed(0)
    model, rows = Rows().eval(), image(2, 80, 256)
    optimized = optimized_of(model, (rows,), spelling)
    assert len(bnfold.fusions_of(optimized).fused) == 2
    others = (image(256), image(3, 256), image(0, 80, 256), image(2, 2, 40, 256), image(1, 1, 256).expand(2, 80, 256), image(2, 256, 80).transpose(1, 2))
    for inputs in (rows, *others, rows.double(), rows.half()):
        expect_same(model, optimized, (inputs,))
