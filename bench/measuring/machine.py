"""Where it is measured."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
from typing import Any

import torch

from .settings import Settings, without_deprecation_warnings


def environment(settings: Settings) -> dict[str, Any]:
    """What the figures depend on beside the network, as strings, numbers, booleans and None."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    with without_deprecation_warnings():
        return {
            "date": datetime.date.today().isoformat(),
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "threads": settings.threads or torch.get_num_threads(),
            "load_average": round(os.getloadavg()[0], 1),
            "gpu": gpu,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version(name) for name in ("torchvision", "timm", "onnxruntime", "openvino")},
            "cuda": torch.version.cuda if gpu else None,
            "cudnn": torch.backends.cudnn.version() if gpu else None,
            "cudnn.benchmark": torch.backends.cudnn.benchmark,
            "cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
        }


def _cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
