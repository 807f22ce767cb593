"""How a network is run."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import torch

FEWEST_RUNS = 6  # with fewer, no order statistics enclose the median with 95 %

# Those of docs/checking.md, relative to the largest output.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a network is run. Raises ValueError for what can't be measured."""

    batch: int = 1
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    device: str = "cpu"  #: "cpu" or "cuda"
    runs: int = 30  #: timed ones of each variant
    threads: int | None = None  #: of an operator on the CPU; None leaves them as they are
    cuda_graphs: bool = False  #: captures the run in a CUDA graph and times its replay

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"device must be cpu or cuda, not '{self.device}'")
        if self.dtype not in TOLERANCES:
            raise ValueError(f"dtype must be float64, float32, float16 or bfloat16, not {self.dtype}")
        if self.batch < 1 or (self.threads is not None and self.threads < 1):
            raise ValueError("batch and threads must be at least 1")
        if self.runs < FEWEST_RUNS:
            raise ValueError(f"runs must be at least {FEWEST_RUNS}: fewer have no 95 % interval of the median")
        if self.cuda_graphs and self.device != "cuda":
            raise ValueError("cuda_graphs needs the device cuda")

    def as_dict(self) -> dict[str, Any]:
        """Numbers, strings and None only, with the members of this class."""
        return {**dataclasses.asdict(self), "dtype": str(self.dtype).removeprefix("torch.")}


def require_evaluated(model: torch.nn.Module, name: str = "the model") -> None:
    """Raises ValueError, with ``name`` in its sentence, where a model can't be measured: it trains, or it is frozen already."""
    if not hasattr(model, "training"):
        raise ValueError(f"{name} is frozen; measure what was given to torch.jit.freeze")
    if model.training:
        raise ValueError(f"{name} is in training mode; call .eval() on it first")


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def without_deprecation_warnings() -> Iterator[None]:
    """TorchScript's end and the exporters' changes are no news here. What was frozen without folding must not pass for folded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("error", message="frozen without folding")
        yield
