"""Draws the plots of bench/latency.py, as SVG and PNG, for light and dark backgrounds.

    .venv/bin/python bench/plots.py build/latency/latency.json build/plots
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import matplotlib
from files import staged
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DIRECTIONS = ("backward", "forward", "sideways")

# Each has a contrast of 3.5 or more on white and on #0d1117, the backgrounds of GitHub.
TEXT, BLUE, GREEN, ORANGE, PINK = "#757f8a", "#1f7ae0", "#1a9850", "#c9660a", "#d6336c"
ON_COLOUR = "#0d1117"

COLOURS = {"bnfold.fold": ORANGE, "bnfold.freeze": ORANGE, "original": BLUE, "torch.jit.freeze": BLUE}
SPEED_UP_COLOURS = {"original": BLUE, "torch.jit.freeze": ORANGE}
FOLD_COLOURS = {"backward": BLUE, "forward": ORANGE, "sideways": GREEN, "kept": PINK}

# A median with its interval.
POINT = {"fmt": "o", "markersize": 6, "elinewidth": 2, "capsize": 4, "capthick": 2}

STYLE = {
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": TEXT,
    "axes.titleweight": "bold",
    "font.size": 12,
    "grid.alpha": 0.25,
    "grid.color": TEXT,
    "legend.frameon": False,
    "savefig.transparent": True,
    "svg.hashsalt": "bnfold",  # the same results give the same file
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
}


class Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.removesuffix('.py')}: {message}; --help lists the options\n")


def milliseconds(value: float) -> str:
    """A duration with three digits or more."""
    decimals = next((digits for digits, limit in enumerate((100, 10, 1)) if value >= limit), 3)
    return f"{value:,.{decimals}f}"


def title(settings: dict[str, Any]) -> str:
    """The settings of a measurement in words."""
    layout = "channels_last" if settings["channels_last"] else "contiguous"
    count = settings["threads"]
    threads = f", {count} thread{'s' if count > 1 else ''}" if count else ""
    graphs = ", CUDA graphs" if settings["cuda_graphs"] else ""
    device = f"{settings['device']}{graphs}{threads}"
    return f"batch {settings['batch']}, {settings['dtype']}, {layout}, {device}, {settings['runs']} runs"


def stem(kind: str, settings: dict[str, Any] | None = None) -> str:
    """The name of the files of a plot, without their suffix."""
    if settings is None:
        return kind
    return f"{kind}_batch{settings['batch']}_{settings['dtype']}_{'channels_last' if settings['channels_last'] else 'contiguous'}"


def by_settings(results: dict[str, Any]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The measurements of each setting, which lie behind each other."""
    for settings, group in itertools.groupby(results["measurements"], key=lambda measurement: measurement["settings"]):
        yield settings, list(group)


def draw(results: dict[str, Any], directory: Path) -> list[Path]:
    """Draws what bench/latency.py measured into ``directory``, which exists; the paths of the files.

    ``results`` is the content of latency.json. A plot that would be empty is left out, as that of a device that is not there.
    Raises KeyError or TypeError where ``results`` are of another form, and OSError where a file can't be written.
    """
    figures: dict[str, Figure] = {}
    with matplotlib.rc_context(STYLE):
        for settings, measurements in by_settings(results):
            if measured := [one for one in measurements if any(row["median_ms"] for row in one["variants"])]:
                figures[stem("latency", settings)] = latency_figure(measured, title(settings))
            if compared := [one for one in measurements if one["speed_up"] and one["norm_share"] is not None]:
                figures[stem("speed_up", settings)] = speed_up_figure(compared, title(settings))
        if folded := [model for model in results["models"] if model["folds"]]:
            figures["folds"] = folds_figure(folded)
        return [save(figure, directory / f"{name}{suffix}") for name, figure in figures.items() for suffix in (".svg", ".png")]


def save(figure: Figure, path: Path) -> Path:
    # The date would make each file a new one.
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata=metadata)
    return path


# ---- latency


