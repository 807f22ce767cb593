"""What AOTInductor compiles of a program: its norms where it was not folded, none where it was; and it gives the original's outputs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from calibrate import relative_error
from cases import prepared
from tested import BUILD, PROGRAM
from torch import nn

if not hasattr(torch._inductor, "aoti_load_package"):
    pytest.skip("this torch has no packages of AOTInductor", allow_module_level=True)
import aotinductor
import models

IMAGE = (3, 9, 9)
EXAMPLE = BUILD / "tests" / "package" / "deploy" / "run_aotinductor"  # built by ctest
COMPILE = "import torch; torch._inductor.aoti_compile_and_package(torch.export.load('folded.pt2'), package_path='compiled.pt2')"

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of torch.export and of AOTInductor
    pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="AOTInductor needs a C++ compiler"),
]


def network() -> nn.Module:
    """Its norms go backward, and forward as a bound."""
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Sigmoid(), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    return prepared(nn.Sequential(*layers), (torch.randn(2, *IMAGE, dtype=torch.float64),)).float()


def test_no_norm_of_a_folded_program_is_compiled(tmp_path):
    model = network()
    compared = aotinductor.compare("small", model, torch.randn(1, *IMAGE), aotinductor.Settings(runs=6), tmp_path)
    assert (compared.original.norms_left, compared.folded.norms_left) == (2, 0)
    assert compared.difference < 1e-5
    assert len(aotinductor.cells(compared)) == len(aotinductor.HEADINGS)
    package = torch._inductor.aoti_load_package(str(compared.folded.path))
    for batch in (1, 3):
        x = torch.randn(batch, *IMAGE)
        for _ in range(2):
            assert relative_error(model(x), package(x)) < 1e-5


def test_the_example_in_cpp_runs_what_the_program_folded(tmp_path):
    if not EXAMPLE.is_file():
        pytest.skip(f"{EXAMPLE.name} is not built: ctest -R package does that, with a LibTorch that runs packages of AOTInductor")
    program = models.exported(network(), torch.randn(1, *IMAGE))
    torch.export.save(program, tmp_path / "model.pt2")

    def run(*command: object) -> str:
        done = subprocess.run([str(part) for part in command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(PROGRAM, "model.pt2", "folded.pt2", "--strict")
    run(sys.executable, "-c", COMPILE)
    printed = re.fullmatch(r"output \[3, 4, 7, 7\], sum (.*)\n", run(EXAMPLE, "compiled.pt2", "3,3,9,9"))
    torch.manual_seed(0)  # as the example does
    assert float(printed[1]) == pytest.approx(program.module()(torch.randn(3, *IMAGE)).sum().item(), rel=1e-4)
