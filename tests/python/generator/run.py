"""How a program is run: its spelling in TorchScript, the weights it gets, and what is told to the fold."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from types import ModuleType
from typing import Any

import torch
import zoo
from calibrate import calibrate
from torch import nn

from .program import load, unload


@dataclasses.dataclass(frozen=True)
class Run:
    seed: int = 0  #: of weights and inputs
    spelling: str = "scripted"  #: or "traced", or "exported" by torch.export
    frozen: bool = False  #: torch.jit.freeze before the fold
    hints: str = "none"  #: "inputs" or "ranks" tell the fold the ranks of the inputs
    dtype: str = "float64"  #: or "float32"; "float16" and "bfloat16" are those of parts of a module in float
    rounds: bool = False  #: the module casts to float on its way, so that two equal ones differ by as much
    cancels: bool = False  #: the module adds numbers beside which values are small
    shares_inputs: bool = False  #: inputs of the same sizes are one tensor
    dynamic: bool = False  #: torch.export leaves each size open that it can
    decomposed: bool = False  #: to core ATen

    @property
    def is_exported(self) -> bool:
        return self.spelling == "exported"

    @property
    def is_narrow(self) -> bool:
        return self.dtype in ("float16", "bfloat16")


class Unsuitable(Exception):
    """The program does not run, or torch itself disagrees about what it computes."""


class Prepared:
    """A model with weights: in eager, and as the ScriptModule or program that is to be folded; and inputs for it."""

    def __init__(self, source: str, run: Run):
        self.run = run
        self.source: ModuleType = load(source)
        self.dtype = torch.float32 if run.is_narrow else getattr(torch, run.dtype)
        self._inputs: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        try:
            self.model = self._model()
            self.module, self.program = (None, self._program()) if run.is_exported else (self._script_module(), None)
        finally:
            unload(self.source)

    def inputs(self, batch: int = 2, side: int = 6, dtype: torch.dtype | None = None) -> tuple[Any, ...]:
        """New ones, since a module may write into them."""
        key = (batch, side, dtype or self.dtype)
        if key not in self._inputs:
            torch.manual_seed(self.run.seed + batch + side)
            inputs = [cast(value, key[2]) for value in self.source.inputs(batch, side)]
            self._inputs[key] = tuple(_shared(inputs) if self.run.shares_inputs else inputs)
        return copy.deepcopy(self._inputs[key])

    def _model(self) -> nn.Module:
        torch.manual_seed(self.run.seed)
        dtype = self.dtype if self.run.is_narrow else torch.float64
        try:
            model = self.source.Model().eval()
            if not self.run.is_narrow:
                model = model.double()
            calibrate(model, self.inputs(dtype=dtype), self.run.seed)
            if hasattr(model, "set_statistics"):
                model.set_statistics()
            copy.deepcopy(model)(*self.inputs(dtype=dtype))
        except Exception as error:
            raise Unsuitable(f"eager: {error}") from error
        return model if self.run.is_narrow else model.to(self.dtype)

    def _script_module(self) -> torch.jit.ScriptModule:
        try:
            module = zoo.to_torchscript(copy.deepcopy(self.model), self.inputs(), self.run.spelling)
            if self.run.frozen:
                preserved = [name for name in self.methods if name != "forward"]
                module = torch.jit.freeze(module, preserved, optimize_numerics=self.run.seed % 2 == 0)
        except Exception as error:
            raise Unsuitable(f"{self.run.spelling}: {error}") from error
        return module

    def _program(self) -> torch.export.ExportedProgram:
        inputs = self.inputs()
        sizes = tuple([torch.export.Dim.AUTO] * value.dim() if isinstance(value, torch.Tensor) else None for value in inputs)
        try:
            program = quietly(torch.export.export, copy.deepcopy(self.model), inputs, dynamic_shapes=sizes if self.run.dynamic else None)
            return quietly(program.run_decompositions) if self.run.decomposed else program
        except Exception as error:
            raise Unsuitable(f"export: {error}") from error

    @property
    def methods(self) -> tuple[str, ...]:
        """Forward and what is exported, which a trace scripts."""
        return ("forward", *(name for name, member in vars(self.source.Model).items() if hasattr(member, "_torchscript_modifier")))

    @property
    def options(self) -> dict[str, Any]:
        """What the fold is told."""
        if self.run.hints == "inputs":
            return {"example_inputs": self.inputs()}
        return self.ranks if self.run.hints == "ranks" else {}

    @property
    def ranks(self) -> dict[str, Any]:
        return {"input_ranks": [value.dim() if isinstance(value, torch.Tensor) else None for value in self.inputs()]}


def _shared(inputs: list[Any]) -> list[Any]:
    """The first of those of one size and dtype in the place of each."""
    first: dict[Any, Any] = {}
    return [first.setdefault((value.shape, value.dtype), value) if isinstance(value, torch.Tensor) else value for value in inputs]


def cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def quietly(function: Any, *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)
