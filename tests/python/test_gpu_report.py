"""The page about a GPU, made from figures that are made up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def results(command: str, medians: dict[str, float | None], **changed) -> str:
    settings = {"batch": 1, "dtype": "float32", "channels_last": False, **changed}
    variants = [{"variant": name, "median_ms": median} for name, median in medians.items()]
    measured = [{"model": "resnet50", "settings": settings, "variants": variants}]
    return json.dumps({"command": command, "environment": {"gpu": "Some GPU", "openvino": None}, "measurements": measured})


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    (tmp_path / "gpu" / "cuda_graphs").mkdir(parents=True)
    medians = {"original": 5, "torch.jit.freeze": 4, "bnfold.fold": 3.5, "bnfold.freeze": 3}
    (tmp_path / "gpu/latency.json").write_text(results("latency", medians))
    (tmp_path / "gpu/cuda_graphs/latency.json").write_text(results("graphs", {**medians, "bnfold.freeze": None}))
    (tmp_path / "gpu/tests.txt").write_text("....\n4 passed in 1.0s\n")
    (tmp_path / "gpu/folds.svg").write_text("<svg/>")
    return tmp_path


def run(directory: Path) -> subprocess.CompletedProcess:
    script = [sys.executable, ROOT / "bench/gpu_report.py", directory / "gpu", directory / "gpu.md"]
    return subprocess.run(script, capture_output=True, text=True)


def test_the_page(measured):
    assert run(measured).returncode == 0
    page = (measured / "gpu.md").read_text()
    assert "| ResNet50 | 6.17 → 4.47 | 5.00 → 3.50 | 4.00 → 3.00 | 4.00 → – |" in page
    assert "| VGG16-BN | 2.77 → 2.41 | – → – | – → – | – → – |" in page
    assert "- gpu: Some GPU\n" in page and "openvino" not in page
    assert "$ latency\n$ graphs\n" in page and "4 passed" in page and "![folds.svg](gpu/folds.svg)" in page


def test_figures_of_other_settings_are_not_those_of_one_image(measured):
    (measured / "gpu/latency.json").write_text(results("latency", {"original": 9}, batch=8))
    assert run(measured).returncode == 0
    assert "9.00" not in (measured / "gpu.md").read_text()


def test_what_is_missing_is_named(measured):
    (measured / "gpu/tests.txt").unlink()
    result = run(measured)
    assert result.returncode == 1 and "tests.txt: No such file" in result.stderr and "scripts/gpu_report.sh makes it" in result.stderr
    assert not (measured / "gpu.md").exists()
