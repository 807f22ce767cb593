"""Steps that call layers with weights, and norms of every kind."""

from __future__ import annotations

from typing import Any

from .module_builder import Builder, Unfit

PADDING_MODES = ("zeros", "zeros", "zeros", "zeros", "reflect", "replicate", "circular")


def arguments(*positional: Any, **named: tuple[Any, Any]) -> str:
    """The arguments of a call; a named one comes with its default, and is written where it differs."""
    written = [f"{name}={value!r}" for name, (value, default) in named.items() if value != default]
    return ", ".join([*map(str, positional), *written])


def spread(*sizes: int) -> str:
    """Sizes or dimensions as the arguments of a call."""
    return ", ".join(map(str, sizes))


# ---- layers with weights


def conv(b: Builder) -> None:
    x = b.value(3, 4, 5)
    dimensions = b.spatial(x)
    b.call(_conv_layer(b, b.channels(x, dimensions), dimensions), x)


def _conv_layer(b: Builder, channels: int, dimensions: int) -> str:
    kernel = b.choose(1, 3, 3, 2)
    outputs = b.choose(channels, 1, 2, 3, 4, 6)
    groups = b.choose(1, 1, 1, channels, 2)
    if channels % groups or outputs % groups:
        groups = 1
    mode = b.choose(*PADDING_MODES)
    text = arguments(
        channels, outputs, kernel,
        stride=(b.choose(1, 1, 1, 2), 1), padding=(b.choose(kernel // 2, 0, 1, "same", "valid"), 0), dilation=(b.choose(1, 1, 1, 2), 1),
        groups=(groups, 1), bias=(b.choose(True, False), True), padding_mode=(mode, "zeros"),
    )  # fmt: skip
    return b.layer("conv", f"nn.Conv{dimensions}d({text})")


def transposed_conv(b: Builder) -> None:
    x = b.value(3, 4, 5)
    dimensions = b.spatial(x)
    channels = b.channels(x, dimensions)
    groups = b.choose(1, 1, channels, 2)
    outputs = b.choose(channels, 2, 4)
    if channels % groups or outputs % groups:
        groups = 1
    stride = b.choose(1, 2)
    text = arguments(
        channels, outputs, b.choose(1, 2, 3), stride=(stride, 1), padding=(b.choose(0, 0, 1), 0),
        output_padding=(b.choose(0, stride - 1), 0), groups=(groups, 1), bias=(b.choose(True, False), True),
    )  # fmt: skip
    b.call(b.layer("deconv", f"nn.ConvTranspose{dimensions}d({text})"), x)


def functional_conv(b: Builder) -> None:
    """The weight is a parameter of the module, that of a layer, or computed."""
    x = b.value(3, 4, 5)
    dimensions = b.spatial(x)
    channels, outputs, kernel = b.channels(x, dimensions), b.choose(2, 3, 4), b.choose(1, 3)
    name = f"conv{dimensions}d"
    kind = b.choose("parameter", "layer", "computed", "transposed", "list")
    if kind == "parameter":
        weight = b.parameter(outputs, channels, *[kernel] * dimensions)
        b.let(f"F.{name}({x}, {weight}, {b.choose('None', b.parameter(outputs))}, padding={kernel // 2})")
        return
    if kind == "transposed":
        b.let(f"F.conv_transpose{dimensions}d({x}, {b.parameter(channels, outputs, *[kernel] * dimensions)}, stride={b.choose(1, 2)})")
        return
    layer = _conv_layer(b, channels, dimensions)
    weight = {
        "layer": f"{layer}.weight",
        "list": f"torch.cat([{layer}.weight, {layer}.weight], 0)",
        "computed": b.choose(f"{layer}.weight - {layer}.weight.mean()", f"{layer}.weight * 2.0", f"{layer}.weight.flip(0)"),
    }[kind]
    b.let(f"F.{name}({x}, {weight}{b.choose('', f', {layer}.bias')}, stride={layer}.stride)")


def linear(b: Builder) -> None:
    x = b.value(2, 3, 4, 5)
    outputs = b.choose(4, 2, 3, 6)
    text = arguments(b.size(x)[-1], outputs, bias=(b.choose(True, True, False), True))
    b.call(b.layer("linear", f"nn.Linear({text})"), x)


def linear_along_channels(b: Builder) -> None:
    """A linear layer on the channels of an image or a sequence, which are moved to the end for it."""
    x = b.value(3, 4, 5)
    rank = b.rank(x)
    layer = b.layer("linear", f"nn.Linear({b.size(x)[1]}, {b.choose(4, 2, 6)})")
    if rank == 3:
        there = back = ".transpose(1, 2)"
    else:
        there = f".permute({spread(0, *range(2, rank), 1)})"
        back = f".permute({spread(0, rank - 1, *range(1, rank - 1))})"
    b.let(f"{layer}({x}{there})" + b.choose(back, ""))


def product(b: Builder) -> None:
    """A product with a matrix, in its many spellings."""
    x = b.value(2, 3, 4)
    inputs, outputs = b.size(x)[-1], b.choose(4, 2, 6)
    kind = b.choose("matmul", "operator", "mm", "addmm", "scaled addmm", "bmm", "left", "linear", "vector", "einsum")
    if kind == "left":
        b.let(f"torch.matmul({b.parameter(b.size(x)[-2], b.size(x)[-2])}, {x})")
        return
    weight, bias = b.parameter(inputs, outputs), b.parameter(outputs)
    if b.chance(3):
        weight = f"{b.parameter(outputs, inputs)}.t()"
    b.let(
        {
            "matmul": f"torch.matmul({x}, {weight})",
            "operator": f"{x} @ {weight} + {bias}",
            "mm": f"torch.mm({x}, {weight})",
            "addmm": f"torch.addmm({bias}, {x}, {weight})",
            "scaled addmm": f"torch.addmm({bias}, {x}, {weight}, beta=0.5, alpha=2.0)",
            "bmm": f"torch.bmm({x}, {weight}.expand({x}.shape[0], {inputs}, {outputs}))",
            "linear": f"F.linear({x}, {weight}.t(), {bias})",
            "vector": f"{x} @ {b.parameter(inputs)}",
            "einsum": f'torch.einsum("...i,io->...o", [{x}, {weight}])',
        }[kind]
    )


def sequential(b: Builder) -> None:
    """Layers, norms and activations in a row, as most models have them."""
    x = b.value(3, 4, 5)
    dimensions = b.rank(x) - 2
    channels = b.size(x)[1]
    outputs = b.choose(channels, 2, 4)
    conv_layer = f"nn.Conv{dimensions}d({channels}, {outputs}, 3, padding=1, bias={b.choose(False, True)})"
    norm = f"nn.BatchNorm{dimensions}d(%d)"
    act = b.choose("nn.ReLU()", "nn.ReLU(inplace=True)", "nn.ReLU6()", "nn.SiLU(inplace=True)", "nn.Hardtanh(-0.5, 1.5)", "nn.LeakyReLU(0.1)")
    parts = b.choose(
        [conv_layer, norm % outputs, act],
        [norm % channels, act, conv_layer],
        [conv_layer, act, norm % outputs],
        [norm % channels, conv_layer],
        [norm % channels, act, conv_layer.replace("3, padding=1", "1")],
    )
    b.call(b.layer("block", f"nn.Sequential({', '.join(parts)})"), x)


def again(b: Builder) -> None:
    """A layer, norm or method that was called before, on another value or the same."""
    if not b.callables:
        raise Unfit
    path = b.choose(*reversed(b.callables))
    b.let(f"{path}({b.value()})")


def shared(b: Builder) -> None:
    """One thing under two names: a submodule, or the weight of two."""
    if not b.callables:
        raise Unfit
    path = b.choose(*reversed(b.callables))
    kind = type(b.namespace["self"].get_submodule(path.removeprefix("self."))).__name__ if not path.startswith("self.method") else ""
    name = f"self.{b.names.new('twin')}"
    if kind.startswith(("Conv", "Linear", "BatchNorm")) and b.chance(5):
        constructor = next(line.split(" = ", 1)[1] for line in b.layers if line.startswith(f"{path} = "))
        b.init(f"{name} = {constructor}")
        b.init(f"{name}.weight = {path}.weight")
        if b.chance(5):
            b.init(f"{name}.bias = {path}.bias")
    elif kind:
        b.init(f"{name} = {path}")
    else:
        raise Unfit
    b.call(name, b.value())


def weight_read_elsewhere(b: Builder) -> None:
    path = b.choose(*reversed(b.callables)) if b.callables else ""
    if not path.startswith(("self.conv", "self.linear", "self.norm")):
        raise Unfit
    x = b.value()
    b.let(b.choose(f"{x} * {path}.weight.sum()", f"{x} + {path}.weight.mean()", f"{x} * {path}.weight.abs().max()"))


def embedding(b: Builder) -> None:
    if "ids" not in b.arguments or b.chance(3):
        raise Unfit
    layer = b.layer("embedding", f"nn.Embedding(10, {b.choose(4, 3)})")
    b.let(f"{layer}(ids)" + b.choose(".transpose(1, 2)", "", ".mean(1)"))


# ---- norms


def norm(b: Builder) -> None:
    x = b.value(2, 3, 4, 5)
    kind = f"nn.BatchNorm{max(b.rank(x) - 2, 1)}d"
    text = arguments(
        b.size(x)[1], eps=(b.choose(1e-5, 1e-5, 1e-3, 0.1), 1e-5), momentum=(b.choose(0.1, 0.1, None), 0.1),
        affine=(b.choose(*[True] * 7, False), True), track_running_stats=(b.choose(*[True] * 19, False), True),
    )  # fmt: skip
    path = b.layer("norm", f"{kind}({text})")
    statistics(b, path, "affine=False" not in text, "track_running_stats" not in text)
    b.call(path, x)


def statistics(b: Builder, path: str, affine: bool, tracks: bool) -> None:
    """Sometimes other statistics than those that calibration sets, and a norm that was left in training mode."""
    if affine and b.chance(3):
        b.statistics.append(f"{path}.weight.abs_()")
    if affine and b.chance(2):
        b.statistics.append(f"{path}.bias.zero_()")
    if affine and b.chance(1):
        b.statistics.append(path + b.choose(".weight.zero_()", ".weight[0] = 0.0", ".weight.fill_(1.0)", ".weight[-1] = 1e-9", ".weight.neg_()"))
    if tracks and b.chance(1):
        b.statistics.append(
            path + b.choose(".running_var[0] = 0.0", ".running_mean.add_(1e4)", ".running_var[0] = 1e12", ".running_var[0] = -0.5",
                            '.running_var[0] = float("inf")', ".running_mean.zero_()")
        )  # fmt: skip
    if b.choose(*[False] * 24, True):
        b.statistics.append(f"{path}.train()")


def functional_norm(b: Builder) -> None:
    """F.batch_norm with buffers, along dimension 1 of a value of any rank."""
    x = b.value(2, 3, 4, 5)
    channels = b.size(x)[1]
    mean = b.buffer(f"torch.rand({channels}) - 0.5")
    variance = b.buffer(f"torch.rand({channels}) + 0.5")
    weight, bias = b.choose((b.parameter(channels), b.parameter(channels)), ("None", "None"), (b.parameter(channels), "None"))
    if b.chance(1):
        mean = b.choose(f"{mean} + {x}.mean()", f"{mean}.mul_(0.9)")
    training = b.choose(*["False"] * 10, "True", "self.training")
    if "gate" in b.arguments and b.chance(3):
        training = "gate"
    b.let(f"F.batch_norm({x}, {mean}, {variance}, {weight}, {bias}, {training}, 0.1, {b.choose(1e-5, 0.01)})")


def frozen_norm(b: Builder) -> None:
    x = b.value(4)
    b.call(b.layer("norm", f"FrozenBatchNorm2d({b.size(x)[1]})"), x)


def norm_by_hand(b: Builder) -> None:
    """Scale and shift computed from buffers, or given."""
    x = b.value(2, 3, 4, 5)
    channels, rank = b.size(x)[1], b.rank(x)
    sizes = b.choose(spread(1, channels, *[1] * (rank - 2)), spread(channels, *[1] * (rank - 2)))
    weight, mean, bias = (b.buffer(f"torch.randn({channels})") for _ in range(3))
    variance = b.buffer(f"torch.rand({channels}) + 0.5")
    scale = b.let(f"{weight} * ({variance} + 1e-5).rsqrt()", see=False)
    shift = b.let(f"({bias} - {mean} * {scale}).view({sizes})", see=False)
    b.let(b.choose(f"{x} * {scale}.view({sizes}) + {shift}", f"{shift} + {scale}.view({sizes}) * {x}", f"{x} * {scale}.view({sizes}) - {shift}"))


def written_scale(b: Builder) -> None:
    """A scale that is made of buffers alone, and written in place: before its product, behind it, or in each round of a loop."""
    x = b.value(2, 3, 4, 5)
    channels, rank = b.size(x)[1], b.rank(x)
    weight, variance = b.buffer(f"torch.randn({channels})"), b.buffer(f"torch.rand({channels}) + 0.5")
    scale = b.let(b.choose(f"{weight} * torch.rsqrt({variance} + 1e-5)", f"{weight} * 2.0", f"({variance} + 0.1).rsqrt()"), see=False)
    view = f"{scale}.view({spread(1, channels, *[1] * (rank - 2))})"
    write = b.choose("{k}.add_(1)", "{k}[0] = 5.0", "{k}.mul_(0.5)", "{k}.clamp_(max=0.7)", "{k} += 1.0", "{k}[1:].zero_()").format(k=scale)
    kind = b.choose("before", "viewed", "behind", "loop", "shift")
    if kind == "viewed":
        view = b.let(view, see=False)
    if kind == "loop":
        target = b.let(f"{x}.clone()", see=False)
        with b.block(b.choose("for _ in range(2):", f"for _ in range({x}.shape[0]):")):
            b.write(f"{target} = {target} * {view}")
            b.write(write)
        b.values.append(target)
        return
    if kind != "behind":
        b.write(write)
    b.let(f"{x} + {view}" if kind == "shift" else b.choose(f"{x} * {view}", f"{view} * {x}"))
    if kind == "behind":
        b.write(write)


def layer_scale(b: Builder) -> None:
    x = b.value(2, 3, 4, 5)
    dimension = b.choose(1, 1, 1, b.rank(x) - 1)
    sizes = [1] * b.rank(x)
    sizes[dimension] = b.size(x)[dimension]
    scale = b.parameter(*sizes[b.choose(0, dimension) :])
    b.let(b.choose(f"{x} * {scale}", f"{scale} * {x}", f"{x}.mul({scale})", f"{x}.mul_({scale})", f"{x} / {scale}"))


def instance_norm(b: Builder) -> None:
    x = b.value(3, 4, 5)
    tracks = b.choose(True, True, False)
    text = arguments(b.size(x)[1], affine=(b.choose(True, False), False), track_running_stats=(tracks, False))
    path = b.layer("instance", f"nn.InstanceNorm{b.rank(x) - 2}d({text})")
    if tracks:
        b.statistics += [f"{path}.running_mean.copy_(torch.rand({b.size(x)[1]}))", f"{path}.running_var.copy_(torch.rand({b.size(x)[1]}) + 0.5)"]
    b.call(path, x)


def other_norm(b: Builder) -> None:
    """Norms with the statistics of each sample, which nothing can fold."""
    x = b.value(3, 4, 5)
    channels = b.size(x)[1]
    b.call(b.layer("other", b.choose(f"nn.GroupNorm(1, {channels})", f"nn.LayerNorm({b.size(x)[-1]})", f"nn.GroupNorm({channels}, {channels})")), x)
