"""Optimized networks on batches and images of other sizes than the example's, detection models among them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torchvision
import zoo
from calibrate import calibrate, relative_error

import bnfold

# Rounding in float32 of networks with random weights, of which eager has as much.
NEAR = 1e-4
NETWORKS = ("mobilenet_v3_small", "shufflenet_v2_x1_0", "visformer_tiny")
DETECTION = ("fasterrcnn_mobilenet_v3_large_320_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn")


@pytest.mark.parametrize("name", NETWORKS)
def test_other_batch_sizes(name):
    net = zoo.network(name)
    model, image = copy.deepcopy(net.model).float(), net.inputs[0].float()
    optimized = bnfold.optimize_for_inference(zoo.to_torchscript(model, (image,), "scripted"), image)
    with torch.no_grad():
        for batch in (1, 3, len(image)):
            other = torch.cat([image, net.second_inputs[0].float(), image])[:batch]
            for _ in range(2):
                assert relative_error(net.model(other.double()), optimized(other)) < NEAR


def images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.rand(3, *size) for size in sizes]


def detections(output: Any) -> list[dict[str, torch.Tensor]]:
    return output[1] if isinstance(output, tuple) else output  # a scripted model returns its losses too, which are empty


@pytest.mark.filterwarnings("ignore:.*always returns")
@pytest.mark.parametrize("name", DETECTION)
def test_detection_models_find_the_same(name):
    torch.manual_seed(0)
    build = getattr(torchvision.models.detection, name)
    model = build(weights=None, weights_backbone=None, num_classes=5, min_size=96, max_size=128).eval()
    example = images((96, 96), (96, 110))
    calibrate(model, (example,))
    optimized = bnfold.optimize_for_inference(torch.jit.script(model), (example,))
    with torch.no_grad():
        for given in (example, images((100, 90)), images((64, 64), (96, 120), (80, 80))):
            for wanted, found in zip(model(given), detections(optimized(given))):
                assert {kind: value.shape for kind, value in wanted.items()} == {kind: value.shape for kind, value in found.items()}
                if len(wanted["scores"]):
                    assert relative_error(wanted["scores"], found["scores"]) < NEAR
