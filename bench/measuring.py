"""Measures how long a network takes to run, before and after folding, and what is left in it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import functools
import importlib
import importlib.metadata
import math
import os
import platform
import random
import statistics
import textwrap
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils import _pytree as pytree

import bnfold

# The profiler's library logs each start and stop to standard error, and that it found no GPU.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")

WARM_UP_RUNS = 5  # TorchScript profiles in the first run and optimizes in the second
SHORTEST_MS = 1.0  # what is shorter is run several times between two readings of the clock
FEWEST_RUNS = 6  # with fewer, no order statistics enclose the median with 95 %
PROFILED_RUNS = 3

# Those of docs/checking.md, relative to the largest output.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}

# The numbers that ONNX gives to its element types, and the names that OpenVINO gives to them.
ONNX_TYPES = {torch.float64: 11, torch.float32: 1, torch.float16: 10, torch.bfloat16: 16}
OPENVINO_TYPES = {torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}

NO_CUDA = "no CUDA device"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a network is run. Raises ValueError for what can't be measured."""

    batch: int = 1
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    device: str = "cpu"  #: "cpu" or "cuda"
    runs: int = 30  #: timed ones of each variant
    threads: int | None = None  #: of an operator on the CPU; None leaves them as they are
    cuda_graphs: bool = False  #: captures the run in a CUDA graph and times its replay

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, not '{self.device}'")
        if self.dtype not in TOLERANCES:
            raise ValueError(f"dtype must be float64, float32, float16 or bfloat16, not {self.dtype}")
        if self.batch < 1 or (self.threads is not None and self.threads < 1):
            raise ValueError("batch and threads must be at least 1")
        if self.runs < FEWEST_RUNS:
            raise ValueError(f"runs must be at least {FEWEST_RUNS}: fewer have no 95 % interval of the median")
        if self.cuda_graphs and self.device != "cuda":
            raise ValueError("cuda_graphs needs the device cuda")

    def as_dict(self) -> dict[str, Any]:
        """Numbers, strings and None only, with the members of this class."""
        return {**dataclasses.asdict(self), "dtype": str(self.dtype).removeprefix("torch.")}


@dataclasses.dataclass
class Latency:
    """How long one variant takes for a batch. Without figures, ``unavailable`` says why."""

    variant: str
    settings: Settings
    median_ms: float | None = None
    low_ms: float | None = None  #: the 95 % confidence interval of the median
    high_ms: float | None = None
    ratio: float | None = None  #: median of the ratios to torch.jit.freeze in the same round
    ratio_low: float | None = None
    ratio_high: float | None = None
    warm_up_ms: list[float] = dataclasses.field(default_factory=list)  #: the first runs, in order; not in the median
    runs_ms: list[float] = dataclasses.field(default_factory=list)  #: the timed runs, one a round
    unavailable: str | None = None


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


class Unavailable(Exception):
    """Why a variant can't be measured, as a sentence for its row."""


# ---- statistics


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """The median of independent samples, and the lower and upper end of a confidence interval of the true median.

    The ends are the samples of ranks l and n + 1 - l, for the largest l that covers the median with at least ``confidence``. As the
    number of samples below the median is binomial with p = 1/2, whatever the distribution, the coverage is 1 - 2 P(B <= l - 1).
    Source: David and Nagaraja, Order Statistics, 3rd edition (2003), section 7.1.

    Raises ValueError where there are too few samples for that, as 5 for 0.95.
    """
    count = len(samples)
    rank, missed = 0, 0.0
    while rank < count and 2 * (missed + math.comb(count, rank) / 2**count) <= 1 - confidence:
        missed += math.comb(count, rank) / 2**count
        rank += 1
    if rank == 0:
        raise ValueError(f"{count} samples have no {confidence:.0%} interval of the median")
    ordered = sorted(samples)
    return statistics.median(ordered), ordered[rank - 1], ordered[count - rank]


