"""Medians with confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """The median of independent samples, and the lower and upper end of a confidence interval of the true median.

    The ends are the samples of ranks l and n + 1 - l, for the largest l that covers the median with at least ``confidence``. As the
    number of samples below the median is binomial with p = 1/2, whatever the distribution, the coverage is 1 - 2 P(B <= l - 1).
    Source: David and Nagaraja, Order Statistics, 3rd edition (2003), section 7.1.

    Raises ValueError where there are too few samples for that, as 5 for 0.95.
    """
    count = len(samples)
    rank, missed = 0, 0.0
    while rank < count and 2 * (missed + math.comb(count, rank) / 2**count) <= 1 - confidence:
        missed += math.comb(count, rank) / 2**count
        rank += 1
    if rank == 0:
        raise ValueError(f"{count} samples have no {confidence:.0%} interval of the median")
    ordered = sorted(samples)
    return statistics.median(ordered), ordered[rank - 1], ordered[count - rank]


def ratio_interval(runs: Sequence[float], base: Sequence[float]) -> tuple[float, float, float]:
    """Median and 95 % interval of ``runs`` over ``base``, paired by rounds: what slows down a round slows down both."""
    return median_interval([one / other for one, other in zip(runs, base, strict=True)])
