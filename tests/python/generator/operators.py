"""Steps of operators without weights: activations, arithmetic, pooling, padding, and all that moves elements about."""

from __future__ import annotations

from .layers import spread
from .module_builder import Builder, Unfit

NUMBERS = (0.5, 2.0, -1.5, 3)

ACTIVATIONS = (
    "F.relu({x})", "F.relu({x})", "F.relu({x}, inplace=True)", "F.relu({x}, inplace=True)", "{x}.relu_()", "torch.relu({x})",
    "F.relu6({x})", "F.relu6({x}, inplace=True)", "F.hardtanh({x}, -0.7, 1.3)", "F.hardtanh({x}, 0.1, 0.9, inplace=True)",
    "{x}.clamp(min=-0.2)", "{x}.clamp(max=0.4)", "torch.clamp({x}, -0.5, 0.5)", "{x}.clamp_(0.1, 0.8)", "{x}.clamp_min(0.1)",
    "{x}.clamp_max_(0.5)", "torch.clamp_max({x}, 0.3)", "{x}.clamp_min_(-0.3)",
)  # fmt: skip

LEAKY = ("F.leaky_relu({x}, 0.2)", "F.leaky_relu({x}, 0.1, inplace=True)", "F.leaky_relu({x}, -0.5)", "F.leaky_relu({x}, 1.5)")

CURVES = (
    "F.silu({x})", "F.silu({x}, inplace=True)", "F.gelu({x})", 'F.gelu({x}, approximate="tanh")', "F.hardswish({x})", "F.mish({x})",
    "torch.tanh({x})", "{x}.tanh_()", "F.elu({x})", "F.selu({x})", "F.celu({x})", "torch.erf({x})", "torch.square({x})",
    "torch.sigmoid({x})", "{x}.sigmoid_()", "F.hardsigmoid({x})", "F.softplus({x})", "F.logsigmoid({x})", "F.softmax({x}, 1)",
    "F.log_softmax({x}, -1)", "torch.exp({x}.clamp(max=3.0))", "torch.sqrt({x}.abs())", "{x}.abs()", "-{x}", "torch.log({x}.abs() + 1.0)",
    "torch.sin({x})", "{x}.pow(2)", "F.softsign({x})", "F.rrelu({x})", "torch.where({x} > 0, {x}, {x} * 0.5)", "F.normalize({x}, dim=1)", "F.glu({x}, 1)",
    "{x}.cumsum(1)",
)  # fmt: skip
# Where these jump, rounding becomes a difference.
JUMPS = ("F.threshold({x}, 0.1, 0.2)", "{x}.masked_fill({x} > 1, 0.5)", "F.hardshrink({x})")

IDENTITIES = (
    "F.dropout({x}, 0.5, False)", "F.dropout({x}, 0.5, self.training)", "F.alpha_dropout({x}, 0.5, False)", "F.dropout2d({x}, 0.3, self.training)",
    "{x}.contiguous()", "{x}.detach()", "{x}.clone()", "{x}.to({x}.dtype)", "{x}.type_as({x})", "{x}.to({x}.device)", "{x}.view_as({x})",
    "{x}.reshape_as({x})", "{x}.expand_as({x})", "{x}.contiguous(memory_format=torch.channels_last)", "torch.ops.aten.alias({x})",
)  # fmt: skip

# These return the value itself, and their schema does not say so.
UNSAID_ALIASES = (
    "torch.atleast_1d({x})", "torch.atleast_3d({x})", "{x}.sum_to_size({x}.shape)", "{x}.to_dense()", "torch.unsafe_chunk({x}, 1)[0]",
    "torch.unsafe_split({x}, {x}.shape[0])[0]", 'torch.einsum("...->...", {x})', "torch.conj_physical({x})", "torch.ops.aten.lift({x})",
    "torch.ops.aten._unsafe_view({x}, {x}.shape)", "torch.atleast_2d({x})", "{x}.type_as({x})", "{x}.expand_as({x})",
)  # fmt: skip