def ratio_interval(runs: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Median and 95 % interval of ``runs`` over ``base``, paired by rounds: what slows down a round slows down both."""
    return median_interval([one / other for one, other in zip(runs, base, strict=True)])


# ---- the variants


@dataclasses.dataclass
class _Subject:
    """A network as the settings want it, with the images that it runs on."""

    model: torch.nn.Module
    image: torch.Tensor
    settings: Settings

    @classmethod
    def create(cls, model: torch.nn.Module, image_size: tuple[int, int, int], settings: Settings) -> _Subject:
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        images = torch.randn(settings.batch, *image_size, generator=torch.Generator().manual_seed(0))
        placed = copy.deepcopy(model).to(settings.device, settings.dtype, memory_format=layout)
        return cls(placed, images.to(settings.device, settings.dtype, memory_format=layout), settings)

    @functools.cached_property
    def scripted(self) -> torch.jit.ScriptModule:
        return self.model if isinstance(self.model, torch.jit.ScriptModule) else torch.jit.script(self.model)

    @functools.cached_property
    def outputs(self) -> list[torch.Tensor]:
        """What every variant has to return."""
        outputs = _tensors_of(self.model(self.image))
        if not all(value.isfinite().all() for value in outputs):
            raise Unavailable(f"the network's own output is not finite in {self.settings.as_dict()['dtype']}")
        return outputs


Run = Callable[[], Any]

TORCHSCRIPT: dict[str, Callable[[torch.jit.ScriptModule], torch.jit.ScriptModule]] = {
    "original": lambda scripted: scripted,
    "torch.jit.freeze": torch.jit.freeze,
    "torch.jit.optimize_for_inference": torch.jit.optimize_for_inference,
    "bnfold.fold": lambda scripted: bnfold.fold(scripted).module,
    "bnfold.freeze": bnfold.freeze,
}


def _torch_compile(subject: _Subject) -> Run:
    _require_python_module(subject)
    # What earlier networks compiled counts towards the limit behind which torch.compile silently runs eager.
    torch.compiler.reset()
    compiled = torch.compile(subject.model)
    return lambda: compiled(subject.image)


def _onnx_runtime(subject: _Subject) -> Run:
    """A session that reads and writes the memory of torch's tensors, so that no copies are timed."""
    runtime, _, _ = (_imported(name) for name in ("onnxruntime", "onnx", "onnxscript"))
    _require_python_module(subject)
    _require_contiguous(subject)
    provider = "CUDAExecutionProvider" if subject.image.is_cuda else "CPUExecutionProvider"
    if provider not in runtime.get_available_providers():
        raise Unavailable("this onnxruntime has no CUDA provider: install onnxruntime-gpu in its place")
    if subject.settings.cuda_graphs:
        raise Unavailable("ONNX Runtime runs on a stream of its own, which a CUDA graph can't capture")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Else its threads spin for a while after a run, and slow down the variant behind it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    model = torch.onnx.export(subject.model, (subject.image,), dynamo=True, verbose=False).model_proto
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=[provider])
    outputs = [torch.empty_like(value) for value in subject.outputs]
    binding = session.io_binding()
    device, dtype = subject.settings.device, ONNX_TYPES[subject.settings.dtype]
    binding.bind_input(session.get_inputs()[0].name, device, 0, dtype, list(subject.image.shape), subject.image.data_ptr())
    for description, value in zip(session.get_outputs(), outputs, strict=True):
        binding.bind_output(description.name, device, 0, dtype, list(value.shape), value.data_ptr())

    def run() -> list[torch.Tensor]:
        session.run_with_iobinding(binding)
        return outputs

    return run


