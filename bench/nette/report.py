"""Writes what a run came to: results.json, and from it a page in HTML and one in Markdown."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jinja2
from files import write_text, written_beside
from plots import TEXT

from . import plots, training
from .tables import Results, environment_table, latency, tables

SOURCE = "published: a post on batch norm folding in the fastai community, on its GPU"


def write(results: Results, classes: bytes | None, folder: Path) -> list[Path]:
    """Writes the pages, the plots that the one in Markdown links to, and results.json. Returns the paths, the pages first.

    ``results``: as bench/imagenette.py puts them together. ``classes``: a JPEG image with one image of each class, None for
    photographs. Raises Error.
    """
    name = "-".join(model["name"] for model in results["models"])
    drawn = {
        model["name"]: {"training": plots.training(model["epochs"]), "latency": plots.latency(model["latency"])}
        for model in results["models"]
    }
    values = _values(results, name)
    encoded = base64.b64encode(classes).decode() if classes else None
    pages = {
        f"{name}.html": _render("report.html.j2", **values, plots=_inline(drawn), classes=encoded),
        f"{name}.md": _render("report.md.j2", **values, classes=encoded),
        "results.json": json.dumps(results, indent=1) + "\n",
        **{f"{model}-{kind}.svg": svg for model, both in drawn.items() for kind, svg in both.items()},
    }
    for file, text in pages.items():
        write_text(folder / file, text)
    if classes:
        with written_beside(folder / f"{name}-classes.jpg") as partial:
            partial.write_bytes(classes)
    return [folder / file for file in pages]


def _values(results: Results, name: str) -> dict[str, Any]:
    """What the templates show beside plots."""
    names = " and ".join(model["name"] for model in results["models"])
    data = "Synthetic images" if results["data"]["synthetic"] else "ImageNette"
    return {
        "results": results,
        "name": name,
        "title": f"{data}: {names} before and after folding",
        "machine": _machine(results["environment"]),
        "comparison": _comparison(results["data"]["synthetic"]),
        "measured": _measured(results),
        "trained": _trained(results["settings"]),
        "environment": environment_table(results),
        "tables": tables,
        "highlights": _highlights,
        "precision": _precision,
    }


def _machine(environment: Results) -> str:
    kind = "virtual machine" if environment["virtual machine"] else "machine"
    cores = "core" if environment["cores"] == 1 else "cores"
    return f"{kind} with {environment['cores']} {cores} ({environment['cpu']}) and {environment['gpu'] or 'no GPU'}"


def _comparison(synthetic: bool) -> str:
    other = "Latency, loss and accuracy here" if synthetic else "Latency here"
    data = " and other data" if synthetic else ""
    return f"{SOURCE[0].upper()}{SOURCE[1:]}. {other} are of another machine{data}: compare what changes, not the values."


def _measured(results: Results) -> str:
    settings, environment = results["settings"], results["environment"]
    first = results["models"][0]["latency"][0]["settings"]
    threads = "1 thread" if environment["threads"] == 1 else f"{environment['threads']} threads"
    place = environment["gpu"] if settings["device"] == "cuda" else f"the CPU with {threads}"
    return (
        f"One image of 3 × {settings['size']} × {settings['size']} at a time, {first['dtype']}, on {place}. "
        f"All variants in turn in random order, {first['runs']} runs of each behind a warm-up. "
        "The last column is the median of the ratios to torch.jit.freeze in the same round."
    )


def _trained(settings: Results) -> str:
    precision = "mixed precision" if settings["device"] == "cuda" else "float32"
    return (
        f"From random weights, by AdamW with a weight decay of {training.WEIGHT_DECAY:g} and a "
        f"one-cycle schedule up to a learning rate of {settings['learning_rate']:g}; batches of {settings['batch']}, "
        f"random crops of 35 to 100 % of an image, and flips; {precision}, seed {settings['seed']}."
    )


def _precision(model: Results) -> str:
    single, double = model["validation"]
    fewer = (
        f" float64 takes long on a CPU: {double['images']} images, evenly spaced." if double["images"] < single["images"] else ""
    )
    return f"Differences of logits are relative to the largest logit of all images.{fewer}"


def _highlights(model: Results) -> list[tuple[str, str]]:
    """The figures at the top of a network, each with what it means."""
    fold, single = model["fold"], model["validation"][0]
    norms = len(fold["folded"]) + len(fold["kept"])
    return [
        (f"{len(fold['folded'])} of {norms}", "batch norms folded"),
        (f"{fold['parameters_before'] - fold['parameters_after']:,}", "parameters fewer"),
        (f"{single['predictions_that_differ']} of {single['images']:,}", "predictions changed"),
        (latency(model), "latency of TorchScript"),
    ]


def _inline(drawn: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The plots as elements of a page, whose text takes the colour of the page."""
    return {
        model: {kind: svg[svg.index("<svg") :].replace(TEXT, "currentColor") for kind, svg in both.items()}
        for model, both in drawn.items()
    }


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html.j2"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(values)