ACTIVATION_LAYERS = (
    "nn.ReLU()", "nn.ReLU(inplace=True)", "nn.ReLU6(inplace=True)", "nn.Hardtanh(-0.4, 0.9)", "nn.PReLU()", "nn.Hardswish()", "nn.SiLU()",
    "nn.GELU()", "nn.Dropout(0.5)", "nn.Dropout2d(0.5, inplace=True)", "nn.Identity()", "nn.Softmax(dim=1)", "nn.LeakyReLU(0.3, inplace=True)",
)  # fmt: skip


def activation(b: Builder) -> None:
    b.let(b.choose(*ACTIVATIONS).format(x=b.value()))


def bounds(b: Builder) -> None:
    """Clamped between tensors, of the rank of the value, of a smaller one, or of a larger one, which the result takes over."""
    x = b.value(2, 3, 4, 5)
    channels, rank = b.size(x)[1], b.rank(x)
    size = b.choose((1, channels, *[1] * (rank - 2)), (channels, *[1] * (rank - 2)), (1, 1, channels, *[1] * (rank - 2)), (1, channels, *[1] * rank))
    p = b.parameter(*size)
    b.let(
        b.choose("torch.clamp({x}, {p}, {p} + 1.0)", "torch.clamp({x}, min={p})", "{x}.clamp(max={p})", "torch.clamp_min({x}, {p})",
                 "torch.clamp_max({x}, {p})", "{x}.clamp_({p}, {p} + 1.0)").format(x=x, p=p)
    )  # fmt: skip


def leaky(b: Builder) -> None:
    x = b.value(2, 3, 4, 5)
    if b.chance(3):
        b.call(b.layer("prelu", b.choose("nn.PReLU()", f"nn.PReLU({b.size(x)[1]})")), x)
    else:
        b.let(b.choose(*LEAKY).format(x=x))


def curve(b: Builder) -> None:
    b.let(b.choose(*CURVES, *(() if b.narrow else JUMPS)).format(x=b.value()))


def identity(b: Builder) -> None:
    b.let(b.choose(*IDENTITIES).format(x=b.value()))


def activation_layer(b: Builder) -> None:
    b.call(b.layer("act", b.choose(*ACTIVATION_LAYERS)), b.value())


def cast(b: Builder) -> None:
    x = b.value()
    kind = b.choose("{x}.to(torch.float64)", "{x}.double()", "{x}.to(torch.float32).to({x}.dtype)", "{x}.float().double()")
    b.rounds_to_float |= "float32" in kind or "float()" in kind
    b.let(kind.format(x=x))


# ---- arithmetic


def number(b: Builder) -> None:
    x, n = b.value(), b.choose(*NUMBERS)
    b.let(
        b.choose("{x} + {n}", "{n} * {x}", "{x} * {n}", "{x} - {n}", "{n} - {x}", "{x} / {n}", "{x}.add_({n})", "{x}.mul_({n})", "{x}.sub_({n})",
                 "{x}.div_({n})", "torch.add({x}, {n}, alpha=2)", "torch.rsub({x}, {n})", "{x} * {x}.shape[1]", "{x} / {x}.size(-1)",
                 "{x} * torch.tensor({n})").format(x=x, n=n)
    )  # fmt: skip


def pair(b: Builder) -> None:
    """Sum, difference or product of two values, of one size where there are such, else broadcast; both may be one value."""
    x = b.value()
    same = [name for name in reversed(b.values) if b.size(name) == b.size(x) and name != x]
    y = b.choose(*same, x) if b.chance(8) else b.value()
    b.let(
        b.choose("{x} + {y}", "{x} + {y}", "{x} + {y}", "{x} - {y}", "{x}.add_({y})", "{x}.sub_({y})", "torch.add({x}, {y}, alpha=2)",
                 "torch.sub({x}, {y}, alpha=0.5)", "{x} * {y}", "{x}.mul_({y})", "torch.maximum({x}, {y})", "{x} * torch.sigmoid({y})",
                 "{x} / ({y}.abs() + 1.0)", "torch.addcmul({x}, {x}, {y})", "torch.lerp({x}, {y}, 0.3)").format(x=x, y=y)
    )  # fmt: skip


