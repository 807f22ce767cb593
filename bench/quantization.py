"""Measures how exact networks are in int8, quantized by NNCF for OpenVINO as they are and folded, as a Markdown table.

    scripts/consumers.sh --set-up
    .venv-consumers/bin/python bench/quantization.py

The error is the norm of the difference from the network in double, relative to the norm of its output, over images that the quantization has
not seen. With fresh weights it is larger than that of a trained network; how the folds compare is what counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

import bnfold

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "python"))

import zoo  # noqa: E402
from calibrate import calibrate  # noqa: E402

NETWORKS = {"DenseNet121": "densenet121", "RepVGG-A0": "repvgg_a0", "ResNetV2-50": "resnetv2_50", "MobileNetV2": "mobilenet_v2"}
CALIBRATION = 8  # images that give a network its statistics, and a quantization its ranges
IMAGES = 8  # that the error is measured on

Fold = Callable[[torch.jit.ScriptModule, torch.Tensor], torch.jit.ScriptModule]
FOLDS: dict[str, Fold] = {
    "unfolded": lambda module, image: module,
    "`torch.jit.freeze`": lambda module, image: torch.jit.freeze(module),
    '`target="quantization"`': lambda module, image: bnfold.fold(module, example_inputs=image, target="quantization").module,
    "`bnfold.fold`": lambda module, image: bnfold.fold(module, example_inputs=image).module,
}


def images(count: int, side: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=generator)


def calibrated(network: str, seed: int, seen: torch.Tensor) -> nn.Module:
    """The network in double, with weights and norms of that seed."""
    torch.manual_seed(seed)
    model = zoo.build(zoo.ZOO[NETWORKS[network]]).double().eval()
    calibrate(model, (seen.double(),), seed)
    return model


def int8_outputs(module: torch.jit.ScriptModule, seen: torch.Tensor, unseen: torch.Tensor) -> torch.Tensor:
    """What the quantized module computes."""
    import nncf
    import openvino

    model = openvino.convert_model(module, example_input=seen[:1])
    samples = nncf.Dataset([image.unsqueeze(0).numpy() for image in seen])
    quantized = nncf.quantize(model, samples, subset_size=len(seen))
    program = openvino.Core().compile_model(quantized, "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads()})
    return torch.cat([torch.from_numpy(program(image.unsqueeze(0).numpy())[0].copy()) for image in unseen])


def errors(network: str, seed: int, side: int) -> list[float]:
    """Those of the network of that seed, one for each way to fold it."""
    generator = torch.Generator().manual_seed(seed)
    seen, unseen = images(CALIBRATION, side, generator), images(IMAGES, side, generator)
    model = calibrated(network, seed, seen)
    expected = model(unseen.double())
    module = torch.jit.trace(model.float(), seen[:1])
    outputs = (int8_outputs(fold(module, seen[:1]), seen, unseen) for fold in FOLDS.values())
    return [float((output.double() - expected).norm() / expected.norm()) for output in outputs]


def row(network: str, measured: Sequence[Sequence[float]]) -> str:
    """The mean of each fold over the seeds, and the smallest and the largest."""
    cells = (f"{statistics.mean(of_it):.4f} ({min(of_it):.3f} to {max(of_it):.3f})" for of_it in zip(*measured))
    return f"| {network} | {' | '.join(cells)} |"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", metavar="NAME", choices=NETWORKS, default=list(NETWORKS), help=", ".join(NETWORKS))
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="networks of each kind (default: 5)")
    parser.add_argument("--side", type=int, default=96, metavar="N", help="of the square images (default: 96)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"| network | {' | '.join(FOLDS)} |\n|---|{'--:|' * len(FOLDS)}")
    for network in arguments.network:
        with torch.no_grad():
            measured = []
            for seed in range(arguments.seeds):
                measured.append(errors(network, seed, arguments.side))
                print(network, seed, *(f"{error:.4f}" for error in measured[-1]), file=sys.stderr, flush=True)
        print(row(network, measured), flush=True)


if __name__ == "__main__":
    main()