def latency_figure(measurements: Sequence[dict[str, Any]], heading: str) -> Figure:
    """The median and its interval for each variant, a panel for each network."""
    columns = min(3, len(measurements))
    rows = math.ceil(len(measurements) / columns)
    variants = max(len(measurement["variants"]) for measurement in measurements)
    figure = Figure(figsize=(2.6 + 3.4 * columns, rows * (1.1 + 0.36 * variants)), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel, measurement in zip(panels, measurements):
        draw_latencies(panel, measurement["variants"])
        panel.set_title(measurement["model"])
    for panel in panels[len(measurements) :]:
        panel.remove()
    figure.suptitle(f"Latency: {heading}", fontsize=12)
    figure.supxlabel("median of the runs and its 95 % interval, ms", fontsize=12)
    return figure


def draw_latencies(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """The median and its interval for each variant, one below the other."""
    longest = max((row["high_ms"] for row in rows if row["median_ms"]), default=1)
    for position, row in enumerate(rows):
        if row["median_ms"] is None:
            axes.text(0.02 * longest, position, "not measured", va="center", fontsize=10, style="italic")
            continue
        spread = [[row["median_ms"] - row["low_ms"]], [row["high_ms"] - row["median_ms"]]]
        colour = COLOURS.get(row["variant"], TEXT)
        axes.barh(position, row["median_ms"], height=0.62, color=colour, alpha=0.4)
        axes.errorbar(row["median_ms"], position, xerr=spread, color=colour, **POINT)
        axes.text(row["high_ms"] + 0.04 * longest, position, milliseconds(row["median_ms"]), va="center", fontsize=11)
    axes.set_yticks(range(len(rows)), [row["variant"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.25)
    axes.tick_params(left=False)
    axes.spines.left.set_visible(False)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.set_axisbelow(True)


# ---- speed-up


def speed_up_figure(measurements: Sequence[dict[str, Any]], heading: str) -> Figure:
    """How many times faster bnfold.freeze is, against the share of the time that norms take in the original."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.axhline(1, color=TEXT, linewidth=1)
    edge = max(5.0, *(120 * measurement["norm_share"] for measurement in measurements))
    for aside, (base, colour) in zip((-0.006 * edge, 0.006 * edge), SPEED_UP_COLOURS.items()):
        points = [(100 * one["norm_share"] + aside, *one["speed_up"][base]) for one in measurements if base in one["speed_up"]]
        if not points:
            continue
        shares, medians, lows, highs = zip(*points)
        spreads = [[m - low for m, low in zip(medians, lows)], [high - m for m, high in zip(medians, highs)]]
        axes.errorbar(shares, medians, yerr=spreads, color=colour, label=f"over {base}", **POINT)
    axes.set_xlabel("share of the operators' time that norms take in the original, %")
    axes.set_ylabel("speed-up, with its 95 % interval")
    axes.set_xlim(0, edge)
    axes.margins(y=0.15)
    axes.grid()
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    figure.suptitle(f"Speed-up by bnfold.freeze: {heading}", fontsize=12)
    name_points(axes, measurements)
    return figure


def name_points(axes: Axes, measurements: Sequence[dict[str, Any]]) -> None:
    """Writes the name of each network above its points, higher where another name stands already."""
    axes.figure.draw_without_rendering()  # the layout decides which names overlap
    taken = []
    for measurement in measurements:
        place = (100 * measurement["norm_share"], max(high for _, _, high in measurement["speed_up"].values()))
        name = axes.annotate(measurement["model"], place, (0, 6), textcoords="offset points", ha="center", va="bottom", fontsize=11)
        while any(name.get_window_extent().overlaps(other) for other in taken):
            name.set_position((0, name.get_position()[1] + 4))
        taken.append(name.get_window_extent())


# ---- folds


def folds_figure(models: Sequence[dict[str, Any]]) -> Figure:
    """The norms of each network by the direction in which they went, and those that were kept."""
    figure = Figure(figsize=(9, 1.4 + 0.5 * len(models)), layout="constrained")
    axes = figure.subplots()
    longest = max(1, *(sum(model["folds"].values()) for model in models))
    starts = [0] * len(models)
    for kind, colour in FOLD_COLOURS.items():
        counts = [model["folds"][kind] for model in models]
        axes.barh(range(len(models)), counts, left=starts, height=0.62, color=colour, label=kind)
        for position, (start, count) in enumerate(zip(starts, counts)):
            if count > 0.03 * longest:
                place = (start + count / 2, position)
                axes.text(*place, str(count), ha="center", va="center", fontsize=11, fontweight="bold", color=ON_COLOUR)
        starts = [start + count for start, count in zip(starts, counts)]
    for position, total in enumerate(starts):
        axes.text(total + 0.01 * longest, position, str(total), va="center", fontsize=11)
    axes.set_yticks(range(len(models)), [model["name"] for model in models])
    axes.set_ylim(len(models) - 0.4, -0.6)
    axes.set_xlim(0, longest * 1.08)
    axes.set_xlabel("norms")
    axes.tick_params(left=False)
    axes.spines.left.set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(FOLD_COLOURS))
    figure.suptitle("Norms by the direction in which they were folded", fontsize=12)
    return figure


# ---- the command


def fail(status: int, message: str) -> int:
    print(f"plots: {message}", file=sys.stderr)
    return status


def main() -> int:
    parser = Parser(prog="plots.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="latency.json", help="what bench/latency.py wrote")
    parser.add_argument("directory", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    try:
        results = json.loads(arguments.results.read_text())
    except OSError as error:
        return fail(2, f"can't read {arguments.results}: {error.strerror}")
    except ValueError:
        return fail(2, f"{arguments.results} is no JSON; pass the latency.json that bench/latency.py wrote")
    try:
        arguments.directory.mkdir(parents=True, exist_ok=True)
        with staged(arguments.directory) as staging:
            draw(results, staging)
    except (KeyError, TypeError):
        return fail(2, f"{arguments.results} is not from bench/latency.py of this version; measure again")
    except OSError as error:
        return fail(1, f"can't write to {arguments.directory}: {error.strerror}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