def parameter(b: Builder) -> None:
    """Arithmetic with a parameter or buffer, of one element, one for each channel, or for each element of the last dimension."""
    x = b.value(2, 3, 4, 5)
    rank = b.rank(x)
    size = b.choose((b.size(x)[1], *[1] * (rank - 2)), (1, b.size(x)[1], *[1] * (rank - 2)), (b.size(x)[-1],), (1,), ())
    p = b.parameter(*size) if b.chance(7) and size else b.buffer(f"torch.randn({list(size)})")
    b.let(b.choose("{x} + {p}", "{p} + {x}", "{x} - {p}", "{p} - {x}", "{x}.add_({p})", "torch.sub({x}, {p}, alpha=2)").format(x=x, p=p))


def gate(b: Builder) -> None:
    """Squeeze-excite: a value times a gate that is computed from it."""
    x = b.value(3, 4, 5)
    space = list(range(2, b.rank(x)))
    pooled = b.let(f"{x}.mean({space}, keepdim=True)")
    if b.chance(5):
        dimensions, channels = b.rank(x) - 2, b.size(x)[1]
        pooled = b.call(b.layer("conv", f"nn.Conv{dimensions}d({channels}, {b.choose(channels, 1)}, 1)"), pooled)
    opened = b.let(b.choose("torch.sigmoid({x})", "F.hardsigmoid({x})", "{x}.sigmoid()").format(x=pooled))
    b.let(b.choose(f"{x} * {opened}", f"{opened} * {x}", f"{x}.mul_({opened})"))


def _norm(b: Builder, x: str, options: str = "") -> str:
    return b.layer("norm", f"nn.BatchNorm{b.rank(x) - 2}d({b.size(x)[1]}{options})")


def _conv(b: Builder, x: str, options: str = "3, padding=1") -> str:
    """A convolution that keeps the size."""
    channels = b.size(x)[1]
    return b.layer("conv", f"nn.Conv{b.rank(x) - 2}d({channels}, {channels}, {options})")


def large_number(b: Builder) -> None:
    """A number beside which the value is small, or would be on the other side of the norm: added there, it takes digits along."""
    x, n = b.value(3, 4, 5), b.choose(1e4, -300.0, 1e5, -1e4)
    b.cancels = True
    add = b.choose("{x} + {n}", "{x} - {n}", "{x}.add_({n})", "{n} + {x}", "torch.sub({x}, {n})", "{x} + torch.tensor({n})")
    if b.chance(5):
        conv = _conv(b, x, b.choose("1", "3, padding=1"))
        b.init(f"{conv}.weight.data.mul_({abs(n)})")
        y = b.let(add.format(x=b.let(f"{conv}({x})", see=False), n=n), see=False)
        b.call(_norm(b, y), y)
    else:
        small = b.let(f"{x} * 1e-4", see=False)
        y = b.let(add.format(x=b.let(f"{_norm(b, small, ', eps=1e-12')}({small})", see=False), n=n), see=False)
        b.call(_conv(b, y, b.choose("1", "3")), y)


def residual(b: Builder) -> None:
    """A value plus what layers and norms make of it."""
    x = b.value(3, 4, 5)
    y = x
    for _ in range(b.choose(1, 2, 3)):
        kind = b.choose("conv", "norm", "norm", "act")
        if kind == "conv":
            y = b.call(_conv(b, y), y)
        elif kind == "norm":
            y = b.call(_norm(b, y), y)
        else:
            y = b.let(b.choose("F.relu({x})", "F.relu({x}, inplace=True)", "F.gelu({x})", "F.relu6({x})").format(x=y))
    b.let(b.choose(f"{x} + {y}", f"{y} + {x}", f"{y}.add_({x})", f"torch.add({x}, {y})", f"{x} - {y}"))


