"""What is in a network, and what it runs, before and after folding."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from .settings import Settings, require_evaluated, threads, without_deprecation_warnings
from .variants import TORCHSCRIPT, WARM_UP_RUNS, Run, Subject, for_each, prepared

# The profiler's library logs each start and stop to standard error, and that it found no GPU.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")

PROFILED_RUNS = 3


@dataclasses.dataclass
class Contents:
    """What one TorchScript variant consists of. Without figures, ``unavailable`` says why."""

    variant: str
    parameters: int | None = None  #: elements of parameters; of a frozen module, of the tensors in its graph
    tensor_bytes: int | None = None  #: of parameters and buffers; of a frozen module, of the tensors in its graph
    graph_nodes: int | None = None  #: of the inlined forward, constants and attribute reads left out
    operators_run: int | None = None  #: ATen calls of one run that no other operator made
    batch_norms_run: int | None = None
    kernels_launched: int | None = None  #: of one run, on CUDA only
    unavailable: str | None = None


def contents(model: torch.nn.Module, image_size: tuple[int, ...], device: str = "cpu") -> list[Contents]:
    """Counts what is in each TorchScript variant of ``model``, and what it runs for one image in float.

    ``model`` and ``image_size`` are those of :func:`latency`. Kernels are counted on the device "cuda" only; everything else on the
    CPU, since a fuser on CUDA runs norms within its own kernels. Raises ValueError where the model trains or is frozen.
    """
    require_evaluated(model)
    rows = [Contents(variant) for variant in TORCHSCRIPT]
    # Counts are the same with one thread, which waits for no other one on a busy machine.
    with threads(1), without_deprecation_warnings(), torch.inference_mode():
        subject = Subject.create(model, image_size, Settings())
        for_each(rows, functools.partial(_count, subject))
        if device == "cuda" and torch.cuda.is_available():
            on_cuda = Subject.create(model, image_size, Settings(device="cuda"))
            for_each(rows, functools.partial(_count_kernels, on_cuda))
    return rows


def norm_share(model: torch.nn.Module, image_size: tuple[int, ...], settings: Settings) -> float | None:
    """The share of the operators' time that batch norms take in ``model``, from 0 to 1; None where the settings' device is missing.

    On CUDA it is the time of the kernels. The model runs without TorchScript's optimizations, which may fuse a norm with others.
    """
    require_evaluated(model)
    if settings.device == "cuda" and not torch.cuda.is_available():
        return None
    with threads(settings.threads), without_deprecation_warnings(), torch.inference_mode(), torch.jit.optimized_execution(False):
        subject = Subject.create(model, image_size, settings)
        operators = _operators(_events(functools.partial(subject.model, subject.image), settings.device, PROFILED_RUNS))
    clock = "device_time_total" if settings.device == "cuda" else "cpu_time_total"
    total = sum(getattr(event, clock) for event in operators)
    return sum(getattr(event, clock) for event in operators if _is_batch_norm(event)) / total


def _count(subject: Subject, row: Contents) -> None:
    module = TORCHSCRIPT[row.variant](subject.scripted)
    constants = list(_constant_tensors(module.inlined_graph)) if _is_frozen(module) else []
    parameters = constants or list(module.parameters())
    row.parameters = sum(value.numel() for value in parameters)
    row.tensor_bytes = sum(value.numel() * value.element_size() for value in constants or [*parameters, *module.buffers()])
    row.graph_nodes = sum(node.kind() not in LEFT_OUT for node in _nodes(module.inlined_graph))
    operators = _operators(_events(functools.partial(module, subject.image), "cpu"))
    row.operators_run = len(operators)
    row.batch_norms_run = sum(_is_batch_norm(event) for event in operators)


def _count_kernels(subject: Subject, row: Contents) -> None:
    events = _events(prepared(subject, row.variant), "cuda")
    row.kernels_launched = sum(event.device_type == DeviceType.CUDA and not event.name.startswith(COPIES) for event in events)


CONSTANTS = ("prim::Constant", "prim::ConstantMKLDNNTensor")
COPIES = ("Memcpy", "Memset")
LEFT_OUT = (*CONSTANTS, "prim::GetAttr")


def _is_frozen(module: torch.jit.ScriptModule) -> bool:
    return not hasattr(module, "training")


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _constant_tensors(graph: Any) -> Iterator[torch.Tensor]:
    for node in _nodes(graph):
        if node.kind() in CONSTANTS and isinstance(node.output().type(), torch._C.TensorType):
            yield node.t("value")


def _events(run: Run, device: str, runs: int = 1) -> list[Any]:
    """What the profiler saw of ``runs`` runs, after a warm-up."""
    for _ in range(WARM_UP_RUNS):
        run()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profile(activities=activities, acc_events=True) as profiler:
        for _ in range(runs):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
    return list(profiler.events())


def _operators(events: Iterable[Any]) -> list[Any]:
    """The calls of operators that no other operator made."""

    def is_operator(event: Any) -> bool:
        return event.device_type == DeviceType.CPU and "::" in event.name

    def is_inner(event: Any) -> bool:
        return event.cpu_parent is not None and (is_operator(event.cpu_parent) or is_inner(event.cpu_parent))

    return [event for event in events if is_operator(event) and not is_inner(event)]


def _is_batch_norm(event: Any) -> bool:
    return event.name == "aten::batch_norm"
