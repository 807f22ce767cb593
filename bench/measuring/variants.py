"""What may run in place of a network: TorchScript as it is, frozen or folded, and other runtimes."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import textwrap
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils import _pytree as pytree

import bnfold

from .settings import Settings

WARM_UP_RUNS = 5  # TorchScript profiles in the first run and optimizes in the second

# The numbers that ONNX gives to its element types, and the names that OpenVINO gives to them.
ONNX_TYPES = {torch.float64: 11, torch.float32: 1, torch.float16: 10, torch.bfloat16: 16}
OPENVINO_TYPES = {torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}

NO_CUDA = "no CUDA device"


class Unavailable(Exception):
    """Why a variant can't be measured, as a sentence for its row."""


@dataclasses.dataclass
class Subject:
    """A network as the settings want it, with the images that it runs on."""

    model: torch.nn.Module
    image: torch.Tensor
    settings: Settings

    @classmethod
    def create(cls, model: torch.nn.Module, image_size: tuple[int, ...], settings: Settings) -> Subject:
        channels_last = torch.channels_last if len(image_size) == 3 else torch.channels_last_3d
        layout = channels_last if settings.channels_last else torch.contiguous_format
        images = torch.randn(settings.batch, *image_size, generator=torch.Generator().manual_seed(0))
        placed = copy.deepcopy(model).to(settings.device, settings.dtype, memory_format=layout)
        return cls(placed, images.to(settings.device, settings.dtype, memory_format=layout), settings)

    @functools.cached_property
    def scripted(self) -> torch.jit.ScriptModule:
        return self.model if isinstance(self.model, torch.jit.ScriptModule) else torch.jit.script(self.model)

    @functools.cached_property
    def outputs(self) -> list[torch.Tensor]:
        """What every variant has to return."""
        outputs = tensors_of(self.model(self.image))
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


def _optimized(subject: Subject) -> Run:
    return functools.partial(bnfold.optimize_for_inference(subject.scripted, subject.image), subject.image)


def _optimized_onednn(subject: Subject) -> Run:
    if subject.image.is_cuda:
        raise Unavailable("its networks run on a CPU")
    try:
        optimized = bnfold.optimize_for_inference(subject.scripted, subject.image, runtime="onednn")
    except ImportError as error:
        raise Unavailable(str(error)) from None
    if not bnfold.fusions_of(optimized).in_networks:
        raise Unavailable(f"none of its layers is in a network in {subject.settings.as_dict()['dtype']}")
    return functools.partial(optimized, subject.image)


def _torch_compile(subject: Subject, **options: bool) -> Run:
    _require_python_module(subject)
    # What earlier networks compiled counts towards the limit behind which torch.compile silently runs eager.
    torch.compiler.reset()
    compiled = torch.compile(subject.model, options=options)
    return lambda: compiled(subject.image)


def _onnx_runtime(subject: Subject) -> Run:
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


def _openvino(subject: Subject) -> Run:
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


RUNTIMES: dict[str, Callable[[Subject], Run]] = {
    "bnfold.optimize_for_inference": _optimized,
    "bnfold.optimize_for_inference, onednn": _optimized_onednn,
    "torch.compile": _torch_compile,
    "torch.compile, freezing": functools.partial(_torch_compile, freezing=True),
    "torch.compile, max-autotune": functools.partial(_torch_compile, freezing=True, max_autotune=True),
    "ONNX Runtime": _onnx_runtime,
    "OpenVINO": _openvino,
}
VARIANTS = (*TORCHSCRIPT, *RUNTIMES)


def _imported(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise Unavailable(f"{name} is not installed: pip install -r bench/requirements.txt") from None


def _require_python_module(subject: Subject) -> None:
    if isinstance(subject.model, torch.jit.ScriptModule):
        raise Unavailable("needs the nn.Module, and this is TorchScript")


def _require_contiguous(subject: Subject) -> None:
    if subject.settings.channels_last:
        raise Unavailable("takes contiguous images only; see that setting")


def prepared(subject: Subject, variant: str) -> Run:
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


def tensors_of(output: Any) -> list[torch.Tensor]:
    return [value for value in pytree.tree_leaves(output) if isinstance(value, torch.Tensor)]


def for_each(rows: Iterable[Any], measure: Callable[[Any], None]) -> None:
    """Measures each row that is available; one that fails says why."""
    for row in rows:
        if row.unavailable is None:
            try:
                measure(row)
            except Exception as error:  # each runtime raises its own
                row.unavailable = sentence(error)


def sentence(error: Exception) -> str:
    """What to say of an error in one line of a table."""
    if isinstance(error, Unavailable):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # An error inside of TorchScript's interpreter is a traceback, and the last line is the error.
    line = lines[-1] if "TorchScript interpreter" in lines[0] else f"{type(error).__name__}: {lines[0]}"
    return textwrap.shorten(line, 160, placeholder=" ...")
