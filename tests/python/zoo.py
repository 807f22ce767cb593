"""The real networks that bnfold is measured on: what there is, how each is built, and how many of its norms are to be folded.

The tests build the quick part, once a session; zoo_table.py builds all of them.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import warnings
from collections.abc import Callable
from typing import Any, Literal

import timm
import torch
import torchvision
from calibrate import calibrate
from torch import nn
from torchvision.models.detection.backbone_utils import mobilenet_backbone, resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import bnfold

Source = Literal["torchvision", "timm", "segmentation", "video", "detection"]
Spelling = Literal["scripted", "traced"]

SPELLINGS: tuple[Spelling, ...] = ("scripted", "traced")
TRACED_ONLY: tuple[Spelling, ...] = ("traced",)

CLASSES = 10
BATCH = 2


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What the zoo knows of a network without building it."""

    name: str
    source: Source  #: the part of torchvision that has it, or timm
    norms: int  #: that run in eval mode
    kept: int = 0  #: those of them that no exact fold is expected for
    side: int = 64  #: of the square input: as small as the architecture lets it be, for speed
    frames: int = 0  #: of a video, 0 for an image
    quick: bool = False  #: in the part that the tests run
    frozen: bool = False  #: its norms are FrozenBatchNorm2d: arithmetic on buffers, without aten::batch_norm
    gammas: float = 1.0  #: a factor on their size, so that the network does not make ever more of a rounding error from layer to layer
    spellings: tuple[Spelling, ...] = SPELLINGS  #: those that TorchScript can make of it

    @property
    def goal(self) -> int:
        """The number of norms to be folded."""
        return self.norms - self.kept

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the input."""
        return (BATCH, 3, *((self.frames,) if self.frames else ()), self.side, self.side)


@dataclasses.dataclass(frozen=True)
class Network:
    """A calibrated network in double precision, its inputs, its output and the norms that run."""

    name: str
    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    output: Any
    norms: list[str]
    second_inputs: tuple[torch.Tensor, ...]
    second_output: Any

    def inputs_of_batch(self, size: int) -> tuple[torch.Tensor, ...]:
        """Inputs of another batch, made of the two that there are."""
        return tuple(torch.cat([one, other] * size)[:size] for one, other in zip(self.inputs, self.second_inputs))


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("vgg11_bn", "torchvision", 8),
    Architecture("vgg16_bn", "torchvision", 13, quick=True),
    Architecture("vgg19_bn", "torchvision", 16),
    Architecture("resnet18", "torchvision", 20, quick=True),
    Architecture("resnet34", "torchvision", 36),
    Architecture("resnet50", "torchvision", 53, quick=True),
    Architecture("resnet101", "torchvision", 104),
    Architecture("resnet152", "torchvision", 155),
    Architecture("resnext50_32x4d", "torchvision", 53),
    Architecture("wide_resnet50_2", "torchvision", 53),
    Architecture("densenet121", "torchvision", 121, quick=True),
    Architecture("densenet169", "torchvision", 169),
    Architecture("mobilenet_v2", "torchvision", 52, quick=True),
    Architecture("mobilenet_v3_small", "torchvision", 34, quick=True),
    Architecture("mobilenet_v3_large", "torchvision", 46, quick=True),
    Architecture("efficientnet_b0", "torchvision", 49, quick=True),
    Architecture("efficientnet_b1", "torchvision", 69),
    Architecture("efficientnet_b3", "torchvision", 78),
    Architecture("efficientnet_v2_s", "torchvision", 110),
    Architecture("inception_v3", "torchvision", 94, side=96, quick=True),
    Architecture("googlenet", "torchvision", 57, quick=True),
    Architecture("shufflenet_v2_x0_5", "torchvision", 56),
    Architecture("shufflenet_v2_x1_0", "torchvision", 56, quick=True),
    Architecture("shufflenet_v2_x2_0", "torchvision", 56),
    Architecture("mnasnet0_5", "torchvision", 52),
    Architecture("mnasnet1_0", "torchvision", 52, quick=True),
    Architecture("regnet_x_400mf", "torchvision", 71),
    Architecture("regnet_y_400mf", "torchvision", 53, quick=True),
    Architecture("regnet_y_800mf", "torchvision", 47),
    Architecture("fcn_resnet50", "segmentation", 54),
    Architecture("deeplabv3_resnet50", "segmentation", 60),
    Architecture("lraspp_mobilenet_v3_large", "segmentation", 47),
    Architecture("r3d_18", "video", 20, side=32, frames=8),
    Architecture("mc3_18", "video", 20, side=32, frames=8),
    Architecture("r2plus1d_18", "video", 37, side=32, frames=8),
    Architecture("s3d", "video", 77, side=224, frames=16),
    Architecture("fasterrcnn_resnet50_fpn", "detection", 53),
    Architecture("fasterrcnn_resnet50_fpn_frozen", "detection", 53, frozen=True),
    Architecture("retinanet_resnet50_fpn", "detection", 53),
    Architecture("retinanet_resnet50_fpn_frozen", "detection", 53, frozen=True),
    Architecture("fasterrcnn_mobilenet_v3_large_fpn", "detection", 46),
    Architecture("resnetv2_50", "timm", 49, quick=True),
    Architecture("repvgg_a0", "timm", 61, quick=True),
    Architecture("mobileone_s0", "timm", 226, side=128, quick=True),
    Architecture("dpn68", "timm", 72, quick=True),
    Architecture("levit_128s", "timm", 52, side=224, quick=True),
    Architecture("fastvit_t8", "timm", 70, quick=True),
    Architecture("inception_v4", "timm", 149, side=96),
    Architecture("inception_resnet_v2", "timm", 204, side=96),
    Architecture("nasnetalarge", "timm", 264),
    Architecture("pnasnet5large", "timm", 201),
    Architecture("convmixer_768_32", "timm", 65, kept=32, gammas=2),
    Architecture("densenetblur121d", "timm", 123),
    Architecture("resnet50d", "timm", 55),
    Architecture("resnetblur50", "timm", 53),
    Architecture("seresnet50", "timm", 53),
    Architecture("ecaresnet50d", "timm", 55),
    Architecture("skresnet18", "timm", 36),
    Architecture("skresnext50_32x4d", "timm", 85),
    Architecture("resnest26d", "timm", 39),
    Architecture("resnest50d", "timm", 71),
    Architecture("res2net50_26w_4s", "timm", 85),
    Architecture("gernet_s", "timm", 45),
    Architecture("regnetz_005", "timm", 65),
    Architecture("tresnet_m", "timm", 60),
    Architecture("hrnet_w18", "timm", 325, spellings=TRACED_ONLY),
    Architecture("cspresnet50", "timm", 55),
    Architecture("cspdarknet53", "timm", 67),
    Architecture("darknet53", "timm", 52),
    Architecture("cs3darknet_s", "timm", 32),
    Architecture("ese_vovnet39b", "timm", 39),
    Architecture("hgnetv2_b0", "timm", 42),
    Architecture("dla34", "timm", 37),
    Architecture("selecsls42b", "timm", 41, spellings=TRACED_ONLY),
    Architecture("legacy_xception", "timm", 40),
    Architecture("xception41", "timm", 84),
    Architecture("xception41p", "timm", 40, kept=7),
    Architecture("efficientnet_lite0", "timm", 49),
    Architecture("efficientnet_el", "timm", 72),
    Architecture("mobilenetv4_conv_small", "timm", 46),
    Architecture("mobilenetv4_hybrid_medium", "timm", 96, kept=4),
    Architecture("mixnet_s", "timm", 49),
    Architecture("tinynet_a", "timm", 58),
    Architecture("rexnet_100", "timm", 62),
    Architecture("lcnet_100", "timm", 27),
    Architecture("spnasnet_100", "timm", 64),
    Architecture("fbnetc_100", "timm", 65),
    Architecture("semnasnet_100", "timm", 49),
    Architecture("hardcorenas_a", "timm", 34),
    Architecture("ghostnet_100", "timm", 80),
    Architecture("ghostnetv2_100", "timm", 122),
    Architecture("repghostnet_100", "timm", 112),
    Architecture("fasternet_t0", "timm", 17),
    Architecture("starnet_s1", "timm", 36),
    Architecture("shvit_s1", "timm", 74),
    Architecture("repvit_m1", "timm", 108),
    Architecture("efficientformer_l1", "timm", 33, side=224),
    Architecture("efficientformerv2_s0", "timm", 75, side=224),
    Architecture("efficientvit_b0", "timm", 26),
    Architecture("efficientvit_m0", "timm", 113),
    Architecture("mobilevit_xxs", "timm", 32),
    Architecture("mobilevitv2_050", "timm", 25),
    Architecture("swiftformer_xs", "timm", 26),
    Architecture("nextvit_small", "timm", 61),
    Architecture("tiny_vit_5m_224", "timm", 27),
    Architecture("coatnet_nano_rw_224", "timm", 22, side=224),
    Architecture("visformer_tiny", "timm", 28, side=224),
    Architecture("botnet26t_256", "timm", 31, kept=3, side=256),
    Architecture("halonet26t", "timm", 31, side=256),
    Architecture("lambda_resnet26t", "timm", 37),
)

ZOO: dict[str, Architecture] = {architecture.name: architecture for architecture in ARCHITECTURES}

QUICK: tuple[str, ...] = tuple(architecture.name for architecture in ARCHITECTURES if architecture.quick)


def _detection_backbone(name: str) -> nn.Module:
    norm_layer: Callable[..., nn.Module] = FrozenBatchNorm2d if name.endswith("_frozen") else nn.BatchNorm2d
    if "mobilenet" in name:
        return mobilenet_backbone(backbone_name="mobilenet_v3_large", weights=None, fpn=True, norm_layer=norm_layer)
    levels: dict[str, Any] = {}
    if name.startswith("retinanet"):
        levels = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
    return resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=norm_layer, **levels)


def build(architecture: Architecture) -> nn.Module:
    """The network with fresh weights, as the library that has it makes it."""
    name = architecture.name
    if architecture.source == "timm":
        return timm.create_model(name, pretrained=False, num_classes=CLASSES)
    if architecture.source == "detection":
        return _detection_backbone(name)
    if architecture.source == "segmentation":
        return getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES)
    if architecture.source == "video":
        return getattr(torchvision.models.video, name)(num_classes=CLASSES)
    options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    return getattr(torchvision.models, name)(num_classes=CLASSES, **options)


def prepare(
    name: str, model: nn.Module, inputs: tuple[torch.Tensor, ...], second_inputs: tuple[torch.Tensor, ...], gammas: float = 1.0
) -> Network:
    """Calibrates a network in double precision on two batches, and runs it."""
    # Statistics of a single small batch are those of a few numbers in the last layers: any other input would explode there.
    norms = calibrate(model, tuple(torch.cat(pair) for pair in zip(inputs, second_inputs)), gammas=gammas)
    with torch.no_grad():
        return Network(name, model, inputs, model(*inputs), norms, second_inputs, model(*second_inputs))


def build_network(name: str, gammas: float | None = None) -> Network:
    """Builds and calibrates the network, with gammas of its own size unless told otherwise. Takes the same random numbers each time."""
    architecture = ZOO[name]
    torch.manual_seed(0)
    model = build(architecture).double().eval()
    inputs, second_inputs = (torch.randn(architecture.shape, dtype=torch.float64) for _ in range(2))
    return prepare(name, model, (inputs,), (second_inputs,), architecture.gammas if gammas is None else gammas)


# Two at a time: all of them, as they are and folded, take 10 GB.
_kept = functools.lru_cache(maxsize=2)


@_kept
def network(name: str) -> Network:
    """The network of that name, built once for tests that follow each other."""
    return build_network(name)


def to_torchscript(model: nn.Module, inputs: tuple[Any, ...], spelling: str) -> torch.jit.ScriptModule:
    """Scripts or traces ``model``."""
    with torch.no_grad(), warnings.catch_warnings():
        # GoogLeNet and Inception announce that their scripted form returns a named tuple.
        warnings.filterwarnings("ignore", message="Scripted .* always returns")
        warnings.filterwarnings("ignore", message="The TorchScript type system doesn't support instance-level annotations")
        # A norm reads sizes of its input to see whether it could train.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        if spelling == "scripted":
            return torch.jit.script(model)
        # Segmentation models and detection backbones return a dict, which a strict trace refuses.
        return torch.jit.trace(model, inputs, check_trace=False, strict=False)


def to_program(net: Network, dynamic: bool) -> torch.export.ExportedProgram:
    """Exports the network for the batch size of its inputs, or for every one."""
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in net.inputs) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(net.model, net.inputs, dynamic_shapes=shapes)


def saved_and_loaded(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export before 2.15 warns of the memory that it reads into
        return torch.export.load(buffer)


@_kept
def script_module(name: str, spelling: str) -> torch.jit.ScriptModule:
    """The network of that name, scripted or traced once for tests that follow each other."""
    net = network(name)
    return to_torchscript(net.model, net.inputs, spelling)


@_kept
def fold_result(name: str, spelling: str) -> bnfold.FoldResult:
    """The network of that name, folded once for tests that follow each other."""
    return bnfold.fold(script_module(name, spelling))
