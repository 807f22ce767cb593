"""The strategies: a program, and the way in which it is run."""

from __future__ import annotations

from typing import Callable

from hypothesis import strategies as st

from . import control, dtypes, layers, operators
from .module_builder import Builder, Names, Unfit
from .program import Class, Input, Method, Program, argument_names, made, signature
from .run import Run

# How often each step is drawn. Those at the front are what examples shrink to.
STEPS: dict[Callable[[Builder], None], int] = {
    layers.conv: 14, operators.activation: 6, layers.norm: 12, layers.linear: 3, operators.pair: 5, operators.residual: 3, operators.concat: 4,
    operators.number: 2, operators.parameter: 2, operators.leaky: 2, operators.curve: 3, operators.identity: 2, operators.activation_layer: 2,
    layers.transposed_conv: 2, layers.functional_conv: 4, layers.linear_along_channels: 2, layers.product: 3, layers.sequential: 3,
    layers.again: 3, layers.shared: 2, layers.weight_read_elsewhere: 1, layers.embedding: 2, layers.functional_norm: 3, layers.frozen_norm: 1,
    layers.norm_by_hand: 2, layers.layer_scale: 2, layers.instance_norm: 1, layers.other_norm: 1,
    operators.gate: 2, operators.beside: 2, operators.parallel: 2, operators.pool: 4, operators.reduce: 2, operators.interpolate: 2, operators.pad: 3, operators.parts: 3,
    operators.part: 2, operators.reshape: 3, operators.permute: 2, operators.squeeze: 1, operators.expand: 1, operators.shuffle: 3, operators.cast: 1,
    operators.write: 3, operators.write_unsaid: 3, operators.write_held: 2, operators.write_out: 2, operators.bounds: 2, operators.beside_another: 4, operators.beside_in_a_loop: 2, layers.written_scale: 2,
    operators.large_number: 3,
    control.between: 40, control.branch: 3, control.loop: 2, control.module_list: 2, control.gathering: 1, control.structure: 1, control.optional: 1, control.helper: 2,
    control.task: 1, control.submodule: 2,
}  # fmt: skip
# Those of a program with narrow parts: no tests of values, which rounding decides there.
NARROW_STEPS: dict[Callable[[Builder], None], int] = {
    dtypes.layer: 24, dtypes.constants: 8, dtypes.cast: 4, control.between: 10,
    **{step: STEPS[step] for step in (
        layers.conv, layers.norm, layers.linear, layers.norm_by_hand, layers.layer_scale, layers.functional_norm, operators.activation, operators.pair,
        operators.residual, operators.concat, operators.number, operators.parameter, operators.leaky, operators.curve, operators.identity, operators.beside,
        operators.beside_another, operators.pool, operators.pad, operators.parts, operators.reshape, operators.permute, operators.write, layers.written_scale,
    )},
}  # fmt: skip
MEAN_STEPS = 12


def _repeated(weights: dict[Callable[[Builder], None], int]) -> tuple[Callable[[Builder], None], ...]:
    return tuple(step for step, weight in weights.items() for _ in range(weight))


_STEPS, _NARROW_STEPS = _repeated(STEPS), _repeated(NARROW_STEPS)

SIZES = (
    "batch, 4, side, side", "batch, 3, side, side", "batch, 4, side", "batch, 6", "batch, 4", "batch, 8", "batch, 2, 4, side, side", "4, side, side", "batch, side, 4",
    "batch, 1, side, side", "batch, side, side, 4", "batch, 8, 4, 4",
)  # fmt: skip
# Those that suit a subject, where few do.
SIZES_FOR = {
    operators.shuffle: ("batch, 4, side, side", "batch, 8, 4, 4"), layers.product: ("batch, 6", "batch, 4"), layers.linear: ("batch, 6", "batch, side, 4"),
}  # fmt: skip
ORDERS = ("", "", "", "", ".to(memory_format=torch.channels_last)", ".transpose(-1, -2).contiguous().transpose(-1, -2)")


def _inputs(b: Builder) -> tuple[Input, ...]:
    size = b.choose(*SIZES_FOR.get(b.subject, SIZES)) if b.chance(7) else b.choose(*SIZES)
    order = b.choose(*ORDERS)
    # An image of one channel in channels_last lies in both orders, and which one a later view meets is told by each operator in its own way.
    if "channels_last" in order and (size.count(",") != 3 or ", 1," in size):
        order = ""
    inputs = [Input("x", "torch.Tensor", f"torch.randn({size}){order}")]
    extra = b.choose("none", "none", "none", "none", "second", "ids", "gate", "steps")
    if extra == "second":
        inputs.append(Input("y", "torch.Tensor", f"torch.randn({b.choose(size, 'batch, 4, 1, 1', 'batch, 4')})"))
    elif extra == "ids":
        inputs.append(Input("ids", "torch.Tensor", "torch.randint(10, (batch, 5))"))
    elif extra == "gate":
        inputs.append(Input("gate", "bool", b.choose("False", "True")))
    elif extra == "steps":
        inputs.append(Input("steps", "int", b.choose("2", "0", "1", "3")))
    return tuple(inputs)


