"""Writes the models that bnfold_bench measures: torchvision's architectures, scripted, with random weights.

    .venv/bin/python bench/models.py build/models
"""

import argparse
import pathlib
import warnings

import torch
import torchvision

NAMES = ["resnet50", "vgg16_bn", "mobilenet_v2", "efficientnet_b0"]


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
        model = getattr(torchvision.models, name)(weights=None, num_classes=10).eval()
        torch.jit.script(model).save(str(path))
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