def beside(b: Builder) -> None:
    """A norm and a convolution of one value, added: RepVGG."""
    x = b.value(3, 4, 5)
    y = b.call(_norm(b, x), x)
    groups = b.choose(1, b.size(x)[1])
    z = b.call(_conv(b, x, f"{b.choose('3, padding=1', '1', '3, padding=2, dilation=2')}, groups={groups}"), x)
    if b.chance(5):
        z = b.call(_norm(b, z), z)
    b.let(b.choose(f"{y} + {z}", f"{z} + {y}", f"{y}.add_({z})", f"torch.add({z}, {y}, alpha=2)", f"{z} - {y}"))


def parallel(b: Builder) -> None:
    """Two or three convolutions of one value, added, that may become one: MobileOne, ACNet."""
    x = b.value(3, 4, 5)
    total = ""
    for _ in range(b.choose(2, 2, 3)):
        y = b.let(f"{_conv(b, x, b.choose('3, padding=1', '1', '3, padding=2, dilation=2', '5, padding=2', '1, bias=False', '1, groups=1'))}({x})", see=False)
        if b.chance(2):
            y = b.call(_norm(b, y), y)
        total = y if not total else b.let(b.choose(f"{total} + {y}", f"{y} - {total}", f"{total}.add_({y})", f"torch.add({y}, {total}, alpha=-2)"))
        if b.chance(6):
            b.write(b.choose(f"{x}.mul_(0.5)", f"{x}[:, 0] = 0.5"))


def beside_another(b: Builder) -> None:
    """As beside, with a third addend, that is smaller, narrower or in another order than the sum."""
    x = b.value(3, 4, 5)
    norm, conv = _norm(b, x), _conv(b, x)
    space = list(range(2, b.rank(x)))
    half = f"torch.sigmoid({{x}}).to(torch.{b.narrow})" if b.narrow else "({x} > 0).to(torch.float16)"
    text = b.choose("torch.sigmoid({x}.mean({s}, keepdim=True))", "torch.exp({x}.transpose(-1, -2))", "torch.tanh({x})[:, :1]",
                    "torch.sigmoid({x}.transpose(-1, -2))", half, "torch.sigmoid({x})")  # fmt: skip
    third = b.let(text.format(x=x, s=space), see=False)
    y = b.let(b.choose(f"{norm}({x}) + {third}", f"{third} + {norm}({x})", f"{norm}({x}) - {third}", f"{conv}({x}) + {third}"), see=False)
    other = norm if conv in b.lines[-1] else conv
    z = b.let(b.choose("{y} + {o}({x})", "{y}.add_({o}({x}))", "{o}({x}) + {y}", "torch.sub({y}, {o}({x}), alpha=2)", "{o}({x}) - {y}")
              .format(y=y, o=other, x=x))  # fmt: skip
    if b.chance(3):
        b.let(f"{z}.view({x}.shape[0], -1)")


def beside_in_a_loop(b: Builder) -> None:
    """As beside, where each round writes into a sum, and the convolution runs in each or before the first."""
    x = b.value(3, 4, 5)
    norm, conv = _norm(b, x), _conv(b, x)
    total = b.let(f"torch.zeros_like({x})", see=False)
    before = b.chance(5)
    z = b.let(f"{conv}({x})", see=False) if before else f"{conv}({x})"
    gate = f" + {b.let(f'{x}.mean(1, keepdim=True)', see=False)}" if b.chance(3) else ""
    with b.block(b.choose("for _ in range(2):", f"for _ in range({x}.shape[0]):")):
        y = b.let(b.choose(f"{norm}({x}){gate} + {z}", f"{z} + {norm}({x}){gate}"))
        b.write(b.choose(f"{y}.mul_(2.0)", f"{y}.relu_()", f"{y} *= 0.5", f"{y}[:, 0] = 0.5"))
        b.write(f"{total} = {total} + {y}")
    b.values.append(total)


# ---- pooling and the like


