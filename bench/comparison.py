"""Shows, for each pattern of layers around a batch norm, what bnfold and other tools make of the norm, as a Markdown table.

    .venv/bin/pip install -r bench/requirements.txt
    .venv/bin/python bench/comparison.py
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import aotinductor
import measuring
import torch
from torch import nn

import bnfold

IMAGES = (2, 3, 8, 8)
FOLDED, FUSED, STEP = "folded", "fused", "a step"


def norm(channels: int, kind: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """A norm with random statistics and gammas of both signs."""
    module = kind(channels)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    module.running_mean.normal_()
    module.running_var.uniform_(0.5, 2)
    return module


class Flattened(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 4), norm(4, nn.BatchNorm1d)

    def forward(self, x):
        return self.norm(self.linear(x).flatten(0, 1)).tanh()


class Joined(nn.Module):
    def __init__(self, adds: bool):
        super().__init__()
        self.left, self.right, self.norm, self.adds = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), norm(4 if adds else 8), adds

    def forward(self, x):
        left, right = self.left(x), self.right(x)
        return self.norm(left + right if self.adds else torch.cat([left, right], 1)).tanh()


class Beside(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), norm(3)

    def forward(self, x):
        x = x.tanh()
        return (self.norm(x) + self.conv(x)).tanh()


class ReadTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.behind = nn.Conv2d(3, 4, 1), norm(4), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.conv(x)
        return self.behind(self.norm(y).relu()) + y


def sequence(*layers: nn.Module) -> nn.Module:
    """The layers between activations through which nothing folds."""
    return nn.Sequential(nn.Tanh(), *layers, nn.Tanh())


PATTERNS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolution, norm": (lambda: sequence(nn.Conv2d(3, 4, 3), norm(4)), IMAGES),
    "transposed convolution, norm": (lambda: sequence(nn.ConvTranspose2d(3, 4, 3), norm(4)), IMAGES),
    "linear, norm": (lambda: sequence(nn.Linear(6, 4), norm(4, nn.BatchNorm1d)), (2, 6)),
    "linear of [N, L, F], flatten, norm": (Flattened, (2, 5, 6)),
    "convolution, ReLU, norm, convolution": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.ReLU(), norm(4), nn.Conv2d(4, 4, 1)), IMAGES),
    "convolution, pooling, norm": (lambda: sequence(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), norm(4)), IMAGES),
    "convolutions, concatenation, norm": (lambda: Joined(adds=False), IMAGES),
    "convolutions, sum, norm": (lambda: Joined(adds=True), IMAGES),
    "norm, convolution": (lambda: sequence(norm(3), nn.Conv2d(3, 4, 3)), IMAGES),
    "norm, linear": (lambda: sequence(norm(6, nn.BatchNorm1d), nn.Linear(6, 4)), (2, 6)),
    "norm, ReLU, convolution": (lambda: sequence(norm(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), IMAGES),
    "norm beside a convolution": (Beside, IMAGES),
    "convolution, read by norm and sum": (ReadTwice, IMAGES),
    "norm, convolution with zero padding": (lambda: sequence(norm(3), nn.Conv2d(3, 4, 3, padding=1)), IMAGES),
}


def with_bnfold(model: nn.Module, example: torch.Tensor) -> str:
    return STEP if bnfold.fold(model, example_inputs=example).report.kept else FOLDED


def with_freeze(model: nn.Module, example: torch.Tensor) -> str:
    return STEP if "aten::batch_norm" in str(torch.jit.freeze(torch.jit.script(model)).graph) else FOLDED


def with_onnx_runtime(model: nn.Module, example: torch.Tensor) -> str:
    """At the level "extended". What is left there becomes a depthwise convolution at "all", where the layout allows that: a step still."""
    import onnx
    import onnxruntime

    exported = io.BytesIO()
    torch.onnx.export(model, (example,), exported, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(exported.getvalue(), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    return STEP if any(node.op_type == "BatchNormalization" for node in nodes) else FOLDED


class Counted(Exception):
    """Stops AOTInductor before it makes code."""


def with_aotinductor(model: nn.Module, example: torch.Tensor) -> str:
    """With its option freezing, without which it folds none."""
    norms: list[int] = []

    def count(graph: torch.fx.Graph) -> None:
        norms.append(aotinductor.norms_in(graph))
        raise Counted

    program = torch.export.export(model, (example,))
    with torch._inductor.config.patch(post_grad_custom_post_pass=count, freezing=True), torch.no_grad():
        try:
            torch._inductor.aoti_compile_and_package(program)
        except Exception:  # AOTInductor wraps what stops it
            if not norms:
                raise
    return STEP if norms[0] else FOLDED


def with_openvino(model: nn.Module, example: torch.Tensor) -> str:
    """OpenVINO names the layers that each kernel computes, but not which of them it computed before."""
    import openvino

    compiled = openvino.Core().compile_model(openvino.convert_model(model, example_input=example), "CPU")
    steps = [operator.get_rt_info() for operator in compiled.get_runtime_model().get_ops()]
    of_norm = [step for step in steps if "BatchNormInference" in step["originalLayersNames"].astype(str)]
    return STEP if any(step["layerType"].astype(str) == "Eltwise" for step in of_norm) else FUSED


TOOLS: dict[str, tuple[str, Callable[[nn.Module, torch.Tensor], str]]] = {
    "bnfold": ("", with_bnfold),
    "torch.jit.freeze": ("torch", with_freeze),
    "AOTInductor": ("torch", with_aotinductor),
    "ONNX Runtime": ("onnxruntime", with_onnx_runtime),
    "OpenVINO": ("openvino", with_openvino),
}


def title(tool: str) -> str:
    package, _ = TOOLS[tool]
    return f"{tool} {measuring.version(package)}" if package else tool


def outcomes(pattern: str, tools: list[str]) -> list[str]:
    """What each tool makes of the norm."""
    make, sizes = PATTERNS[pattern]
    torch.manual_seed(0)
    model, example = make().eval(), torch.randn(*sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript and of the exporter
        return [TOOLS[tool][1](model, example) for tool in tools]


def is_installed(tool: str) -> bool:
    package, _ = TOOLS[tool]
    return not package or measuring.version(package) is not None


def main() -> None:
    tools = list(filter(is_installed, TOOLS))
    print("| layers |", " | ".join(map(title, tools)), "|")
    print("|---|" + "---|" * len(tools))
    for pattern in PATTERNS:
        print(f"| {pattern} |", " | ".join(outcomes(pattern, tools)), "|", flush=True)
    for tool in TOOLS:
        if tool not in tools:
            print(f"\n{tool} is not installed: pip install -r bench/requirements.txt")


if __name__ == "__main__":
    main()
