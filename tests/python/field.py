"""Networks of other fields, as packages of PyPI make them: medicine, speech, brain signals, time series, tables, faces, text, satellites.

field_table.py builds and folds them, in the environment that scripts/field.sh makes for them.
"""

from __future__ import annotations

import dataclasses
import importlib
import unittest.mock
from collections.abc import Callable
from typing import Any

import torch
import zoo
from torch import nn

BATCH = 2
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Field:
    """What the table knows of a network without building it."""

    name: str
    package: str  #: its name on PyPI
    make: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]  #: of the inputs, without the batch

    @property
    def key(self) -> str:
        """Two packages may have a network of one name."""
        return f"{self.package}/{self.name}"


# ---- how they are made


def made_by(path: str, *arguments: Any, **options: Any) -> Callable[[], nn.Module]:
    """Calls "module:function" with the arguments."""

    def make() -> nn.Module:
        module, name = path.split(":")
        return getattr(importlib.import_module(module), name)(*arguments, **options)

    return make


def transformer(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A network of transformers with random weights. As a tuple, the output is the same scripted and traced."""

    def make() -> nn.Module:
        config = made_by(f"transformers:{name}Config", return_dict=False, **options)()
        return made_by(f"transformers:{name}Model", config)()

    return make


class Reader(nn.Module):
    """A text reader of easyocr, whose forward takes a text too and does not read it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x, x)


def efficientnet() -> nn.Module:
    return importlib.import_module("efficientnet_pytorch").EfficientNet.from_name("efficientnet-b0")


