"""Writes the models that bnfold_bench measures: torchvision's and timm's architectures, scripted, with random weights.

    .venv/bin/python bench/models.py build/models
"""

import argparse
import pathlib
import warnings

import timm
import torch
import torchvision

NAMES = ["resnet50", "vgg16_bn", "mobilenet_v2", "efficientnet_b0", "densenet121", "resnetv2_50"]


def create(name: str) -> torch.nn.Module:
    """A network in eval mode, its gammas of both signs, which decide what a norm becomes."""
    if hasattr(torchvision.models, name):
        model = getattr(torchvision.models, name)(weights=None, num_classes=10)
    else:
        model = timm.create_model(name, num_classes=10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.running_mean)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # TorchScript is deprecated, and says so for each model
    torch.manual_seed(0)
    for name in NAMES:
        path = directory / f"{name}.pt"
        if path.exists():
            continue
        torch.jit.script(create(name)).save(str(path))
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
