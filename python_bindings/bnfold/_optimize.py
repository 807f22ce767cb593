"""Fold, freeze, and fuse what stands behind each layer into it."""

from __future__ import annotations

import dataclasses
import json
import weakref
from collections import Counter
from typing import Any, Literal, Optional

import torch

from ._errors import Error, raised_as
from ._files import extra_files_of, remember_extra_files, wrapped
from ._fold import arguments_of
from ._freeze import remember
from ._library import load_onednn, ops
from ._modules import ModuleLike, raw, script_module_from
from ._report import Report


@dataclasses.dataclass(frozen=True)
class FusedLayer:
    """A layer that is computed in one step with what stood behind it."""

    name: str  #: dotted path of the layer, "layer1.0.conv3"
    steps: str  #: what the step computes, "conv2d, add, relu"


@dataclasses.dataclass(frozen=True)
class UnfusedStep:
    """A step that was not taken into the layer before it, or a layer that stayed as it was."""

    name: str  #: dotted path of the layer
    step: str  #: "add"; for the layer itself, "conv2d"
    obstacle: str  #: identifier of what stood in the way, "sizes_unknown"
    detail: str


@dataclasses.dataclass(frozen=True)
class Fusions:
    """``str(fusions)`` is a table for a terminal."""

    fused: tuple[FusedLayer, ...]
    unfused: tuple[UnfusedStep, ...]
    in_networks: tuple[str, ...] = ()  #: the layers that networks of oneDNN's primitives compute

    def __str__(self) -> str:
        counts = Counter(layer.steps for layer in self.fused)
        lines = [f"{len(self.in_networks):6}  in networks of oneDNN's primitives"] if self.in_networks else []
        lines += [f"{count:6}  {steps}" for steps, count in counts.most_common()]
        left: dict[tuple[str, str], list[UnfusedStep]] = {}
        for step in self.unfused:
            left.setdefault((step.step, step.obstacle), []).append(step)
        lines += [_left(steps) for steps in left.values()]
        return "\n".join(lines) if lines else "nothing fused"


def _left(alike: list[UnfusedStep]) -> str:
    """A line for steps of one kind with one obstacle, with the first of them as an example."""
    first = alike[0]
    steps = f"{first.step} of" if len(alike) == 1 else f"{len(alike)} {first.step}, such as"
    return f"  left  {steps} {first.name}: {first.obstacle}, {first.detail}"


_fusions: weakref.WeakKeyDictionary[torch.jit.ScriptModule, Fusions] = weakref.WeakKeyDictionary()


def optimize_for_inference(
    module: ModuleLike, example_inputs: Any = None, preserved_attrs: Optional[list[str]] = None, runtime: Literal["libtorch", "onednn"] = "libtorch"
) -> torch.jit.ScriptModule:
    """Folds, freezes, and fuses: the fastest module that LibTorch can run without compiling anything.

    On a CPU each convolution becomes one of oneDNN's steps in channels_last, with the sum and the activation behind it, its weight
    ordered for the kernel once. On a GPU LibTorch's own fusion for cuDNN is made.

    ``module`` and ``example_inputs`` are those of :func:`fold`. With example inputs the weights are ordered for their sizes,
    linear layers of many rows become steps, and the result is compared with ``module``. Other sizes run as well, and give the same as
    ``module``; an input of another rank may raise torch.jit.Error, which says so.

    ``preserved_attrs``: methods and attributes to keep beside ``forward``, as for ``torch.jit.freeze``. Methods are fused too.

    The result has only these, computes no gradients, and is saved, loaded and run with LibTorch alone: the file holds the weights in
    their ordinary order, and loading orders them again.

    ``runtime``: ``"onednn"`` makes networks of oneDNN's primitives of the convolutions that follow each other on a CPU, and of what is between them. What has
    such a network needs ``libbnfold_onednn.so`` where it runs, which :func:`bnfold.load` and ``runtime="onednn"`` itself load.

    :func:`report_of` gives the report of the folds, :func:`fusions_of` what was fused. Raises LoadError where the file can't be loaded,
    TypeError for arguments of another kind, ImportError for the runtime ``"onednn"`` where its library is not there, and Error where the module is in training mode, can't be scripted or frozen, can't run on
    the example inputs, or the result differs on them by more than rounding.
    """
    arguments = arguments_of(example_inputs)
    original = script_module_from(module)
    if runtime == "onednn":
        load_onednn()
    with raised_as(Error):
        raw_module, text = ops.optimize_for_inference(raw(original), arguments or (), list(preserved_attrs or []), runtime)
    optimized = wrapped(raw_module)
    remember_extra_files(optimized, extra_files_of(original))
    content = json.loads(text)
    fused = tuple(FusedLayer(**layer) for layer in content.pop("fused"))
    unfused = tuple(UnfusedStep(**step) for step in content.pop("unfused"))
    _fusions[optimized] = Fusions(fused, unfused, tuple(content.pop("in_networks")))
    remember(optimized, Report.from_json(json.dumps(content)))
    return optimized


def fusions_of(optimized: torch.jit.ScriptModule) -> Fusions:
    """What :func:`optimize_for_inference` fused in a module that it returned. Raises KeyError for another module."""
    if optimized not in _fusions:
        raise KeyError("bnfold.optimize_for_inference did not return this module")
    return _fusions[optimized]
