"""Code blocks of the documents, and how those in Python run."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from calibrate import calibrate
from torch import nn

DOCS = Path(__file__).resolve().parents[2] / "docs"


class Block(NamedTuple):
    heading: str
    language: str
    code: str


def blocks(document: str) -> list[Block]:
    """The code blocks of a document, each with the heading that it stands under."""
    found, heading = [], ""
    for match in re.finditer(r"^#+ +([^\n]+)$|^```(\w+)\n(.*?)^```$", (DOCS / document).read_text(), re.MULTILINE | re.DOTALL):
        if match[1] is not None:
            heading = match[1].strip("`")
        else:
            found.append(Block(heading, match[2], match[3]))
    return found


def model() -> nn.Module:
    """The model that the documents speak of, for images of 3 channels."""
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    result = nn.Sequential(*layers).eval()
    calibrate(result, (torch.randn(2, 3, 64, 64),))
    return result


def save_model(path: Path) -> None:
    torch.jit.script(model()).save(str(path))


def save_program(path: Path) -> None:
    """The same model, exported for any number of images."""
    program = torch.export.export(model(), (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.export.save(program, path)


def program(blocks: Iterable[Block]) -> tuple[str, str]:
    """The Python blocks as one program, and what it prints by the blocks of text or JSON behind them."""
    blocks = list(blocks)
    code = "\n".join(block.code for block in blocks if block.language == "python")
    return code, "".join(block.code for block in blocks if block.language in ("text", "json"))


def without_varying_figures(output: str) -> str:
    """Rounding depends on the machine, and the number of nodes on the version of PyTorch."""
    return re.sub(r"\d\.\de-\d+|graph nodes .*|\"nodes_\w+\": \d+", "...", output)


def run(code: str, folder: Path, **variables: object) -> types.ModuleType:
    """Runs Python code with gradients on, as a user does. It becomes a file, since TorchScript reads the source of a class."""
    path = folder / "example.py"
    path.write_text(code)
    specification = importlib.util.spec_from_file_location("example", path)
    example = importlib.util.module_from_spec(specification)
    vars(example).update(variables)
    sys.modules[example.__name__] = example
    try:
        with torch.enable_grad():
            specification.loader.exec_module(example)
    finally:
        del sys.modules[example.__name__]
    return example
