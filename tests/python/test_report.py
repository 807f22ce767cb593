"""What a fold says about itself."""

from __future__ import annotations

import io
import json
import re

import pytest
import torch
import zoo
from cases import double, prepared
from rich.console import Console
from torch import nn

import bnfold


class Mixed(nn.Module):
    """One norm that is folded, one that is not."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.late = nn.BatchNorm2d(5)

    def forward(self, x):
        return self.late(torch.sigmoid(self.norm(self.conv(x))))


@pytest.fixture(scope="module")
def report() -> bnfold.Report:
    return bnfold.fold(prepared(Mixed(), (double(2, 3, 9, 9),))).report


def test_records(report):
    assert report.folded == (bnfold.FoldedNorm(name="norm", direction="backward", into=("conv",)),)
    (kept,) = report.kept
    assert (kept.name, kept.reason) == ("late", "operator_not_affine")
    assert "sigmoid" in kept.detail
    assert kept.source.startswith("test_report.py:")


def test_sizes(report):
    kernel, norm = 3 * 5 * 9 + 5, 10
    assert (report.parameters_before, report.parameters_after) == (kernel + 2 * norm, kernel + norm)
    assert (report.buffers_before, report.buffers_after) == (2 * 11, 10)
    # num_batches_tracked is an int64, as wide as a double.
    assert report.bytes_before == 8 * (report.parameters_before + report.buffers_before)
    assert report.bytes_after == 8 * (report.parameters_after + report.buffers_after)
    assert report.nodes_after < report.nodes_before


def test_sizes_are_those_of_the_module():
    result = zoo.fold_result("resnet18", "scripted")
    assert result.report.parameters_after == sum(value.numel() for value in result.module.parameters())
    assert result.report.buffers_after == sum(value.numel() for value in result.module.buffers())


def test_as_dict_is_json(report):
    content = report.as_dict()
    assert json.loads(json.dumps(content)) == content
    assert bnfold.Report.from_json(json.dumps(content)) == report
    assert content["folded"] == [{"name": "norm", "direction": "backward", "into": ["conv"]}]
    assert set(content["kept"][0]) == {"name", "reason", "detail", "source", "obstacles"}


def test_rich_shows_the_figures_and_every_obstacle(report):
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(report)
    shown = console.export_text()
    assert re.search(r"norms +2 +1 +1 backward", shown)
    assert re.search(rf"parameters +{report.parameters_before} +{report.parameters_after} +-10", shown)
    assert re.search(r"late +backward +operator_not_affine +sigmoid is curved \(test_report.py:\d+\)\n +forward +value_is_output", shown)


def test_obstacles_name_every_way(report):
    (kept,) = report.kept
    ways = {obstacle.way: obstacle for obstacle in kept.obstacles}
    assert (ways["backward"].reason, ways["backward"].detail) == (kept.reason, kept.detail)
    assert ways["forward"].reason == "value_is_output"


def test_table(report):
    lines = str(report).splitlines()
    assert lines[0].split() == ["norms", "folded", "1", "of", "2", "1", "backward"]
    assert lines[1].split() == ["parameters", "160", "->", "150", "-10"]
    assert any(line.startswith("  late  operator_not_affine  (test_report.py:") for line in lines)
    assert all(len(line) <= 100 and line == line.rstrip() for line in lines)
    # The figures stand in columns.
    assert len({line.index("->") for line in lines if "->" in line}) == 1


def test_table_of_a_large_network():
    text = str(zoo.fold_result("resnet50", "scripted").report)
    assert "53  of              53   53 backward" in text
    assert "23,528,522  ->      23,501,962   -26,560" in text
    assert "kept" not in text
