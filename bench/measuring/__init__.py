"""Measures how long a network takes to run, before and after folding, and what is left in it."""

from .counting import Contents, contents, norm_share
from .intervals import median_interval, ratio_interval
from .machine import environment, version
from .settings import TOLERANCES, Settings, require_evaluated, threads
from .tables import add_options, print_table, table
from .timing import Latency, latency, warmed_up_in_turn
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
    "add_options",
    "contents",
    "environment",
    "latency",
    "median_interval",
    "norm_share",
    "prepared",
    "print_table",
    "ratio_interval",
    "require_evaluated",
    "sentence",
    "table",
    "threads",
    "version",
    "warmed_up_in_turn",
]