def pool(b: Builder) -> None:
    x = b.value(3, 4, 5)
    d = b.spatial(x)
    kernel, stride = b.choose(2, 3), b.choose(1, 2)
    padding = b.choose(0, 0, 1)
    ceil = b.choose("", "", ", ceil_mode=True")
    b.let(
        b.choose(
            f"F.max_pool{d}d({x}, {kernel}, {stride}, {padding}{ceil})",
            f"F.max_pool{d}d({x}, 2, {stride}, 0, 2{ceil})",
            f"F.avg_pool{d}d({x}, {kernel}, {stride}, {padding}{ceil})",
            f"F.avg_pool{d}d({x}, {kernel}, {stride}, {padding}, count_include_pad=False{ceil})",
            f"F.avg_pool{d}d({x}, {kernel}, {stride}, divisor_override=3)",
            f"F.adaptive_avg_pool{d}d({x}, {b.choose(1, 2, 3)})",
            f"F.adaptive_avg_pool{d}d({x}, {[1] * d})",
            f"F.adaptive_max_pool{d}d({x}, 2)",
            f"F.lp_pool{d}d({x}, 2.0, 2)",
        )
    )


def reduce(b: Builder) -> None:
    x = b.value(2, 3, 4, 5)
    rank = b.rank(x)
    space = list(range(2, rank)) or [1]
    dimensions = b.choose(space, [-1], [1], [rank - 1], list(range(1, rank)))
    keep = b.choose("", ", keepdim=True")
    b.let(b.choose("{x}.mean({d}{k})", "{x}.mean({d}{k})", "{x}.sum({d}{k})", "torch.amax({x}, {d}{k})", "{x}.std({d}{k})").format(x=x, d=dimensions, k=keep))


def interpolate(b: Builder) -> None:
    x = b.value(3, 4, 5)
    smooth = {3: "linear", 4: "bilinear", 5: "trilinear"}[b.rank(x)]
    size = b.choose("scale_factor=2.0", "size={}".format([5] * (b.rank(x) - 2)), "scale_factor=0.5", "scale_factor=1.5")
    mode = b.choose('mode="nearest"', f'mode="{smooth}"', f'mode="{smooth}", align_corners=True', 'mode="nearest-exact"', 'mode="area"')
    b.let(f"F.interpolate({x}, {size}, {mode})")


def pad(b: Builder) -> None:
    x = b.value(3, 4, 5)
    dimensions = b.rank(x) - 2
    widths = [b.choose(1, 0, 2) for _ in range(2 * dimensions)]
    kind = b.choose("zeros", "value", "reflect", "replicate", "circular", "channels", "cropped", "layer")
    if kind == "layer":
        layer = b.choose("ReflectionPad{}d(1)", "ReplicationPad{}d(1)", "ZeroPad{}d(1)", "ConstantPad{}d(1, 0.5)", "CircularPad{}d(1)")
        b.call(b.layer("pad", "nn." + layer.format(dimensions)), x)
        return
    b.let(
        {
            "zeros": f"F.pad({x}, {widths})",
            "value": f'F.pad({x}, {widths}, "constant", {b.choose(0.5, -1.0)})',
            "channels": f"F.pad({x}, {[0, 0] * dimensions + [0, 1]})",
            "cropped": f"F.pad({x}, {[-1, *widths[1:]]})",
        }.get(kind, f'F.pad({x}, {widths}, "{kind}")')
    )


# ---- places and sizes


def concat(b: Builder) -> None:
    x = b.value()
    same = [name for name in reversed(b.values) if b.rank(name) == b.rank(x)]
    parts = [x, *(b.choose(*same) for _ in range(b.choose(1, 1, 2)))]
    if b.chance(3):
        parts.reverse()
    dimension = b.choose(1, 1, 1, 1, 0, -1, 2)
    b.let(b.choose("torch.cat([{p}], {d})", "torch.cat([{p}], {d})", "torch.cat([{p}], dim={d})", "torch.stack([{p}], {d})",
                   "torch.concat([{p}], {d})").format(p=", ".join(parts), d=dimension))  # fmt: skip


