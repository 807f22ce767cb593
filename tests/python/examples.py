"""Code blocks of the documents, and how those in Python run."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path
from typing import NamedTuple

import torch

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
