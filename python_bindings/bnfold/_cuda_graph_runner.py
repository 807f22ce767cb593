"""Runs a module on a GPU as one CUDA graph."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from ._errors import Error
from ._fold import arguments_of
from ._modules import require_script_module

# The executor profiles and compiles in its first runs.
_RUNS_BEFORE = 3


class CudaGraphRunner:
    """Runs ``forward`` as one CUDA graph, captured once for inputs of fixed sizes: one launch for all of its kernels, not one for each.

        >>> run = bnfold.CudaGraphRunner(bnfold.optimize_for_inference(model.cuda(), image), image)
        >>> scores = run(other_image)

    ``example_inputs`` is a tensor or a tuple of the arguments of forward, all tensors on one GPU. They are run a few times; buffers that
    the module writes are put back. The module is shared, not copied: what is written into its parameters later counts. For one thread at a
    time.

    Raises TypeError for arguments of another kind, and Error where the inputs are not on one GPU, where forward assigns an attribute, which a
    replay would not do, or where CUDA can't capture what it does, as reading a value back to decide a branch.
    """

    def __init__(self, module: torch.jit.ScriptModule, example_inputs: Any) -> None:
        require_script_module(module, "module")
        arguments = arguments_of(example_inputs) or ()
        _require_one_gpu(arguments)
        _require_no_assignment(module)
        self._inputs = tuple(argument.detach().clone() for argument in arguments)
        self._graph = torch.cuda.CUDAGraph()
        with torch.no_grad(), torch.cuda.device(self._inputs[0].device):
            saved = [(buffer, buffer.clone()) for buffer in module.buffers()]
            try:
                self._capture(module)
            finally:
                for buffer, value in saved:
                    buffer.copy_(value)

    def _capture(self, module: torch.jit.ScriptModule) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_RUNS_BEFORE):
                module(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        try:
            with torch.cuda.graph(self._graph):
                self._output = module(*self._inputs)
        except RuntimeError as error:
            raise Error(f"CUDA can't capture this module: {str(error).splitlines()[0]}") from error

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """What forward returns for inputs of the same sizes and dtypes, on any device, in new memory. Raises Error for others."""
        same = len(inputs) == len(self._inputs) and all(
            (one.shape, one.dtype) == (other.shape, other.dtype) for one, other in zip(inputs, self._inputs)
        )
        if not same:
            raise Error(f"the CUDA graph was captured for {_described(self._inputs)}, not for {_described(inputs)}")
        with torch.no_grad(), torch.cuda.device(self._inputs[0].device):
            for place, value in zip(self._inputs, inputs):
                place.copy_(value, non_blocking=True)
            self._graph.replay()
            return pytree.tree_map(lambda value: value.clone() if isinstance(value, torch.Tensor) else value, self._output)


def _require_one_gpu(inputs: tuple[Any, ...]) -> None:
    if not inputs:
        raise Error("there are no example inputs to capture a CUDA graph on")
    for value in inputs:
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"every example input must be a tensor; one is a {type(value).__name__}")
        if not value.is_cuda or value.device != inputs[0].device:
            raise Error(f"a CUDA graph is captured on inputs on one GPU, and one of these is on {value.device}")


def _require_no_assignment(module: torch.jit.ScriptModule) -> None:
    assignment = module.inlined_graph.findNode("prim::SetAttr", recurse=True)
    if assignment is not None:
        raise Error(f"forward assigns the attribute {assignment.s('name')}, which a CUDA graph does not repeat")


def _described(inputs: tuple[torch.Tensor, ...]) -> str:
    return ", ".join(f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" for value in inputs) or "no inputs"