class Detections(nn.Module):
    """The first output of a detector, without the raw ones that it adds for a training."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(x)[0]


def yolo(config: str) -> Callable[[], nn.Module]:
    """A detector of ultralytics from its description."""
    return lambda: Detections(made_by("ultralytics.nn.tasks:DetectionModel", f"{config}.yaml", ch=3, nc=10, verbose=False)())


def easyocr(module: str) -> Callable[[], nn.Module]:
    return lambda: Reader(made_by(f"easyocr.model.{module}:Model", 1, 256, 256, 97)())


def nnunet(name: str, dimensions: int, **options: Any) -> Callable[[], nn.Module]:
    """A network of nnU-Net, with batch norms."""
    norm, convolution = {2: (nn.BatchNorm2d, nn.Conv2d), 3: (nn.BatchNorm3d, nn.Conv3d)}[dimensions]
    return made_by(
        f"dynamic_network_architectures.architectures.unet:{name}",
        input_channels=1,
        n_stages=4,
        features_per_stage=[16, 32, 64, 96],
        conv_op=convolution,
        kernel_sizes=3,
        strides=[1, 2, 2, 2],
        num_classes=3,
        n_conv_per_stage_decoder=[2, 2, 2],
        norm_op=norm,
        nonlin=nn.LeakyReLU,
        **options,
    )


def tabnet(**options: Any) -> Callable[[], nn.Module]:
    return made_by("pytorch_tabnet.tab_network:TabNet", 16, 3, group_attention_matrix=torch.eye(16, dtype=torch.float64), **options)


# ---- what there is

IMAGE = (3, 64, 64)
VOLUME = (1, 16, 16, 16)
SERIES = (3, 100)


def monai_networks() -> list[Field]:
    def one(name: str, shape: Shape, *arguments: Any, label: str = "", **options: Any) -> Field:
        return Field(label or name, "monai", made_by(f"monai.networks.nets:{name}", *arguments, **options), (shape,))

    batch = {"norm": "batch"}
    channels = {"channels": (8, 16, 32, 64), "strides": (2, 2, 2)}
    resnet = {"spatial_dims": 3, "n_input_channels": 1, "num_classes": 3}
    return [
        one("UNet", VOLUME, spatial_dims=3, in_channels=1, out_channels=2, num_res_units=2, **channels, **batch),
        one("BasicUNet", VOLUME, spatial_dims=3, in_channels=1, features=(8, 8, 16, 32, 64, 8), **batch),
        one("AttentionUnet", VOLUME, spatial_dims=3, in_channels=1, out_channels=2, **channels),
        one("DynUNet", VOLUME, 3, 1, 2, [3] * 4, [1, 2, 2, 2], [2, 2, 2], norm_name="batch", res_block=True),
        one("VNet", VOLUME, spatial_dims=3, in_channels=1),
        one("SegResNet", VOLUME, spatial_dims=3, in_channels=1, **batch),
        one("HighResNet", VOLUME, spatial_dims=3, in_channels=1, out_channels=2),
        one("DenseNet121", (1, 32, 32, 32), spatial_dims=3, in_channels=1, out_channels=3),
        one("EfficientNetBN", IMAGE, "efficientnet-b0", pretrained=False),
        one("SEResNet50", VOLUME, spatial_dims=3, in_channels=1, num_classes=3),
        one("SEResNext50", (1, 64, 64), spatial_dims=2, in_channels=1, num_classes=3),
        one("resnet18", VOLUME, **resnet, label="ResNet18 3-D"),
        one("resnet50", VOLUME, **resnet, label="ResNet50 3-D"),
        one("FlexibleUNet", IMAGE, 3, 2, "efficientnet-b0"),
        one("SegResNetDS", VOLUME, spatial_dims=3, in_channels=1, **batch),
        one("RegUNet", VOLUME, 3, 1, 8, 3),
        one("Discriminator", (1, 32, 32), (1, 32, 32), (8, 16, 32), (2, 2, 2), norm="batch"),
        one("Generator", (16,), (16,), (16, 4, 4), (16, 8, 1), (2, 2, 1), norm="batch"),
    ]


def segmentation_networks() -> list[Field]:
    def one(name: str, encoder: str) -> Field:
        make = made_by(f"segmentation_models_pytorch:{name}", encoder, encoder_weights=None, classes=3)
        return Field(f"{name} {encoder}", "segmentation-models-pytorch", make, (IMAGE,))

    volumes = made_by("segmentation_models_pytorch_3d:Unet", "resnet18", encoder_weights=None, in_channels=1, classes=3)
    return [
        one("Unet", "resnet34"),
        one("Unet", "timm-efficientnet-b0"),
        one("UnetPlusPlus", "resnet18"),
        one("MAnet", "resnet18"),
        one("Linknet", "vgg11_bn"),
        one("FPN", "mobilenet_v2"),
        one("PSPNet", "densenet121"),
        one("DeepLabV3", "resnet18"),
        one("DeepLabV3Plus", "mobilenet_v2"),
        one("UPerNet", "dpn68"),
        one("Segformer", "mit_b0"),
        Field("Unet resnet18 3-D", "segmentation-models-pytorch-3d", volumes, ((1, 32, 32, 32),)),
    ]


def speech_networks() -> list[Field]:
    def brain(path: str, shape: Shape, **options: Any) -> Field:
        return Field(path.partition(":")[2], "speechbrain", made_by(f"speechbrain.lobes.models.{path}", **options), (shape,))

    frames = (60, 80)
    return [
        brain("ECAPA_TDNN:ECAPA_TDNN", frames, input_size=80, channels=[64, 64, 64, 64, 192], lin_neurons=32),
        brain("ResNet:ResNet", frames, input_size=80, channels=[16, 16, 32, 32], lin_neurons=32),
        brain("CRDNN:CRDNN", frames, input_shape=[None, None, 80], cnn_channels=[16, 32], rnn_neurons=32, dnn_neurons=32),
        brain("Cnn14:Cnn14", (96, 64), mel_bins=64, emb_dim=64),
        Field("Crepe tiny", "torchcrepe", made_by("torchcrepe.model:Crepe", "tiny"), ((1024,),)),
        Field("OpenUnmix", "openunmix", made_by("openunmix.model:OpenUnmix", 129, 2, 32, 2), ((2, 129, 20),)),
        Field("ConvTasNet", "asteroid", made_by("asteroid.models:ConvTasNet", 2, norm_type="bN", n_blocks=3, n_repeats=2), ((1, 8000),)),
    ]


def brain_networks() -> list[Field]:
    def one(name: str, channels: int = 22, times: int = 1000, rate: int = 250) -> Field:
        # TorchScript reads every property of a module, and those that describe the signal raise where they were not given.
        names = [{"ch_name": str(number)} for number in range(channels)]
        signal = {"n_chans": channels, "n_outputs": 4, "n_times": times, "sfreq": rate, "chs_info": names}
        return Field(name, "braindecode", made_by(f"braindecode.models:{name}", **signal), ((channels, times),))

    names = ("EEGNetv1", "EEGNetv4", "ShallowFBCSPNet", "Deep4Net", "EEGITNet", "EEGConformer", "EEGInceptionERP")
    return [*(one(name) for name in names), one("USleep", channels=2, times=3000, rate=100)]


def series_networks() -> list[Field]:
    def one(name: str, *others: Any, module: str = "", **options: Any) -> Field:
        return Field(name, "tsai", made_by(f"tsai.models.{module or name}:{name}", 3, 4, *others, **options), (SERIES,))

    tcn = {"num_inputs": 3, "num_channels": [16, 16, 16], "kernel_size": 3, "use_norm": "batch_norm"}
    return [
        *(one(name) for name in ("InceptionTime", "ResNet", "FCN", "FCNPlus", "ResCNN", "XceptionTime")),
        *(one(name, 100) for name in ("InceptionTimePlus", "ResNetPlus", "XceptionTimePlus", "XCM")),
        one("OmniScaleCNN", 100, layers=[256, 2560]),
        one("LSTM_FCN", 100, module="RNN_FCN"),
        one("MGRU_FCN", 100, module="RNN_FCN"),
        one("xresnet1d18", module="XResNet1d"),
        one("xresnet1d50", module="XResNet1d"),
        one("mWDN", 100),
        one("TSTPlus", 100),
        one("MLP", 100, use_bn=True),
        Field("TCN causal", "pytorch-tcn", made_by("pytorch_tcn:TCN", causal=True, **tcn), (SERIES,)),
        Field(
            "TCN gated", "pytorch-tcn", made_by("pytorch_tcn:TCN", causal=False, use_gate=True, use_skip_connections=True, **tcn), (SERIES,)
        ),
        Field("TabNet", "pytorch-tabnet", tabnet(), ((16,),)),
        Field("TabNet virtual batch of 1", "pytorch-tabnet", tabnet(virtual_batch_size=1), ((16,),)),
    ]


def image_networks() -> list[Field]:
    def one(name: str, side: int) -> Field:
        return Field(name, "pytorchcv", made_by("pytorchcv.model_provider:get_model", name), ((3, side, side),))

    large = ("preresnet18", "sepreresnet18", "bninception", "octresnet50b_ad2", "peleenet", "igcv3_w1")
    small = (
        *("pyramidnet110_a48_cifar10", "xdensenet40_2_k24_bc_cifar10", "wrn16_10_cifar10", "ror3_56_cifar10", "resdropresnet20_cifar10"),
        *("shakeshakeresnet20_2x16d_cifar10", "fractalnet_cifar10"),
    )
    sides = {**dict.fromkeys(large, 224), **dict.fromkeys(small, 32)}
    return [one(name, side) for name, side in sides.items()]


def person_networks() -> list[Field]:
    names = (
        *("osnet_x0_25", "osnet_ibn_x1_0", "osnet_ain_x0_25", "resnet50_ibn_a", "resnet50_ibn_b", "resnet50_fc512", "pcb_p4", "mlfn"),
        "shufflenet",
    )

    def one(name: str) -> Field:
        make = made_by("torchreid.reid.models:build_model", name, 10, pretrained=False, use_gpu=False)
        return Field(name, "torchreid", make, ((3, 128, 64),))

    faces = made_by("facenet_pytorch:InceptionResnetV1", classify=False)
    return [*(one(name) for name in names), Field("InceptionResnetV1", "facenet-pytorch", faces, ((3, 96, 96),))]


def text_networks() -> list[Field]:
    def one(name: str, shape: Shape, **options: Any) -> Field:
        adapted = lambda: made_by(f"doctr.models:{name}", pretrained=False, exportable=True, **options)()  # noqa: E731
        return Field(name, "python-doctr", adapted, (shape,))

    backbone = {"pretrained_backbone": False}
    return [
        one("crnn_vgg16_bn", (3, 32, 128), **backbone),
        one("crnn_mobilenet_v3_small", (3, 32, 128), **backbone),
        one("viptr_tiny", (3, 32, 128), **backbone),
        one("db_resnet34", (3, 64, 64), **backbone),
        one("db_mobilenet_v3_large", (3, 64, 64), **backbone),
        one("linknet_resnet18", (3, 64, 64), **backbone),
        one("fast_tiny", (3, 64, 64), **backbone),
        Field("vgg_model", "easyocr", easyocr("vgg_model"), ((1, 64, 200),)),
        Field("resnet model", "easyocr", easyocr("model"), ((1, 64, 200),)),
        Field("CRAFT", "easyocr", made_by("easyocr.craft:CRAFT", pretrained=False), (IMAGE,)),
    ]


def other_networks() -> list[Field]:
    xray = {"num_classes": 3, "in_channels": 1}
    hugging_face = {
        "ResNet": (IMAGE, {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2]}),
        "RegNet": (IMAGE, {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [2, 2], "groups_width": 16}),
        "MobileNetV2": (IMAGE, {}),
        "MobileNetV1": (IMAGE, {}),
        "Levit": (
            (3, 224, 224),
            {"hidden_sizes": [32, 64, 96], "num_attention_heads": [2, 4, 6], "depths": [2, 2, 2], "key_dim": [16, 16, 16]},
        ),
        "MobileViT": (IMAGE, {"image_size": 64}),
        "SwiftFormer": ((3, 224, 224), {}),
        "TextNet": (IMAGE, {}),
    }
    return [
        *(Field(name, "transformers", transformer(name, **options), (shape,)) for name, (shape, options) in hugging_face.items()),
        *(
            Field(name, "ultralytics", yolo(name), (IMAGE,))
            for name in (
                "yolov3-tiny",
                "yolov5n",
                "yolov6n",
                "yolov8n",
                "yolov8n-ghost",
                "yolov9t",
                "yolov10n",
                "yolo11n",
                "yolo12n",
                "yolo26n",
            )
        ),
        Field("U-Net 3-D", "dynamic-network-architectures", nnunet("PlainConvUNet", 3, n_conv_per_stage=[2, 2, 2, 2]), (VOLUME,)),
        Field(
            "U-Net 2-D residual",
            "dynamic-network-architectures",
            nnunet("ResidualEncoderUNet", 2, n_blocks_per_stage=[1, 2, 2, 2]),
            ((1, 64, 64),),
        ),
        Field(
            "UNet2D preactivation",
            "unet",
            made_by("unet:UNet2D", normalization="batch", preactivation=True, padding=1, num_encoding_blocks=3),
            ((1, 32, 32),),
        ),
        Field(
            "ResidualUNet3D",
            "pytorch3dunet",
            made_by("pytorch3dunet.unet3d.model:ResidualUNet3D", 1, 2, f_maps=8, num_levels=3, layer_order="cbr"),
            (VOLUME,),
        ),
        Field(
            "UNet3D bcr",
            "pytorch3dunet",
            made_by("pytorch3dunet.unet3d.model:UNet3D", 1, 2, f_maps=8, num_levels=3, layer_order="bcr"),
            (VOLUME,),
        ),
        Field("DenseNet121", "torchxrayvision", made_by("torchxrayvision.models:DenseNet", **xray), ((1, 64, 64),)),
        Field("FCSiamDiff", "torchgeo", made_by("torchgeo.models:FCSiamDiff", "resnet18", encoder_weights=None), ((2, 3, 64, 64),)),
        Field("FCSiamConc", "torchgeo", made_by("torchgeo.models:FCSiamConc", "resnet18", encoder_weights=None), ((2, 3, 64, 64),)),
        Field("FarSeg", "torchgeo", made_by("torchgeo.models:FarSeg", backbone="resnet18", backbone_pretrained=False), (IMAGE,)),
        Field("efficientnet-b0", "efficientnet-pytorch", efficientnet, (IMAGE,)),
        Field("HardNet", "kornia", made_by("kornia.feature:HardNet", pretrained=False), ((1, 32, 32),)),
        Field("SOSNet", "kornia", made_by("kornia.feature:SOSNet", pretrained=False), ((1, 32, 32),)),
        Field("HyNet", "kornia", made_by("kornia.feature:HyNet", pretrained=False), ((1, 32, 32),)),
    ]


_FIELDS: tuple[Field, ...] = (
    *monai_networks(),
    *segmentation_networks(),
    *speech_networks(),
    *brain_networks(),
    *series_networks(),
    *image_networks(),
    *person_networks(),
    *text_networks(),
    *other_networks(),
)

FIELDS: dict[str, Field] = {one.key: one for one in _FIELDS}


def build_network(field: Field) -> zoo.Network:
    """Builds and calibrates the network. Takes the same random numbers each time."""
    torch.manual_seed(0)
    # torchaudio refuses a torch that was built with another CUDA, also where there is no GPU.
    with unittest.mock.patch("torch.version.cuda", None):
        model = field.make().double().eval()
    inputs, second_inputs = (tuple(torch.randn(BATCH, *shape, dtype=torch.float64) for shape in field.shapes) for _ in range(2))
    return zoo.prepare(field.name, model, inputs, second_inputs)
