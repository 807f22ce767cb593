"""Steps that hold other steps: branches, loops, tasks, methods, submodules, and structures that values are put into."""

from __future__ import annotations

from typing import Callable

from . import layers, operators
from .module_builder import Builder, Unfit
from .program import Method

Step = Callable[[Builder], None]

CONDITIONS = ("{x}.dim() == {rank}", "{x}.shape[1] > 2", "{x}.size(-1) > 4", "{x}.sum() > 0.37", "{x}.shape[0] == 2", "{x}.max() > 0.5")

# Nothing may write what a task reads beside it, nor the task what others read: who comes first would be chance.
READS_ONLY = ("self.conv", "self.linear", "self.norm")


# ---- steps that keep the size


def _conv_same(b: Builder) -> None:
    x = b.value(3, 4, 5)
    channels = b.size(x)[1]
    kernel = b.choose("1", "3, padding=1")
    b.call(b.layer("conv", f"nn.Conv{b.rank(x) - 2}d({channels}, {channels}, {kernel})"), x)


def _conv_one(b: Builder) -> None:
    """An unpadded kernel of 1, which takes scale and shift on both sides."""
    x = b.value(3, 4, 5)
    b.call(b.layer("conv", f"nn.Conv{b.rank(x) - 2}d({b.size(x)[1]}, {b.choose(4, 2)}, 1)"), x)


def _linear_same(b: Builder) -> None:
    x = b.value(2, 3)
    features = b.size(x)[-1]
    b.call(b.layer("linear", f"nn.Linear({features}, {features})"), x)


KEEPS_SIZE: tuple[Step, ...] = (
    _conv_same, _conv_same, layers.norm, layers.norm, operators.activation, operators.number, _linear_same, operators.identity, layers.functional_norm,
    operators.activation_layer, operators.pair, operators.write,
)  # fmt: skip


def chain(b: Builder, x: str, most: int = 3) -> str:
    """A few steps from ``x`` on to a value of its size."""
    size = b.size(x)
    for _ in range(b.choose(*range(1, most + 1))):
        b.values.append(x)  # the newest, so that it is likely to be read
        b.choose(*KEEPS_SIZE)(b)
        if b.size(b.values[-1]) == size:
            x = b.values[-1]
    return x


# ---- what an affine may pass on its way from a norm to a layer


PASSES_AN_AFFINE: tuple[Step, ...] = (
    operators.activation, operators.pool, operators.pad, operators.interpolate, operators.reduce, operators.shuffle, operators.permute, operators.squeeze,
    operators.reshape, operators.concat, operators.parts, operators.number, operators.gate, operators.identity, operators.leaky, operators.pair,
    operators.parameter, operators.curve, operators.expand, operators.part, operators.bounds, layers.written_scale,
)  # fmt: skip


LAYERS: tuple[Step, ...] = (
    layers.conv, _conv_same, layers.linear, layers.product, layers.transposed_conv, layers.norm, layers.linear_along_channels, layers.functional_conv,
)  # fmt: skip
# What a program can be about.
SUBJECTS = (*LAYERS, *PASSES_AN_AFFINE)


def between(b: Builder) -> None:
    """A layer and a norm with operators between, in either order."""
    layer = b.subject if b.subject in LAYERS and b.chance(7) else b.choose(*[_conv_one] * len(LAYERS), *LAYERS)
    with b.following():
        first, last = b.choose((layer, layers.norm), (layers.norm, layer))
        first(b)
        for _ in range(b.choose(1, 1, 2) - (b.subject is layer and b.chance(5))):
            passing = b.subject if b.subject in PASSES_AN_AFFINE and b.chance(7) else b.choose(*PASSES_AN_AFFINE)
            passing(b)
        last(b)
    if b.subject is operators.curve:  # which passes a scale of 0 alone
        norm = next(path for path in reversed(b.callables) if path.startswith("self.norm"))
        b.statistics += [f"{norm}.weight.zero_()", f"{norm}.bias.zero_()"] if b.chance(5) else []


# ---- branches and loops


def _condition(b: Builder, x: str) -> str:
    kind = b.choose("attribute", "text", "text", "text", "argument")
    if kind == "text":
        return b.choose(*CONDITIONS).format(x=x, rank=b.rank(x))
    if kind == "argument" and "gate" in b.arguments:
        return "gate"
    flag = f"self.{b.names.new('flag')}"
    b.init(f"{flag} = {b.choose(True, False)}")
    return flag


def branch(b: Builder) -> None:
    x = b.value()
    condition, target = _condition(b, x), b.names.new("v")
    with b.block(f"if {condition}:"):
        b.write(f"{target} = {chain(b, x)}")
    with b.block("else:"):
        b.write(f"{target} = {chain(b, b.choose(x, b.value())) if b.chance(5) else x}")
    if b.size(target) != b.size(x):
        raise Unfit
    b.values.append(target)


def loop(b: Builder) -> None:
    """The value goes through the same layers in each round."""
    x = b.value()
    target = b.let(b.choose(f"{x}.clone()", x), see=False)
    head = b.choose("for _ in range(2):", f"for _ in range({x}.shape[0]):", f"for _ in range({x}.shape[1] - 1):")
    if "steps" in b.arguments and b.chance(7):
        head = "for _ in range(steps):"
    with b.block(head):
        b.write(f"{target} = {chain(b, target)}")
    b.values.append(target)


