"""The lite interpreter of PyTorch, for phones."""

from __future__ import annotations

from pathlib import Path

import torch
from consumer import Consumer, Converted, Inputs, norms_in
from torch.jit.mobile import _load_for_lite_interpreter

CONSUMER = Consumer("lite interpreter", "torch", "libtorch")


def convert(path: Path, inputs: Inputs, folder: Path) -> Converted:
    module = torch.jit.load(path)
    module._save_for_lite_interpreter(str(folder / "model.ptl"))
    loaded = _load_for_lite_interpreter(str(folder / "model.ptl"))
    return Converted(norms_in(module), lambda: loaded(*inputs))
