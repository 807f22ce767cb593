"""Draws the plots of the report, as SVG that is legible on light and dark backgrounds alike."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from plots import BLUE, ORANGE, STYLE, draw_latencies

# Text stays text, which a page can give its own colour and font.
REPORT_STYLE = {
    **STYLE,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.titlelocation": "left",
    "font.size": 10,
    "svg.fonttype": "none",
}


def training(epochs: list[dict[str, Any]]) -> str:
    """Loss and accuracy over the epochs of training, as SVG."""
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(8.4, 3.0), layout="constrained")
        losses, accuracies = figure.subplots(1, 2)
        _draw_losses(losses, epochs)
        _draw_accuracies(accuracies, epochs)
        for axes in (losses, accuracies):
            axes.set_xlabel("epoch")
            axes.set_xlim(0, len(epochs) + 0.3)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure)


def _draw_losses(axes: Axes, epochs: list[dict[str, Any]]) -> None:
    steps = [
        (epoch["number"] - 1 + (step + 1) / len(epoch["step_losses"]), loss)
        for epoch in epochs
        for step, loss in enumerate(epoch["step_losses"])
    ]
    axes.plot(*zip(*steps), color=BLUE, linewidth=1, label="training, each batch")
    validation = [(epoch["number"], epoch["validation_loss"]) for epoch in epochs]
    axes.plot(*zip(*validation), "o-", color=ORANGE, label="validation")
    # In the first epochs the running statistics of the norms lag behind, and the validation loss can be huge.
    axes.set_ylim(0, 1.3 * max(loss for _, loss in steps))
    axes.set_title("Cross entropy")
    axes.legend(loc="upper right")


def _draw_accuracies(axes: Axes, epochs: list[dict[str, Any]]) -> None:
    points = [(epoch["number"], epoch["accuracy"]) for epoch in epochs]
    axes.plot(*zip(*points), "o-", color=ORANGE)
    for point in points:
        axes.annotate(f"{point[1]:.1%}", point, (2, 8), textcoords="offset points", ha="right")
    axes.set_ylim(0, 1.12)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title("Accuracy on the validation images")


def latency(rows: list[dict[str, Any]]) -> str:
    """The latency of every variant with the 95 % interval of its median, as SVG."""
    with matplotlib.rc_context(REPORT_STYLE):
        figure = Figure(figsize=(8.4, 0.9 + 0.36 * len(rows)), layout="constrained")
        axes: Axes = figure.subplots()
        draw_latencies(axes, rows)
        axes.set_xlabel("milliseconds for a batch: the median, and its 95 % interval")
        return _svg(figure)


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return text.getvalue()