def module_list(b: Builder) -> None:
    x = b.value(3, 4, 5)
    dimensions, channels = b.rank(x) - 2, b.size(x)[1]
    conv, norm = f"nn.Conv{dimensions}d({channels}, {channels}, 1)", f"nn.BatchNorm{dimensions}d({channels})"
    members = b.choose([conv, norm], [conv, norm, "nn.ReLU()", conv], [norm, "nn.ReLU(inplace=True)", conv], [norm, conv, norm])
    path = b.layer("layers", f"nn.ModuleList([{', '.join(members)}])")
    gathers = b.chance(4)
    target, gathered = b.let(f"{x}.clone()", see=False), b.names.new("gathered")
    if gathers:
        b.write(f"{gathered}: List[torch.Tensor] = []")
    with b.block(f"for layer in {path}:"):
        b.namespace["layer"] = b.namespace["self"].get_submodule(path.removeprefix("self."))[0]
        b.write(f"{target} = layer({target})")
        if gathers:
            b.write(f"{gathered}.append({target})")
    if gathers:
        # The loop ran once here, and runs once for each layer in the program.
        b.namespace[gathered] = [b.namespace[target]] * len(members)
        b.let(f"torch.cat({gathered}, 1)")
    b.values.append(target)


def gathering(b: Builder) -> None:
    """A loop whose rounds append to a list."""
    x, gathered = b.value(2, 3, 4, 5), b.names.new("gathered")
    rounds = b.choose("2", f"{x}.shape[0]")
    b.write(f"{gathered}: List[torch.Tensor] = []")
    with b.block(f"for _ in range({rounds}):"):
        b.write(f"{gathered}.append({chain(b, x)})")
    b.namespace[gathered] = b.namespace[gathered] * 2
    b.let(b.choose(f"torch.cat({gathered}, 1)", f"torch.stack({gathered})", f"{gathered}[-1]", f"torch.cat({gathered})"))


# ---- structures


def structure(b: Builder) -> None:
    x, y, held = b.value(), b.value(), b.names.new("held")
    text, got = b.choose(
        ("({x}, {y})", "{h}[0]"), ("({x}, {y})", "{h}[1]"), ("[{x}, {y}]", "{h}[0]"), ('{{"a": {x}, "b": {y}}}', '{h}["b"]'),
        ("[{x}, {y}]", "{h}.pop()"), ("[{x}, {y}]", "{h}[-1]"), ("(({x}, {y}), {x})", "{h}[0][1]"),
    )  # fmt: skip
    b.write(f"{held} = {text.format(x=x, y=y)}")
    b.let(got.format(h=held))


def optional(b: Builder) -> None:
    """A value that may be None, decided by an attribute."""
    x, maybe, target = b.value(), b.names.new("maybe"), b.names.new("v")
    flag = f"self.{b.names.new('flag')}"
    b.init(f"{flag} = {b.choose(True, False)}")
    b.write(f"{maybe}: Optional[torch.Tensor] = None")
    with b.block(f"if {flag}:"):
        b.write(f"{maybe} = {chain(b, x)}")
    with b.block(f"if {maybe} is not None:"):
        b.write(f"{target} = {b.choose(maybe, f'{maybe} * 2.0')}")
    with b.block("else:"):
        b.write(f"{target} = {x}")
    b.values.append(target)


# ---- methods, tasks and submodules


def helper(b: Builder) -> None:
    """A method of the module, called once or more."""
    x = b.value()
    name, argument = b.names.new("method"), b.names.new("a")
    b.write_aside(f"{argument} = {x}.clone()")
    with b.method([argument]) as lines:
        result = chain(b, argument, most=4)
        lines.append(f"return {result}")
    b.define(Method(name, f"self, {argument}", tuple(lines)))
    if b.chance(3):
        task(b, f"self.{name}", x)
    else:
        b.call(f"self.{name}", x)


def task(b: Builder, path: str = "", x: str = "") -> None:
    """What runs in a task, while other steps may run beside it."""
    x = x or b.value()
    if not path:
        if not b.callables:
            raise Unfit
        path = b.choose(*reversed(b.callables))
    future = b.names.new("task")
    b.write(f"{future} = torch.jit.fork({path}, {x})")
    if path.startswith(READS_ONLY) and b.chance(5):
        b.choose(layers.conv, layers.norm, layers.linear)(b)
    b.let(f"torch.jit.wait({future})")


def submodule(b: Builder) -> None:
    """A class of its own, which is used once, twice, or under two names."""
    x = b.value()
    name, argument = b.names.new("Part"), b.names.new("a")
    with b.part() as inner:
        inner.write_aside(f"{argument} = {x}.clone()")
        with inner.method([argument]) as lines:
            result = chain(inner, argument, most=4)
            lines.append(f"return {result}")
        inner.methods.append(Method("forward", f"self, {argument}", tuple(lines)))
        made = inner.finished(name)
    b.add_class(made)
    path = b.layer("part", f"{name}()")
    if made.statistics:
        b.statistics.append(f"{path}.set_statistics()")
    y = b.call(path, x)
    kind = b.choose("once", "once", "again", "another name", "another one")
    if kind == "again":
        b.let(f"{path}({y})")
    elif kind == "another name":
        b.call(b.layer("part", path), y)
    elif kind == "another one":
        b.call(b.layer("part", f"{name}()"), y)
