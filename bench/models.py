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

# A norm before a ReLU becomes one operator where its gammas are positive, and two where they have both signs.
SIGNED = ["densenet121", "resnetv2_50"]


def create(name: str, signed: bool) -> torch.nn.Module:
    """A network in eval mode with random norms, its gammas positive or of both signs."""
    if hasattr(torchvision.models, name):
        model = getattr(torchvision.models, name)(weights=None, num_classes=10)
    else:
        model = timm.create_model(name, num_classes=10)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            if signed:
                module.weight.data[torch.rand(module.num_features) < 0.5] *= -1
            torch.nn.init.normal_(module.running_mean)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # TorchScript is deprecated, and says so for each model
    torch.manual_seed(0)
    for name, signed in [(name, False) for name in NAMES] + [(name, True) for name in SIGNED]:
        path = directory / f"{name}{'_signed' if signed else ''}.pt"
        if path.exists():
            continue
        torch.jit.script(create(name, signed)).save(str(path))
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
