"""A wheel, built as pip builds it and installed into an environment of its own, and the command that it brings."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from cases import double, prepared
from tested import BUILD
from torch import nn

ROOT = Path(__file__).resolve().parents[2]

# Where a library from elsewhere is tested, there is no build directory to build a wheel in.
pytestmark = pytest.mark.skipif(not (BUILD / "CMakeCache.txt").is_file(), reason="the library tested is in no build directory")


def run(*command: object) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "BNFOLD_LIBRARY")}
    return subprocess.run([str(part) for part in command], env=environment, cwd="/", capture_output=True, text=True)


def done(*command: object) -> str:
    result = run(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, compiled in a folder of the build directory so that only what changed is compiled again."""
    directory = tmp_path_factory.mktemp("wheel")
    # What is tested is what is in it: without optimization it compiles in half the time.
    settings = (f"build-dir={BUILD / 'wheel'}", "cmake.define.CMAKE_CXX_FLAGS_RELEASE=-O0")
    options = ("--no-deps", "--no-build-isolation", *(part for setting in settings for part in ("--config-settings", setting)), "-w", directory)
    done(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", *options, ROOT)
    (path,) = directory.iterdir()
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The Python of a new environment that holds the wheel, and PyTorch by reference, as it takes 5 GB."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=True, symlinks=True)
    python = directory / "bin" / "python"
    done(python, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index", wheel)
    site = Path(done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Appended, so that a bnfold there comes after the one of the wheel.
    (site / "pytorch.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "model.pt"
    layers = prepared(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)), (double(2, 3, 9, 9),))
    torch.jit.script(layers).save(str(path))
    return path


def test_what_is_in_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {"bnfold/__init__.py", "bnfold/py.typed", "bnfold/libbnfold_ops.so", "bnfold/bin/bnfold"} <= set(names)
    assert all(name.startswith(("bnfold/", "bnfold-")) for name in names)
    assert wheel.name.startswith("bnfold-") and "-py3-none-linux" in wheel.name


def test_folds_in_an_environment_of_its_own(python, model):
    code = f"import bnfold; print(bnfold.__file__); print(bnfold.fold({str(model)!r}).report)"
    text = done(python, "-W", "ignore", "-c", code)
    assert str(python.parents[1]) in text and "1  of" in text


@pytest.mark.parametrize("command", [["-m", "bnfold"], None])
def test_the_program(command, python, model, tmp_path):
    program = [python, "-W", "ignore", *command] if command else [python.parent / "bnfold"]
    folded = tmp_path / "folded.pt"
    done(*program, model, folded, "--input", "2,3,9,9", "--check", "1")
    assert not any("running_mean" in name for name in torch.jit.load(folded).state_dict())
    assert run(*program, "missing.pt", folded).returncode == 3


def test_beside_another_torch(python):
    package = Path(done(python, "-W", "ignore", "-c", "import bnfold; print(bnfold.__file__)").strip()).parent
    record = package / "libbnfold_ops.torch_version"
    built = record.read_text()
    record.write_text("1.99.0\n")
    try:
        result = run(python, "-W", "ignore", "-c", "import bnfold")
    finally:
        record.write_text(built)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError:") and "was built for torch 1.99.0, and this is torch" in last
    assert "pip install --force-reinstall --no-deps" in last


def test_the_versions_agree(python):
    expected = done(python, "-W", "ignore", "-c", "import bnfold; print(bnfold.__version__)").strip()
    assert done(python.parent / "bnfold", "--version").split()[-1] == expected
    metadata = "import importlib.metadata as m; print(m.version('bnfold'))"
    assert done(python, "-c", metadata).strip() == expected
