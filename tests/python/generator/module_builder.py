"""Grows a program line by line. Each line runs in eager as soon as it is written, so sizes are known and a program runs as a whole."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from types import MethodType
from typing import Any, Callable, Dict, List, Optional, TypeVar

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

from .program import Class, Method

T = TypeVar("T")

LARGEST_VALUE = 4096  # elements


class Unfit(Exception):
    """A step that does not fit the values that there are; what it wrote is taken back."""


@functools.lru_cache(maxsize=None)
def _below(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, count - 1)


class Names:
    """Names are numbered through the whole program, so that each is used once."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self, stem: str) -> str:
        return f"{stem}{next(self._numbers)}"


class Builder:
    """One class of the program, and the method of it that is being written."""

    def __init__(self, draw: Callable[[st.SearchStrategy[T]], T], names: Names, classes: list[Class], subject: Callable[[Builder], None]):
        self.draw = draw
        self.subject = subject  # the step that the program has more often than others
        self.names = names
        self.classes = classes
        self.module = nn.Module()
        self.layers: list[str] = []
        self.statistics: list[str] = []
        self.methods: list[Method] = []
        self.callables: list[str] = []  # what may be called again on another value
        self.lines: list[str] = []
        self.values: list[str] = []
        self.indent = ""
        self.newest_only = False
        self.arguments: tuple[str, ...] = ()  # those of forward that are no values, where they are seen
        self.rounds_to_float = False
        self.leaves_out_the_batch = False
        self.cancels = False
        self.narrow = ""  # the dtype of some parts, beside float
        self.namespace: dict[str, Any] = {
            "self": self.module, "torch": torch, "nn": nn, "F": F, "FrozenBatchNorm2d": FrozenBatchNorm2d,
            "Dict": Dict, "List": List, "Optional": Optional,
        }  # fmt: skip

    # ---- drawing

    def choose(self, *options: T) -> T:
        """One of the options; examples shrink towards the first."""
        return options[self.draw(_below(len(options)))]

    def chance(self, tenths: int) -> bool:
        return self.choose(*[False] * (10 - tenths), *[True] * tenths)

    def size(self, value: str) -> tuple[int, ...]:
        return tuple(self.namespace[value].shape)

    def rank(self, value: str) -> int:
        return len(self.size(value))

    def value(self, *ranks: int) -> str:
        """A value, mostly one of the newest, so that chains grow."""
        fitting = [name for name in reversed(self.values) if not ranks or self.rank(name) in ranks]
        if not fitting:
            raise Unfit
        return fitting[0] if self.newest_only else fitting[self.choose(*[0] * 12, 1, 1, 2, 3, 4, 5) % len(fitting)]

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Each step reads what the one before made."""
        outer, self.newest_only = self.newest_only, True
        try:
            yield
        finally:
            self.newest_only = outer

    def spatial(self, value: str) -> int:
        """How many dimensions of the value are space, batch and channels counted in front, rarely no batch."""
        unbatched = self.choose(*[False] * 15, True)
        dimensions = self.rank(value) - (1 if unbatched else 2)
        if not 1 <= dimensions <= 3:
            raise Unfit
        self.leaves_out_the_batch |= unbatched
        return dimensions

    def channels(self, value: str, dimensions: int) -> int:
        return self.size(value)[-dimensions - 1]

    # ---- writing

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """What is written inside stays only where all of it fits; Unfit is raised again."""
        held = (self.layers, self.statistics, self.methods, self.callables, self.lines, self.values, self.classes)
        sizes, indent = [len(one) for one in held], self.indent
        try:
            yield
        except Unfit:
            for one, size in zip(held, sizes):
                del one[size:]
            self.indent = indent
            raise

    def _run(self, statement: str) -> None:
        try:
            with torch.no_grad():
                exec(statement, self.namespace)
        except Exception as error:  # whatever torch refuses
            raise Unfit(str(error)) from error

    def init(self, statement: str) -> None:
        """A statement of __init__."""
        self._run(statement)
        self.layers.append(statement)

    def layer(self, stem: str, constructor: str) -> str:
        path = f"self.{self.names.new(stem)}"
        self.init(f"{path} = {constructor}")
        return path

    def parameter(self, *size: int) -> str:
        return self.layer("weight", f"nn.Parameter(torch.randn{size})")

    def buffer(self, text: str) -> str:
        name = self.names.new("buffer")
        self.init(f'self.register_buffer("{name}", {text})')
        return f"self.{name}"

    def write(self, statement: str) -> None:
        """A statement that makes no value."""
        self._run(statement)
        self.lines.append(self.indent + statement)

    def write_aside(self, statement: str) -> None:
        """Makes a name known that the program gets in another way, as an argument."""
        self._run(statement)

    def head(self, line: str) -> None:
        """A line that is not run by itself, as the head of a loop."""
        self.lines.append(self.indent + line)

    @contextlib.contextmanager
    def block(self, head: str) -> Iterator[None]:
        """A branch or the body of a loop: what it makes is not seen behind it."""
        self.head(head)
        self.indent += "    "
        outer = len(self.values)
        yield
        del self.values[outer:]
        self.indent = self.indent[4:]

    def let(self, expression: str, *, see: bool = True) -> str:
        """``v3 = expression``, a tensor."""
        return self.unpack(expression, 1, see=see)[0]

    def unpack(self, expression: str, count: int, *, see: bool = True) -> list[str]:
        """``v3, v4 = expression``."""
        targets = [self.names.new("v") for _ in range(count)]
        self.write(f"{', '.join(targets)} = {expression}")
        for target in targets:
            made = self.namespace[target]
            if not isinstance(made, torch.Tensor) or not made.is_floating_point() or not 0 < made.numel() <= LARGEST_VALUE or made.dim() > 6:
                raise Unfit
        if see:
            self.values += targets
        return targets

    def call(self, path: str, value: str) -> str:
        """A layer that may be called again."""
        result = self.let(f"{path}({value})")
        self.callables.append(path)
        return result

    # ---- methods and classes

    @contextlib.contextmanager
    def method(self, arguments: Sequence[str]) -> Iterator[list[str]]:
        """The body of another method of this class, which sees its arguments only; gives its lines."""
        outer = (self.lines, self.values, self.indent, self.arguments)
        self.lines, self.values, self.indent, self.arguments = [], list(arguments), "", ()
        try:
            yield self.lines
        finally:
            self.lines, self.values, self.indent, self.arguments = outer

    def define(self, method: Method) -> None:
        """Makes a method callable by the lines that follow."""
        self.methods.append(method)
        text = "\n".join([f"def {method.name}({method.signature}):", *(f"    {line}" for line in method.lines)])
        self._run(text)
        setattr(self.module, method.name, MethodType(self.namespace[method.name], self.module))

    @contextlib.contextmanager
    def part(self) -> Iterator[Builder]:
        """A builder for the class of a submodule."""
        inner = Builder(self.draw, self.names, self.classes, self.subject)
        inner.namespace = {**self.namespace, "self": inner.module}
        yield inner
        self.rounds_to_float |= inner.rounds_to_float
        self.leaves_out_the_batch |= inner.leaves_out_the_batch
        self.cancels |= inner.cancels

    def add_class(self, made: Class) -> None:
        self._run(made.source())
        self.classes.append(made)

    def finished(self, name: str) -> Class:
        return Class(name, tuple(self.layers), tuple(self.statistics), tuple(self.methods))
