"""Measures how long a network takes to run, before and after folding, and what is left in it."""

from .counting import Contents, contents, norm_share
from .intervals import median_interval, ratio_interval
from .machine import environment, version
from .settings import TOLERANCES, Settings, require_evaluated, threads
from .timing import Latency, in_turn, latency
from .variants import NO_CUDA, TORCHSCRIPT, VARIANTS, WARM_UP_RUNS, Run, Subject, prepared, sentence

__all__ = [
    "NO_CUDA",
    "TOLERANCES",
    "TORCHSCRIPT",
    "VARIANTS",
    "WARM_UP_RUNS",
    "Contents",
    "Latency",
    "Run",
    "Settings",
    "Subject",
    "contents",
    "environment",
    "in_turn",
    "latency",
    "median_interval",
    "norm_share",
    "prepared",
    "ratio_interval",
    "require_evaluated",
    "sentence",
    "threads",
    "version",
]