def _openvino(subject: _Subject) -> Run:
    """A request that reads and writes the memory of torch's tensors, in the precision of the settings."""
    openvino = _imported("openvino")
    _require_contiguous(subject)
    if subject.image.is_cuda:
        raise Unavailable("OpenVINO does not run on CUDA")
    precision = OPENVINO_TYPES[subject.settings.dtype]
    threads = torch.get_num_threads()
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    model = openvino.convert_model(subject.model, example_input=subject.image)
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    outputs = [torch.empty_like(value) for value in subject.outputs]

    def shared(value: torch.Tensor) -> Any:
        # NumPy has no bfloat16, so OpenVINO gets the bytes.
        return openvino.Tensor(value.view(torch.uint8).numpy(), list(value.shape), getattr(openvino.Type, precision))

    request.set_input_tensor(shared(subject.image))
    for index, value in enumerate(outputs):
        request.set_output_tensor(index, shared(value))

    def run() -> list[torch.Tensor]:
        request.infer()
        return outputs

    return run


RUNTIMES = {"torch.compile": _torch_compile, "ONNX Runtime": _onnx_runtime, "OpenVINO": _openvino}
VARIANTS = (*TORCHSCRIPT, *RUNTIMES)


def _imported(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise Unavailable(f"{name} is not installed: pip install -r bench/requirements.txt") from None


def _require_python_module(subject: _Subject) -> None:
    if isinstance(subject.model, torch.jit.ScriptModule):
        raise Unavailable("needs the nn.Module, and this is TorchScript")


def _require_contiguous(subject: _Subject) -> None:
    if subject.settings.channels_last:
        raise Unavailable("takes contiguous images only; see that setting")


def _prepared(subject: _Subject, variant: str) -> Run:
    if variant in RUNTIMES:
        run = RUNTIMES[variant](subject)
    else:
        module = TORCHSCRIPT[variant](subject.scripted)
        run = functools.partial(module, subject.image)
    return _captured(run) if subject.settings.cuda_graphs else run


def _captured(run: Run) -> Run:
    """The replay of a CUDA graph of ``run``, which is warmed up on a side stream first, as torch.cuda.graphs asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_RUNS):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run()

    def replay() -> Any:
        graph.replay()
        return output

    return replay


# ---- latency


def latency(
    model: torch.nn.Module, image_size: tuple[int, int, int], settings: Settings, variants: Sequence[str] = VARIANTS
) -> list[Latency]:
    """Times ``variants`` of ``model`` on the same batch of random images, one :class:`Latency` for each, in their order.

    ``model``: an nn.Module in eval mode, or a ScriptModule that is not frozen; it stays as it was. ``image_size``: channels, height
    and width; the model gets [batch, channels, height, width].

    After a warm-up each variant runs once in each round, in random order, so that what slows the machine down slows down all of
    them. An untimed run goes before each timed one: it finds the caches as in a program that runs nothing else. A variant that
    fails, or whose output is not that of ``model`` within the tolerance of the dtype, has no figures.

    Raises ValueError for an unknown variant, and where the model trains or is frozen.
    """
    require_evaluated(model)
    if unknown := [variant for variant in variants if variant not in VARIANTS]:
        raise ValueError(f"there is no variant '{unknown[0]}'; the variants are {', '.join(VARIANTS)}")
    rows = [Latency(variant, settings) for variant in variants]
    if settings.device == "cuda" and not torch.cuda.is_available():
        return [dataclasses.replace(row, unavailable=NO_CUDA) for row in rows]
    with _threads(settings.threads), _without_deprecation_warnings(), torch.inference_mode():
        subject = _Subject.create(model, image_size, settings)
        runs: dict[str, Run] = {}

        def warm_up(row: Latency) -> None:
            run = runs[row.variant] = _prepared(subject, row.variant)
            row.warm_up_ms = [_milliseconds(run, 1, settings.device) for _ in range(WARM_UP_RUNS)]
            _require_agreement(subject, _tensors_of(run()))

        _for_each(rows, warm_up)
        available = [row for row in rows if row.unavailable is None]
        _run_rounds(available, runs, settings)
    _summarise(available)
    return rows


def _for_each(rows: Iterable[Any], measure: Callable[[Any], None]) -> None:
    """Measures each row that is available; one that fails says why."""
    for row in rows:
        if row.unavailable is None:
            try:
                measure(row)
            except Exception as error:  # each runtime raises its own
                row.unavailable = _sentence(error)


def _run_rounds(rows: list[Latency], runs: dict[str, Run], settings: Settings) -> None:
    repeats = {row.variant: math.ceil(SHORTEST_MS / min(row.warm_up_ms)) for row in rows}
    order, generator = list(rows), random.Random(0)
    for _ in range(settings.runs):
        generator.shuffle(order)
        for row in order:
            runs[row.variant]()
            row.runs_ms.append(_milliseconds(runs[row.variant], repeats[row.variant], settings.device))


def _summarise(rows: list[Latency]) -> None:
    frozen = next((row for row in rows if row.variant == "torch.jit.freeze"), None)
    for row in rows:
        row.median_ms, row.low_ms, row.high_ms = median_interval(row.runs_ms)
        if frozen is not None:
            row.ratio, row.ratio_low, row.ratio_high = ratio_interval(row.runs_ms, frozen.runs_ms)


def _milliseconds(run: Run, repeats: int, device: str) -> float:
    """One of ``repeats`` runs, launches and the wait for the result included."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / repeats
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) * 1e3 / repeats


