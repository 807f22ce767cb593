"""The tables of the report: figures of a run, rounded to what a reader can use."""

from __future__ import annotations

import collections
import statistics
from typing import Any, NamedTuple

from plots import milliseconds

Results = dict[str, Any]

PUBLISHED = {
    "vgg16_bn": {"parameters": (134_309_962, 134_301_514), "latency_ms": (2.77, 2.41)},
    "resnet50": {"parameters": (23_528_522, 23_501_962), "latency_ms": (6.17, 4.47)},
}


class Table(NamedTuple):
    """The first column is text, the others are figures unless ``texts``. The last cell of a row that is too short is a sentence."""

    headings: list[str]
    rows: list[list[str]]
    texts: bool = False


def tables(model: Results) -> dict[str, Table]:
    """The tables about one network, by what they show."""
    return {
        "summary": summary(model),
        "validation": _validation_table(model["validation"]),
        "latency": _latency_table(model["latency"]),
        "contents": _contents_table(model["contents"]),
        "epochs": _epochs_table(model["epochs"]),
        "kept": Table(["batch norm", "reason"], [[norm["name"], norm["reason"]] for norm in model["fold"]["kept"]], texts=True),
    }


def summary(model: Results) -> Table:
    """What folding changed in a network, beside what the post published of it."""
    fold, single, published = model["fold"], model["validation"][0], PUBLISHED.get(model["name"])
    before, after = single["original"], single["folded"]
    directions = collections.Counter(norm["direction"] for norm in fold["folded"])
    ways = "".join(f", {count} {direction}" for direction, count in directions.items())
    rows = [
        ["batch norms folded", f"{len(fold['folded'])} of {len(fold['folded']) + len(fold['kept'])}{ways}", ""],
        [
            "parameters",
            _integers(fold["parameters_before"], fold["parameters_after"]),
            _integers(*published["parameters"]) if published else "",
        ],
        ["validation loss", f"{before['loss']:.6f} → {after['loss']:.6f}", "the same" if published else ""],
        ["validation accuracy", f"{before['accuracy']:.2%} → {after['accuracy']:.2%}", "the same" if published else ""],
        ["latency of TorchScript", latency(model), _change(*published["latency_ms"]) if published else ""],
    ]
    headings = ["", "this run", "published"]
    return Table(headings, rows) if published else Table(headings[:2], [row[:2] for row in rows])


def _validation_table(comparisons: list[Results]) -> Table:
    def digits(one: Results, network: str) -> str:
        return f"{one[network]['loss']:.{16 if one['dtype'] == 'float64' else 9}f}"

    def accuracy(one: Results, network: str) -> str:
        return f"{round(one[network]['accuracy'] * one['images'])} of {one['images']}"

    rows = [
        ["loss before", *(digits(one, "original") for one in comparisons)],
        ["loss after", *(digits(one, "folded") for one in comparisons)],
        ["correct before", *(accuracy(one, "original") for one in comparisons)],
        ["correct after", *(accuracy(one, "folded") for one in comparisons)],
        ["predictions that differ", *(str(one["predictions_that_differ"]) for one in comparisons)],
        ["largest difference of logits", *(f"{one['largest_difference']:.1e}" for one in comparisons)],
    ]
    return Table(["", *(f"{one['dtype']}, {one['images']:,} images" for one in comparisons)], rows)


def _latency_table(latencies: list[Results]) -> Table:
    rows = []
    for one in latencies:
        if one["unavailable"]:
            rows.append([one["variant"], one["unavailable"]])
        else:
            interval = f"{milliseconds(one['low_ms'])} to {milliseconds(one['high_ms'])}"
            rows.append(
                [one["variant"], milliseconds(one["median_ms"]), interval, "" if one["ratio"] is None else f"{one['ratio']:.2f}"]
            )
    return Table(["variant", "median, ms", "95 % interval, ms", "of torch.jit.freeze"], rows)


def _contents_table(contents: list[Results]) -> Table:
    rows = []
    for one in contents:
        if one["unavailable"]:
            rows.append([one["variant"], one["unavailable"]])
            continue
        kernels = "no GPU" if one["kernels_launched"] is None else f"{one['kernels_launched']:,}"
        counts = (one["parameters"], one["graph_nodes"], one["operators_run"], one["batch_norms_run"])
        rows.append([one["variant"], *(f"{count:,}" for count in counts), kernels])
    return Table(["variant", "parameters", "graph nodes", "operators run", "batch norms run", "kernels launched"], rows)


def _epochs_table(epochs: list[Results]) -> Table:
    rows = []
    for one in epochs:
        training_loss = statistics.fmean(one["step_losses"])
        rows.append(
            [
                str(one["number"]),
                f"{training_loss:.4f}",
                f"{one['validation_loss']:.4f}",
                f"{one['accuracy']:.2%}",
                f"{one['seconds']:.0f}",
            ]
        )
    return Table(["epoch", "training loss", "validation loss", "validation accuracy", "seconds"], rows)


def environment_table(results: Results) -> Table:
    shown = {**results["settings"], **results["environment"]}
    return Table(["", ""], [[name, str(value)] for name, value in shown.items() if value is not None], texts=True)


def _integers(before: int, after: int) -> str:
    return f"{before:,} → {after:,}"


def _change(before: float | None, after: float | None) -> str:
    return f"{milliseconds(before)} → {milliseconds(after)} ms" if before and after else "not measured"


def latency(model: Results) -> str:
    """The median of the TorchScript module before folding and that behind it."""
    medians = {row["variant"]: row["median_ms"] for row in model["latency"]}
    return _change(medians["original"], medians["bnfold.fold"])
