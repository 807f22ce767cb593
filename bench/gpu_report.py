"""Writes the page about one GPU from what scripts/gpu_report.sh has measured: DIR/latency.json, DIR/cuda_graphs/latency.json, and
DIR/tests.txt, what the CUDA tests printed.

    .venv/bin/python bench/gpu_report.py docs/gpu docs/gpu.md
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from files import Error, write_text

#: Milliseconds for one image before and after folding, as a post on batch norm folding in the fastai community measured them.
PUBLISHED = {"vgg16_bn": ("VGG16-BN", 2.77, 2.41), "resnet50": ("ResNet50", 6.17, 4.47)}


def median(results: dict[str, Any], model: str, variant: str) -> str:
    """The median of a variant for one image in float and contiguous, or a dash where it was not measured."""
    wanted = {"batch": 1, "dtype": "float32", "channels_last": False}
    for measurement in results["measurements"]:
        settings = measurement["settings"]
        if measurement["model"] != model or any(settings[name] != value for name, value in wanted.items()):
            continue
        for row in measurement["variants"]:
            if row["variant"] == variant and row["median_ms"] is not None:
                return f"{row['median_ms']:.2f}"
    return "–"


def beside_published(results: dict[str, Any], graphs: dict[str, Any]) -> list[str]:
    lines = [
        "| one image, ms | published | original → bnfold.fold | torch.jit.freeze → bnfold.freeze | the same in CUDA graphs |",
        "|---|--:|--:|--:|--:|",
    ]
    for model, (name, before, after) in PUBLISHED.items():
        scripted = f"{median(results, model, 'original')} → {median(results, model, 'bnfold.fold')}"
        frozen, in_graphs = (
            f"{median(of, model, 'torch.jit.freeze')} → {median(of, model, 'bnfold.freeze')}" for of in (results, graphs)
        )
        lines.append(f"| {name} | {before} → {after} | {scripted} | {frozen} | {in_graphs} |")
    return lines


def page(directory: Path, place: str) -> str:
    """The page in Markdown, for a file from which the directory's files are linked as ``place``/name."""
    results, graphs = (json.loads((directory / name / "latency.json").read_text()) for name in (".", "cuda_graphs"))
    tests = (directory / "tests.txt").read_text().rstrip().splitlines()
    pictures = sorted(path.name for path in directory.glob("*.svg"))
    return "\n".join(
        [
            "# On a GPU",
            "",
            "Written by `scripts/gpu_report.sh`, which runs the CUDA tests and measures.",
            "",
            *(f"- {name}: {value}" for name, value in results["environment"].items() if value is not None),
            "",
            "```console",
            f"$ {results['command']}",
            f"$ {graphs['command']}",
            "```",
            "",
            f"All tables: [{place}/latency.md]({place}/latency.md), and in CUDA graphs: "
            f"[{place}/cuda_graphs/latency.md]({place}/cuda_graphs/latency.md).",
            "",
            "## Beside the published figures",
            "",
            *beside_published(results, graphs),
            "",
            "Published are those of a post on batch norm folding in the fastai community, on its GPU, for networks with 10 classes as here.",
            "",
            *(f"![{name}]({place}/{name})" for name in pictures),
            "",
            "## The tests",
            "",
            "```text",
            tests[-1] if tests else "not run",
            "```",
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()
    try:
        text = page(arguments.directory, os.path.relpath(arguments.directory, arguments.page.parent))
    except OSError as error:
        print(f"gpu_report: {error.filename}: {error.strerror}; scripts/gpu_report.sh makes it", file=sys.stderr)
        return 1
    try:
        write_text(arguments.page, text)
    except Error as error:
        print(f"gpu_report: {error}", file=sys.stderr)
        return 1
    print(f"wrote {arguments.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