def _require_agreement(subject: _Subject, outputs: list[torch.Tensor]) -> None:
    if [value.shape for value in outputs] != [value.shape for value in subject.outputs]:
        raise Unavailable("its outputs have other shapes than those of the original")
    pairs = [(one.double(), other.double()) for one, other in zip(subject.outputs, outputs)]
    errors = [((one - other).abs().max() / one.abs().max()).item() for one, other in pairs if not torch.equal(one, other)]
    tolerance = _tolerance(subject.settings)
    if wrong := [error for error in errors if not error <= tolerance]:
        raise Unavailable(f"its output is off by {wrong[0]:.1e} of the largest value, where {tolerance:.0e} is the tolerance")


def _tolerance(settings: Settings) -> float:
    # In TF32, numbers have the mantissa of half.
    tf32 = settings.device == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    return TOLERANCES[torch.float16 if tf32 and settings.dtype == torch.float32 else settings.dtype]


def _tensors_of(output: Any) -> list[torch.Tensor]:
    return [value for value in pytree.tree_leaves(output) if isinstance(value, torch.Tensor)]


def require_evaluated(model: torch.nn.Module, name: str = "the model") -> None:
    """Raises ValueError, with ``name`` in its sentence, where a model can't be measured: it trains, or it is frozen already."""
    if not hasattr(model, "training"):
        raise ValueError(f"{name} is frozen; measure what was given to torch.jit.freeze")
    if model.training:
        raise ValueError(f"{name} is in training mode; call .eval() on it first")