def parts(b: Builder) -> None:
    """Several parts of a value; not all of them need be read."""
    x = b.value(2, 3, 4, 5)
    dimension = b.choose(1, 1, 1, -1)
    size = b.size(x)[dimension]
    if size < 2:
        raise Unfit
    half = -(-size // 2)
    found = b.unpack(
        *b.choose(
            (f"torch.chunk({x}, 2, {dimension})", 2),
            (f"{x}.split({half}, {dimension})", -(-size // half)),
            (f"torch.split({x}, {[1, size - 1]}, {dimension})", 2),
            (f"{x}.unbind({dimension})", size if size <= 4 else 0),
            (f"torch.tensor_split({x}, 2, {dimension})", 2),
        )
    )
    if len(found) == 2 and b.chance(4):
        b.let(b.choose(f"torch.cat([{found[1]}, {found[0]}], {dimension})", f"{found[0]} * torch.sigmoid({found[1]})"))


def part(b: Builder) -> None:
    x = b.value(2, 3, 4, 5)
    b.let(
        b.choose("{x}[:, 1:]", "{x}[:, :2]", "{x}[:, ::2]", "{x}[:, :-1]", "{x}[..., 1:]", "{x}[:, 0]", "{x}.narrow(1, 0, 1)", "{x}.select(1, 0)",
                 "{x}.flip([1])", "{x}.flip([-1])", "{x}.roll(1, 1)", "{x}[1:]", "{x}[:, None]", "{x}[:, [1, 0]]",
                 "{x}.index_select(1, torch.tensor([0, 1]))", "{x}[:, :, 1:-1]", "{x}[:1]").format(x=x)
    )  # fmt: skip


def reshape(b: Builder) -> None:
    x = b.value(2, 3, 4, 5)
    n, c, *space = b.size(x)
    joined = 1
    for size in space:
        joined *= size
    options = [
        "{x}.flatten(1)", "torch.flatten({x}, 1)", "{x}.reshape({x}.shape[0], -1)", "{x}.view({x}.size(0), -1)", "{x}.flatten(2)", "{x}.flatten(0, 1)",
        "{x}.view({x}.shape[0], {c}, -1)", "{x}.reshape(-1, {c}, {joined})", "{x}.unflatten(1, [1, {c}])", "{x}.reshape(-1, {last})",
        "{x}.view(-1, {c}, 1, {joined})", "{x}.reshape({x}.shape[0], {joined}, {c})",
    ]  # fmt: skip
    if c % 2 == 0:
        options += ["{x}.view({x}.shape[0], 2, {half}, -1)", "{x}.reshape({x}.shape[0], {half}, -1)", "{x}.unflatten(1, [2, {half}])"]
    b.let(b.choose(*options).format(x=x, c=c, joined=joined, last=b.size(x)[-1], half=c // 2))


def permute(b: Builder) -> None:
    x = b.value(2, 3, 4, 5)
    rank = b.rank(x)
    b.let(b.choose(f"{x}.transpose(1, -1)", f"{x}.transpose(1, 2)", f"{x}.permute({spread(0, *range(2, rank), 1)})",
                   f"{x}.permute({spread(0, rank - 1, *range(1, rank - 1))})", f"{x}.t()", f"{x}.movedim(1, -1)",
                   f"{x}.transpose(0, 1)", f"{x}.mT", f"{x}.transpose(1, -1).contiguous()"))  # fmt: skip


def squeeze(b: Builder) -> None:
    x = b.value()
    dimension = b.choose(-1, 1, 2, 0)
    b.let(b.choose(f"{x}.unsqueeze({dimension})", f"{x}.squeeze({dimension})", f"{x}.unsqueeze({dimension}).squeeze({dimension})", f"{x}.squeeze()"))


def expand(b: Builder) -> None:
    x = b.value(2, 3, 4, 5)
    n, c, *space = b.size(x)
    sizes = spread(-1, c if c > 1 else 3, *[-1 if size > 1 else 3 for size in space])
    b.let(b.choose(f"{x}.expand({sizes})", f"{x}.repeat({spread(1, 2, *[1] * len(space))})", f"{x}.repeat_interleave(2, 1)"))


def shuffle(b: Builder) -> None:
    x = b.value(4)
    n, c, h, w = b.size(x)
    if c % 2:
        raise Unfit
    kind = b.choose("channels", "by hand", "pixels", "unshuffle", "both")
    if kind == "by hand":
        seen = b.let(f"{x}.view({x}.shape[0], 2, {c // 2}, {x}.shape[2], {x}.shape[3])")
        b.let(f"{seen}.transpose(1, 2).reshape({x}.shape[0], {c}, {x}.shape[2], {x}.shape[3])")
        return
    b.let({"channels": f"torch.channel_shuffle({x}, 2)", "pixels": f"F.pixel_shuffle({x}, 2)", "unshuffle": f"F.pixel_unshuffle({x}, 2)",
           "both": f"F.pixel_shuffle(F.pixel_unshuffle({x}, 2), 2)"}[kind])  # fmt: skip


# ---- writing


def write(b: Builder) -> None:
    """Writes into a value, all of it or a part; what shares its memory changes as well."""
    x, y = b.value(2, 3, 4, 5), b.value()
    b.write(
        b.choose("{x}[:, 0] = 0.5", "{x}[:, 1:].mul_(2.0)", "{x}.mul_(0.9)", "{x}.add_(0.1)", "{x}[0] = {y}[0]", "{x}.copy_({y})", "{x}[:, :1].zero_()",
                 "{x} += {y}", "{x} *= 0.5", "F.relu({x}, inplace=True)", "{x}[:, -1] += 1.0", "{x}.select(1, 0).relu_()").format(x=x, y=y)
    )  # fmt: skip


def write_unsaid(b: Builder) -> None:
    """Writes into what an operator returned, which is the value that a norm read before."""
    x = b.value(3, 4, 5)
    y = b.call(_norm(b, x), x)
    same = b.let(b.choose(*UNSAID_ALIASES).format(x=x))
    _write_one_of(b, x, same)
    b.call(_conv(b, y, b.choose("1", "3, padding=1")), y)


def _write_one_of(b: Builder, *names: str) -> None:
    b.write(b.choose("{x}.add_(1.0)", "{x}.mul_(0.5)", "{x}.relu_()", "{x}[:, 0] = 0.5", "{x} += 1.0").format(x=b.choose(*reversed(names))))


# How a value gets into a container, and out of it.
HELD = (
    ('{h} = {{"a": {x}}}', '{h}["a"]'), ("{h}: Dict[str, torch.Tensor] = {{}}", '{h}["a"]'), ("{h} = [{x}]", "{h}[0]"), ("{h} = ({x}, 1)", "{h}[0]"),
    ('{h} = {{"a": [{x}]}}', '{h}["a"][0]'),
)  # fmt: skip


def write_held(b: Builder) -> None:
    """Writes into an element of a container, which a norm reads, by one of its names."""
    x, held = b.value(3, 4, 5), b.names.new("held")
    store, read = b.choose(*HELD)
    b.write(store.format(h=held, x=x))
    if "Dict" in store:
        b.write(f'{held}["a"] = {x}')
    one, other = b.let(read.format(h=held), see=False), b.let(read.format(h=held), see=False)
    y = b.call(_norm(b, one), b.choose(one, x))
    _write_one_of(b, x, other)
    b.call(_conv(b, y, b.choose("1", "3, padding=1")), y)
    b.values.append(other)


def write_out(b: Builder) -> None:
    """What an operator writes into another tensor, read by the name of either."""
    x = b.value()
    out = b.let(b.choose("torch.zeros_like({x})", "{x}.clone()", "torch.empty_like({x})").format(x=x), see=False)
    b.let(
        b.choose("torch.mul({x}, 2.0, out={o})", "torch.add({x}, {x}, out={o})", "torch.tanh({x}, out={o})", "torch.neg({x}, out={o})",
                 "torch.clamp({x}, -0.5, 0.5, out={o})", "torch.mul({x}, torch.sigmoid({x}), out={o})").format(x=x, o=out)
    )  # fmt: skip
    if b.chance(7):
        b.values.append(out)
