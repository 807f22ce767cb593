"""docs/howto.md and docs/consumers.md do what they say: their code blocks are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import examples
import pytest
from tested import LIBRARY, PROGRAM

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = examples.blocks("howto.md")
FOLDING, FOLDING_PROGRAM, *HANDING_ON = (block for block in examples.blocks("consumers.md") if block.language == "python")


def of(language: str) -> list:
    return [pytest.param(block.code, id=block.heading) for block in BLOCKS if block.language == language]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the blocks run, with the model that they speak of."""
    monkeypatch.chdir(tmp_path)
    examples.save_model(tmp_path / "model.pt")
    return tmp_path


def test_there_are_blocks():
    assert len(of("python")) >= 10 and len(of("console")) >= 2 and len(of("cpp")) == 1


@pytest.mark.parametrize("code", of("python"))
@pytest.mark.filterwarnings("ignore")  # what PyTorch says of TorchScript and of its exporter
def test_python(code, folder):
    if "import torch_tensorrt" in code:
        pytest.importorskip("torch_tensorrt")
    examples.run(code, folder, libbnfold_ops=LIBRARY)


@pytest.mark.parametrize("code", [pytest.param(block.code, id=block.heading) for block in HANDING_ON])
@pytest.mark.filterwarnings("ignore")
def test_python_of_a_consumer(code, folder):
    for package in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE):
        pytest.importorskip(package)
    if "dynamo=True" in code:
        pytest.importorskip("onnxscript")
    if "folded.pt2" in code:
        examples.save_program(folder / "model.pt2")
        examples.run(FOLDING_PROGRAM.code, folder)
    else:
        examples.run(FOLDING.code, folder)
    examples.run(code, folder)


@pytest.mark.parametrize("code", of("console"))
def test_console(code, folder):
    commands = "\n".join(re.findall(r"^\$ (.*)$", code, re.MULTILINE))
    path = os.pathsep.join([str(PROGRAM.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run(["bash", "-euc", commands], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("code", of("cpp"))
def test_cpp_is_that_of_the_example(code):
    example = (ROOT / "examples" / "deploy" / "fold_and_run.cpp").read_text()
    lines = [line.partition("  //")[0].strip() for line in code.splitlines()]
    assert [line for line in lines if line not in example] == []
