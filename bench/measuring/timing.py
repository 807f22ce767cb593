"""How long a network takes to run, before and after folding."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Mapping, Sequence

import torch

from .intervals import median_interval, ratio_interval
from .settings import TOLERANCES, Settings, require_evaluated, threads, without_deprecation_warnings
from .variants import NO_CUDA, VARIANTS, WARM_UP_RUNS, Run, Subject, Unavailable, for_each, prepared, tensors_of

SHORTEST_MS = 1.0  # what is shorter is run several times between two readings of the clock


@dataclasses.dataclass
class Latency:
    """How long one variant takes for a batch. Without figures, ``unavailable`` says why."""

    variant: str
    settings: Settings
    median_ms: float | None = None
    low_ms: float | None = None  #: the 95 % confidence interval of the median
    high_ms: float | None = None
    ratio: float | None = None  #: median of the ratios to torch.jit.freeze in the same round
    ratio_low: float | None = None
    ratio_high: float | None = None
    warm_up_ms: list[float] = dataclasses.field(default_factory=list)  #: the first runs, in order; not in the median
    runs_ms: list[float] = dataclasses.field(default_factory=list)  #: the timed runs, one a round
    unavailable: str | None = None


def latency(
    model: torch.nn.Module, image_size: tuple[int, ...], settings: Settings, variants: Sequence[str] = VARIANTS
) -> list[Latency]:
    """Times ``variants`` of ``model`` on the same batch of random images, one :class:`Latency` for each, in their order.

    ``model``: an nn.Module in eval mode, or a ScriptModule that is not frozen; it stays as it was. ``image_size``: channels, height
    and width, for a clip channels, time, height and width; the model gets a batch of them.

    After a warm-up each variant runs once in each round, in random order, so that what slows the machine down slows down all of
    them. An untimed run goes before each timed one: it finds the caches as in a program that runs nothing else. A variant that
    fails, or whose output is not that of ``model`` within the tolerance of the dtype, has no figures.

    Raises ValueError for an unknown variant, and where the model trains or is frozen.
    """
    require_evaluated(model)
    if unknown := [variant for variant in variants if variant not in VARIANTS]:
        raise ValueError(f"there is no variant '{unknown[0]}'; the variants are {', '.join(VARIANTS)}")
    rows = [Latency(variant, settings) for variant in variants]
    if settings.device == "cuda" and not torch.cuda.is_available():
        return [dataclasses.replace(row, unavailable=NO_CUDA) for row in rows]
    with threads(settings.threads), without_deprecation_warnings(), torch.inference_mode():
        subject = Subject.create(model, image_size, settings)
        runs: dict[str, Run] = {}

        def warm_up(row: Latency) -> None:
            run = runs[row.variant] = prepared(subject, row.variant)
            row.warm_up_ms = [_milliseconds(run, 1, settings.device) for _ in range(WARM_UP_RUNS)]
            _require_agreement(subject, tensors_of(run()))

        for_each(rows, warm_up)
        available = [row for row in rows if row.unavailable is None]
        repeats = {row.variant: math.ceil(SHORTEST_MS / min(row.warm_up_ms)) for row in available}
        milliseconds = in_turn({variant: runs[variant] for variant in repeats}, repeats, settings)
        for row in available:
            row.runs_ms = milliseconds[row.variant]
    _summarise(available)
    return rows


def in_turn(runs: Mapping[str, Run], repeats: Mapping[str, int], settings: Settings) -> dict[str, list[float]]:
    """The milliseconds that each of ``runs`` takes in each round: they run in random order, each behind one that is not timed."""
    milliseconds: dict[str, list[float]] = {name: [] for name in runs}
    order, generator = list(runs), random.Random(0)
    for _ in range(settings.runs):
        generator.shuffle(order)
        for name in order:
            runs[name]()
            milliseconds[name].append(_milliseconds(runs[name], repeats[name], settings.device))
    return milliseconds


def warmed_up_in_turn(runs: Mapping[str, Run], settings: Settings) -> dict[str, list[float]]:
    """The same of runs that are long, once all are warmed up."""
    for run in runs.values():
        for _ in range(WARM_UP_RUNS):
            run()
    return in_turn(runs, dict.fromkeys(runs, 1), settings)


def _summarise(rows: list[Latency]) -> None:
    frozen = next((row for row in rows if row.variant == "torch.jit.freeze"), None)
    for row in rows:
        row.median_ms, row.low_ms, row.high_ms = median_interval(row.runs_ms)
        if frozen is not None:
            row.ratio, row.ratio_low, row.ratio_high = ratio_interval(row.runs_ms, frozen.runs_ms)


def _milliseconds(run: Run, repeats: int, device: str) -> float:
    """One of ``repeats`` runs, launches and the wait for the result included."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / repeats
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) * 1e3 / repeats


def _require_agreement(subject: Subject, outputs: list[torch.Tensor]) -> None:
    if [value.shape for value in outputs] != [value.shape for value in subject.outputs]:
        raise Unavailable("its outputs have other shapes than those of the original")
    pairs = [(one.double(), other.double()) for one, other in zip(subject.outputs, outputs)]
    errors = [((one - other).abs().max() / one.abs().max()).item() for one, other in pairs if not torch.equal(one, other)]
    tolerance = _tolerance(subject.settings)
    if wrong := [error for error in errors if not error <= tolerance]:
        raise Unavailable(f"its output is off by {wrong[0]:.1e} of the largest value, where {tolerance:.0e} is the tolerance")


def _tolerance(settings: Settings) -> float:
    # In TF32, numbers have the mantissa of half.
    tf32 = settings.device == "cuda" and (torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    return TOLERANCES[torch.float16 if tf32 and settings.dtype == torch.float32 else settings.dtype]
