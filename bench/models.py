"""Writes the models that bnfold_bench measures, with random weights: torchvision's and timm's architectures, scripted and exported, and in
growth/, scripted, chains and dense blocks of 10 to 2,000 norms.

    .venv/bin/python bench/models.py build/models
"""

import argparse
import itertools
import pathlib
import warnings
from functools import partial

import timm
import torch
import torchvision

NAMES = ["resnet50", "vgg16_bn", "mobilenet_v2", "efficientnet_b0", "densenet121", "resnetv2_50"]

# A norm before a ReLU becomes one operator where its gammas are positive, and two where they have both signs.
SIGNED = ["densenet121", "resnetv2_50"]


def create(name: str, signed: bool) -> torch.nn.Module:
    """A network in eval mode with random norms, its gammas positive or of both signs."""
    if name in torchvision.models.list_models():
        model = torchvision.models.get_model(name, weights=None, num_classes=10)
    else:
        model = timm.create_model(name, num_classes=10)
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            if signed:
                module.weight.data[torch.rand(module.num_features) < 0.5] *= -1
            torch.nn.init.normal_(module.running_mean)
    return model.eval()


# How many norms the graphs in growth/ have.
GROWTH = [10, 50, 200, 800, 2000]


def layer(channels: int, outputs: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.BatchNorm2d(channels), torch.nn.ReLU(), torch.nn.Conv2d(channels, outputs, 1, bias=False))


class DenseBlock(torch.nn.Module):
    """Layers that each read the concatenation of the input and of all layers before."""

    def __init__(self, channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layer(channels + i * growth, growth) for i in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def chain(norms: int) -> torch.nn.Module:
    """Convolution, norm and ReLU in a row, `norms` times, for images [N, 8, H, W]."""
    parts = [(torch.nn.Conv2d(8, 8, 1), torch.nn.BatchNorm2d(8), torch.nn.ReLU()) for _ in range(norms)]
    return torch.nn.Sequential(*itertools.chain(*parts))


def dense(norms: int) -> torch.nn.Module:
    """Dense blocks of nine layers with a transition behind each, `norms` norms in all, a multiple of 10, for images [N, 8, H, W]."""
    parts = [(DenseBlock(8, 4, 9), layer(8 + 9 * 4, 8)) for _ in range(norms // 10)]
    return torch.nn.Sequential(*itertools.chain(*parts))


def exported(model: torch.nn.Module, image: torch.Tensor) -> torch.export.ExportedProgram:
    """The program of a network for any number of images of this size."""
    images = torch.cat([image, image])  # torch.export takes a batch of 1 for a constant
    return torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


def save_scripted(model: torch.nn.Module, path: pathlib.Path) -> None:
    torch.jit.script(model).save(str(path))


def save_exported(model: torch.nn.Module, path: pathlib.Path) -> None:
    torch.export.save(exported(model, torch.randn(1, 3, 224, 224)), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    directory = parser.parse_args().directory
    warnings.simplefilter("ignore")  # TorchScript is deprecated, and says so for each model
    torch.manual_seed(0)
    networks = {name: partial(create, name, signed=False) for name in NAMES}
    networks |= {f"{name}_signed": partial(create, name, signed=True) for name in SIGNED}
    growth = {f"growth/{make.__name__}_{norms}": partial(make, norms) for make in (chain, dense) for norms in GROWTH}
    files = [(f"{name}.pt", make, save_scripted) for name, make in (networks | growth).items()]
    files += [(f"{name}.pt2", make, save_exported) for name, make in networks.items()]
    (directory / "growth").mkdir(parents=True, exist_ok=True)
    for name, make, save in files:
        if not (directory / name).exists():
            save(make().eval(), directory / name)
            print(f"wrote {directory / name}")


if __name__ == "__main__":
    main()