def _sentence(error: Exception) -> str:
    """What to say of an error in one line of a table."""
    if isinstance(error, Unavailable):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # An error inside of TorchScript's interpreter is a traceback, and the last line is the error.
    line = lines[-1] if "TorchScript interpreter" in lines[0] else f"{type(error).__name__}: {lines[0]}"
    return textwrap.shorten(line, 160, placeholder=" ...")


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _without_deprecation_warnings() -> Iterator[None]:
    """TorchScript's end and the exporters' changes are no news here. What was frozen without folding must not pass for folded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("error", message="frozen without folding")
        yield


# ---- contents


def contents(model: torch.nn.Module, image_size: tuple[int, int, int], device: str = "cpu") -> list[Contents]:
    """Counts what is in each TorchScript variant of ``model``, and what it runs for one image in float.

    ``model`` and ``image_size`` are those of :func:`latency`. Kernels are counted on the device "cuda" only; everything else on the
    CPU, since a fuser on CUDA runs norms within its own kernels. Raises ValueError where the model trains or is frozen.
    """
    require_evaluated(model)
    rows = [Contents(variant) for variant in TORCHSCRIPT]
    # Counts are the same with one thread, which waits for no other one on a busy machine.
    with _threads(1), _without_deprecation_warnings(), torch.inference_mode():
        subject = _Subject.create(model, image_size, Settings())
        _for_each(rows, functools.partial(_count, subject))
        if device == "cuda" and torch.cuda.is_available():
            on_cuda = _Subject.create(model, image_size, Settings(device="cuda"))
            _for_each(rows, functools.partial(_count_kernels, on_cuda))
    return rows


def norm_share(model: torch.nn.Module, image_size: tuple[int, int, int], settings: Settings) -> float | None:
    """The share of the operators' time that batch norms take in ``model``, from 0 to 1; None where the settings' device is missing.

    On CUDA it is the time of the kernels. The model runs without TorchScript's optimizations, which may fuse a norm with others.
    """
    require_evaluated(model)
    if settings.device == "cuda" and not torch.cuda.is_available():
        return None
    with _threads(settings.threads), _without_deprecation_warnings(), torch.inference_mode(), torch.jit.optimized_execution(False):
        subject = _Subject.create(model, image_size, settings)
        operators = _operators(_events(functools.partial(subject.model, subject.image), settings.device, PROFILED_RUNS))
    clock = "device_time_total" if settings.device == "cuda" else "cpu_time_total"
    total = sum(getattr(event, clock) for event in operators)
    return sum(getattr(event, clock) for event in operators if _is_batch_norm(event)) / total


def _count(subject: _Subject, row: Contents) -> None:
    module = TORCHSCRIPT[row.variant](subject.scripted)
    constants = list(_constant_tensors(module.inlined_graph)) if _is_frozen(module) else []
    parameters = constants or list(module.parameters())
    row.parameters = sum(value.numel() for value in parameters)
    row.tensor_bytes = sum(value.numel() * value.element_size() for value in constants or [*parameters, *module.buffers()])
    row.graph_nodes = sum(node.kind() not in LEFT_OUT for node in _nodes(module.inlined_graph))
    operators = _operators(_events(functools.partial(module, subject.image), "cpu"))
    row.operators_run = len(operators)
    row.batch_norms_run = sum(_is_batch_norm(event) for event in operators)


def _count_kernels(subject: _Subject, row: Contents) -> None:
    events = _events(_prepared(subject, row.variant), "cuda")
    row.kernels_launched = sum(event.activity_type == "kernel" for event in events)


CONSTANTS = ("prim::Constant", "prim::ConstantMKLDNNTensor")
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
    with profile(activities=activities) as profiler:
        for _ in range(runs):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
    return list(profiler.events())


def _operators(events: Iterable[Any]) -> list[Any]:
    """The calls of operators that no other operator made."""

    def is_operator(event: Any) -> bool:
        return event.activity_type == "cpu_op" and "::" in event.name

    def is_inner(event: Any) -> bool:
        return event.cpu_parent is not None and (is_operator(event.cpu_parent) or is_inner(event.cpu_parent))

    return [event for event in events if is_operator(event) and not is_inner(event)]


def _is_batch_norm(event: Any) -> bool:
    return event.name == "aten::batch_norm"


# ---- where it was measured


def environment(settings: Settings) -> dict[str, Any]:
    """What the figures depend on beside the network, as strings, numbers, booleans and None."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    with _without_deprecation_warnings():
        return {
            "date": datetime.date.today().isoformat(),
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "threads": settings.threads or torch.get_num_threads(),
            "load_average": round(os.getloadavg()[0], 1),
            "gpu": gpu,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: _version(name) for name in ("torchvision", "timm", "onnxruntime", "openvino")},
            "cuda": torch.version.cuda if gpu else None,
            "cudnn": torch.backends.cudnn.version() if gpu else None,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        }


def _cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