def _enter(b: Builder, inputs: tuple[Input, ...]) -> None:
    """Makes the arguments of a method known to its lines."""
    for one, value in zip(inputs, made(inputs, b.namespace, batch=2, side=6)):
        b.namespace[one.name] = value
    b.values += [one.name for one in inputs if one.is_tensor and one.name != "ids"]
    b.arguments = tuple(one.name for one in inputs)


@st.composite
def _step(draw, b: Builder) -> bool:
    """One more step, or none. What a strategy draws is left out as a whole when an example shrinks."""
    if draw(st.integers(0, MEAN_STEPS)) == MEAN_STEPS:
        return False
    try:
        with b.attempt():
            b.choose(*(_NARROW_STEPS if b.narrow else _STEPS))(b)
    except Unfit:
        pass
    return True


def _grow(b: Builder, most: int) -> None:
    while most and b.draw(_step(b)):
        most -= 1


def _output(b: Builder, tuples: list[str]) -> str:
    """What is returned: a value that nothing else read, others beside it, in a structure or alone."""
    text = "\n".join(b.lines)
    unread = [name for name in b.values if text.count(name) <= 1]
    last = b.values[-1]
    others = [name for name in unread if name != last][-2:] if b.chance(4) else []
    if b.chance(1):
        others.append(b.value())
    kind = b.choose("tuple", "list", "dict", "named", "nested") if others else b.choose("alone", "alone", "alone", "tuple", "dict")
    values = list(dict.fromkeys([last, *others])) if not b.chance(1) else [last, last]
    if kind == "alone":
        return last
    if kind == "dict":
        return "{" + ", ".join(f'"{name}": {name}' for name in dict.fromkeys(values)) + "}"
    if kind == "list":
        return f"[{', '.join(values)}]"
    if kind == "named":
        name = b.names.new("Outputs")
        fields = "\n".join(f"    field{i}: torch.Tensor" for i in range(len(values)))
        tuples.append(f"class {name}(NamedTuple):\n{fields}\n")
        return f"{name}({', '.join(values)})"
    if kind == "nested":
        return f"(({', '.join(values)},), {last})"
    return f"({', '.join(values)},)"


def _method(b: Builder, name: str, inputs: tuple[Input, ...], tuples: list[str], most: int) -> None:
    with b.method([]) as lines:
        _enter(b, inputs)
        _grow(b, most)
        lines.append(f"return {_output(b, tuples)}")
    b.methods.append(Method(name, signature(inputs), tuple(lines), exported=name != "forward"))


def _exported_name(b: Builder) -> str:
    """A new name, or one that the fold would give to what it adds to a layer of the module."""
    weights = [f"{name}_bias" for name in b.module._parameters]
    norms = [f"{name}_lower_bound" for name, layer in b.module.named_children() if "BatchNorm" in type(layer).__name__]
    taken = {method.name for method in b.methods}
    others = [name for name in ("bias", "weight", *weights[:2], *norms[:2]) if name not in taken]
    return b.choose(b.names.new("other"), *others)


@st.composite
def programs(draw, subject: Callable[[Builder], None] = layers.conv, most_steps: int = 16) -> Program:
    classes: list[Class] = []
    tuples: list[str] = []
    b = Builder(draw, Names(), classes, subject)
    b.narrow = b.choose(*[""] * 14, "float16", "bfloat16")
    inputs = _inputs(b)
    _method(b, "forward", inputs, tuples, most_steps)
    for _ in range(b.choose(0, 0, 0, 0, 0, 0, 1, 2)):
        b.callables = [path for path in b.callables if not path.startswith("self.method")]
        _method(b, _exported_name(b), inputs, tuples, 5)
    return Program(tuple(tuples), (*classes, b.finished("Model")), inputs, b.rounds_to_float, b.leaves_out_the_batch, b.cancels, b.narrow)


@st.composite
def runs(draw, program: Program, exported: bool = False) -> Run:
    def choose(*options):
        return draw(st.sampled_from(options))

    if exported:
        return Run(
            seed=choose(*range(100)), spelling="exported", hints=choose("none", "none", "none" if program.rounds_to_float else "inputs"),
            dtype=program.narrow or "float64", rounds=program.rounds_to_float, cancels=program.cancels, dynamic=choose(True, True, False),
            decomposed=choose(False, False, True),
        )  # fmt: skip

    hints = ["none", "inputs", "ranks"]
    if program.rounds_to_float:
        hints.remove("inputs")  # with which the fold itself compares the outputs, and knows nothing of casts
    if program.leaves_out_the_batch:
        hints = ["none"]  # where these prove no rank, a convolution is taken for one with a batch
    scripted = program.needs_scripting or choose(True, False)
    return Run(
        seed=choose(*range(100)),
        spelling="scripted" if scripted else "traced",
        # torch.jit.freeze makes constants of statistics that a run changes, and so a run would change the graph.
        frozen=not program.trains and choose(*[False] * 7, True, True, True),
        hints=choose(*hints),
        dtype=_dtype(program, choose),
        rounds=program.rounds_to_float,
        cancels=program.cancels,
        shares_inputs=choose(*[False] * 4, True),
    )


def _dtype(program: Program, choose: Callable[..., str]) -> str:
    if program.narrow:
        return program.narrow
    if "running_mean.add_(1e4)" in program.source():  # a mean of ten thousand deviations leaves few digits of a float
        return "float64"
    return choose(*["float64"] * 2, *["float32"] * 8) if program.cancels else choose(*["float64"] * 9, "float32")
