"""Large models at a small size: bench/large.py has the same at full size."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import large
import pytest
import torch
from calibrate import relative_error

import bnfold

BENCH = Path(__file__).resolve().parents[2] / "bench"

# Deep enough for what recurses to show, and in a second.
DEEP = 40


@pytest.fixture(params=large.MODELS)
def name(request) -> str:
    return request.param


def test_large_models(name, tmp_path):
    size = large.MODELS[name]
    module, inputs = size.make(size.small)
    result = bnfold.fold(module)
    assert result.report.kept == () and len(result.report.folded) == (size.small if name == "norms" else 1)
    bnfold.save(result.module, tmp_path / "model.pt")
    assert relative_error(module(*inputs), bnfold.load(tmp_path / "model.pt")(*inputs)) < 1e-4


def test_a_thread_with_a_small_stack(name):
    # A quarter of a megabyte, where a process has eight: what recurses must not go deep.
    module, _ = large.MODELS[name].make(DEEP)
    folded = []
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=lambda: folded.append(bnfold.fold(module)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert folded[0].report.kept == ()


def test_a_chain_of_sums_longer_than_the_stack():
    # Each sum has the channels of the one before it, which is asked for at the end of the chain. Where it is too long to be followed the
    # norm is kept, and nothing crashes.
    code = "import large, bnfold, torch; bnfold.fold(torch.no_grad()(large.sums)(20_000)[0])"
    process = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=BENCH, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-500:]


def test_numbers_are_not_held_twice():
    # Weights that stay as they are share their memory with those of the original: 4 GB are not 8.
    module, _ = large.weights(1_000_000)
    result = bnfold.fold(module)
    assert result.module.table.weight.data_ptr() == module.table.weight.data_ptr()


def test_the_script(tmp_path):
    process = subprocess.run(
        [sys.executable, str(BENCH / "large.py"), "weights", "--small"],
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1", **library_of_these_tests()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0 and process.stderr == ""
    assert "1 of 1   equal" in process.stdout.splitlines()[2]


def library_of_these_tests() -> dict[str, str]:
    from bnfold import _library

    return {"BNFOLD_LIBRARY": str(_library._find()), "PYTHONPATH": str(Path(bnfold.__file__).resolve().parents[1])}


def test_saving_takes_no_memory_of_the_size_of_the_file(tmp_path):
    code = (
        "import sys, torch, large, bnfold\n"
        "with torch.no_grad():\n"
        "    module = bnfold.fold(large.weights(30_000_000)[0]).module\n"
        "before = large.peak()\n"
        "bnfold.save(module, sys.argv[1])\n"
        "print(large.peak() - before)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "model.pt")]
    process = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, check=True)
    assert int(process.stdout) < 20  # megabytes, of a file of 120


SUMS = """
import sys, warnings
import torch
from torch import nn
from torch.nn import functional as F
import bnfold
warnings.simplefilter("ignore")

class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)
        self.norm.running_mean.fill_(0.5)

    def forward(self, x):
        y = self.norm(x)
        for _ in range(40):
            y = (y + F.avg_pool2d(y, 3, 1, 1, count_include_pad=False)) * 0.5
        return self.head(y)

x = torch.randn(1, 3, 4, 4)
with torch.no_grad():
    module = torch.jit.trace(Sums().eval(), x)
    expected = module(x)
    if sys.argv[1] == "fold":
        result = bnfold.fold(module, x).module
    elif sys.argv[1] == "freeze":
        result = bnfold.freeze(module)
    else:
        bnfold.register_pass()
        result = torch.jit.freeze(module, optimize_numerics=False)
    for _ in range(3):
        assert float((result(x) - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
"""


@pytest.mark.parametrize("door", ["fold", "freeze", "pass"])
def test_sums_of_a_value_with_itself_take_no_exponential_time(door):
    # Of 40 sums each doubles the ways to the last one: who goes all of them does not come to an end.
    subprocess.run([sys.executable, "-c", SUMS, door], cwd=BENCH, env={"PATH": "/usr/bin:/bin", **library_of_these_tests()}, check=True, timeout=120)
