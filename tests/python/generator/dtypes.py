"""Steps of values in half or bfloat16 beside those in float, as far as eager takes both on the CPU."""

from __future__ import annotations

from .layers import spread
from .module_builder import Builder


def narrowed(b: Builder, text: str) -> str:
    """A tensor or a layer in the narrow dtype of the program."""
    return f"{text}.to(torch.{b.narrow})"


def _constant(b: Builder, sizes: str) -> str:
    constant = f"torch.rand({sizes}) + 0.5"
    return b.buffer(narrowed(b, f"({constant})") if b.chance(5) else constant)


def layer(b: Builder) -> None:
    """A narrow layer between wide ones, with what may stand behind it: a wide norm, wide constants, or a wide value."""
    x = b.value(2, 3, 4, 5)
    rank, channels, features = b.rank(x), b.size(x)[1], b.size(x)[-1]
    if rank == 2:
        made = f"nn.Linear({features}, {b.choose(features, 4)})"
    else:
        made = f"nn.Conv{rank - 2}d({channels}, {channels}, {b.choose('1', '3, padding=1')})"
    y = b.let(f"{b.layer('conv', narrowed(b, made))}({narrowed(b, x)})")
    behind = b.choose("norm", "norm", "constants", "sum", "cast", "nothing")
    if behind == "norm":
        b.call(b.layer("norm", f"nn.BatchNorm{max(rank - 2, 1)}d({b.size(y)[1]})"), b.let(f"F.relu({y})") if b.chance(3) else y)
    elif behind == "constants":
        b.values.append(y)
        constants(b)
    elif behind == "sum":
        b.let(b.choose(f"{y} + {x}", f"{x} + {y}", f"{x}.add({y})"))
    elif behind == "cast":
        b.let(f"{y}.float()")


def constants(b: Builder) -> None:
    """A scale and a shift, each in a dtype of its own."""
    x = b.value(2, 3, 4, 5)
    sizes = spread(1, b.size(x)[1], *[1] * (b.rank(x) - 2))
    scale = _constant(b, sizes)
    b.let(f"{x} * {scale}" + (f" + {_constant(b, sizes)}" if b.chance(6) else ""))


def cast(b: Builder) -> None:
    x = b.value()
    b.let(b.choose(f"{x}.float()", narrowed(b, x)))
