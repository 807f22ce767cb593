"""The tables of docs/models.md and docs/field.md: what they say of a network, and that no row hides a problem."""

from __future__ import annotations

import math

import field
import field_table
import pytest
import tables
import torch
import zoo
import zoo_table
from torch import nn

import bnfold

WHOLE = tables.Measurement(norms=3, folded=3, directions={"backward": 2, "forward": 1}, error=2e-15, freeze_leaves=1)
PARTLY = tables.Measurement(norms=3, folded=2, directions={"backward": 2}, kept={"operator_not_affine": 1}, error=1e-15, freeze_leaves=None)
REFUSED = tables.Measurement(norms=3, failure="Error: no forward")


def row(goal=None, exported=None, **measurements: tables.Measurement) -> tables.Row:
    return tables.Row("net", "package", measurements, 1.0, goal, exported or {})


def small_network() -> zoo.Network:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sigmoid(), nn.BatchNorm2d(4)).double().eval()
    inputs, second = (torch.randn(2, 3, 6, 6, dtype=torch.float64) for _ in range(2))
    return zoo.prepare("small", model, (inputs,), (second,))


def test_a_network_is_measured():
    with torch.no_grad():
        measured = tables.measure_spelling(small_network(), "scripted", frozen_norms=False)
    assert (measured.norms, measured.folded, measured.directions, measured.freeze_leaves) == (2, 1, {"backward": 1}, 1)
    assert sum(measured.kept.values()) == 1 and measured.error < 1e-12 and not measured.failure


@pytest.mark.filterwarnings("ignore")  # of torch.export before 2.15
def test_a_network_is_exported():
    with torch.no_grad():
        measurements = tables.measure_exports(small_network())
    assert tuple(measurements) == tables.EXPORTED
    for measured in measurements.values():
        assert (measured.norms, measured.folded, measured.directions, measured.failure) == (2, 1, {"backward": 1}, "")
        assert sum(measured.kept.values()) == 1 and measured.error < 1e-12


class OneBatch(nn.Module):
    """Takes no other batch than two, of which torch.export makes a program for that one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) * (1 if x.shape[0] == 2 else 3)


class NoBatch(OneBatch):
    """Branches on a number, which torch.export does not take."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else x


@pytest.mark.filterwarnings("ignore")  # of torch.export before 2.15
@pytest.mark.parametrize(
    "model, exported",
    [(OneBatch, {"static": True, "dynamic": False, "decomposed": True}), (NoBatch, dict.fromkeys(tables.EXPORTED, False))],
)
def test_what_torch_export_does_not_take_is_said(model, exported):
    with torch.no_grad():
        torch.manual_seed(0)
        inputs, second = (torch.randn(2, 3, 6, 6, dtype=torch.float64) for _ in range(2))
        net = zoo.prepare("odd", model().double().eval(), (inputs,), (second,))
        measurements = tables.measure_exports(net)
    assert {kind: measured.spelled for kind, measured in measurements.items()} == exported
    assert all(bool(measured.failure) != measured.spelled for measured in measurements.values())
    assert row(traced=WHOLE, exported={"dynamic": measurements["dynamic"]}).problems() == []


def test_a_refusal_is_shown_with_its_sentence(monkeypatch):
    def refuse(module):
        raise bnfold.Error("this can't be folded\nmore")

    monkeypatch.setattr(bnfold, "fold", refuse)
    measured = tables.measure_spelling(small_network(), "traced", frozen_norms=False)
    assert measured.failure == "Error: this can't be folded" and measured.spelled
    refused = row(traced=measured)
    assert [line["kept"] for line in tables.cells(refused)] == [measured.failure]
    assert refused.problems() == [f"traced: {measured.failure}"]
    assert field_table.only_spelled(refused).measurements == refused.measurements


def test_of_an_error_inside_of_torchscript_the_last_line_is_shown():
    @torch.jit.script
    def fail(x: torch.Tensor):
        if x.numel() > 0:
            raise RuntimeError("this is why")

    with pytest.raises(torch.jit.Error) as caught:
        fail(torch.ones(1))
    assert tables.sentence(caught.value).endswith("this is why")


def test_what_torchscript_cannot_make_is_left_out_of_the_field():
    class Unscriptable(nn.Module):
        def forward(self, x):
            return x if x.__class__.__name__ == "Tensor" else [*x]

    inputs = (torch.ones(2, 3),)
    net = zoo.Network("odd", Unscriptable(), inputs, *inputs, [], inputs, *inputs)
    measured = tables.measure_spelling(net, "scripted", frozen_norms=False)
    assert measured.failure and not measured.spelled
    assert list(field_table.only_spelled(row(scripted=measured, traced=WHOLE)).measurements) == ["traced"]


def test_a_trace_that_computes_something_else_is_no_measurement():
    class Random(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    inputs = (torch.ones(2, 3, dtype=torch.float64),)
    net = zoo.Network("odd", Random(), inputs, *inputs, [], inputs, *inputs)
    measured = tables.measure_spelling(net, "traced", frozen_norms=False)
    assert not measured.spelled and measured.failure.startswith("TorchScript makes another network of it, with an error of ")


def test_spellings_that_differ_by_rounding_share_a_line():
    (line,) = tables.cells(row(scripted=WHOLE, traced=WHOLE))
    assert (line["TorchScript"], line["folded"], line["backward"], line["forward"], line["sideways"]) == ("both", "3", "2", "1", "")
    lines = list(tables.cells(row(scripted=WHOLE, traced=PARTLY)))
    assert [line["TorchScript"] for line in lines] == ["scripted", "traced"]
    assert "network" not in lines[1]
    assert (lines[1]["kept"], lines[1]["freeze leaves"]) == ("1 operator_not_affine", "fails")


def test_what_is_not_as_it_should_be_is_a_problem():
    assert row(3, traced=WHOLE).problems() == []
    assert row(3, traced=PARTLY).problems() == ["traced: 2 folded instead of 3"]
    assert row(traced=PARTLY).problems() == []
    assert row(traced=REFUSED).problems() == ["traced: Error: no forward"]
    wrong = tables.Measurement(norms=1, folded=1, error=math.nan)
    assert row(traced=wrong).problems() == ["traced: an error of nan"]
    other = zoo_table.ZooRow("net", "timm", {"traced": WHOLE}, 1.0, 3, norms=4)
    assert other.problems() == ["traced: 3 norms ran instead of 4"]


def test_a_program_in_which_fewer_norms_fold_is_a_problem():
    assert row(exported={"static": WHOLE, "dynamic": WHOLE}, traced=WHOLE).problems() == []
    assert row(2, exported={"static": WHOLE, "dynamic": PARTLY}, traced=WHOLE).problems() == ["dynamic: 2 folded instead of 3"]
    assert row(exported={"decomposed": REFUSED}, traced=WHOLE).problems() == ["decomposed: Error: no forward"]
    other = zoo_table.ZooRow("net", "timm", {"traced": WHOLE}, 1.0, 3, {"static": PARTLY}, norms=3)
    assert other.problems() == ["static: 2 folded instead of 3"]


def test_programs_that_fold_alike_share_a_number():
    (line,) = tables.cells(row(exported={"static": WHOLE, "dynamic": WHOLE}, traced=WHOLE))
    assert line["exported"] == "3"
    lines = list(tables.cells(row(exported={"static": WHOLE, "dynamic": PARTLY, "decomposed": REFUSED}, scripted=WHOLE, traced=PARTLY)))
    assert lines[0]["exported"] == "static 3, dynamic 2, decomposed Error: no forward" and "exported" not in lines[1]


def test_the_table_in_markdown_has_a_cell_for_each_heading():
    table = tables.markdown_table(field_table.HEADINGS, [row(scripted=WHOLE, traced=REFUSED)]).splitlines()
    assert {line.count("|") for line in table} == {len(field_table.HEADINGS)}
    assert "s" not in table[0].split(" | ")


def test_the_summary_counts_modules_and_failures():
    whole, refused = row(scripted=WHOLE, traced=PARTLY), row(traced=REFUSED)
    assert tables.summary([whole]).startswith("1 networks, 2 TorchScript modules: 5 of 6 norms folded, every norm of 0")
    exported = row(exported={"static": WHOLE, "dynamic": PARTLY, "decomposed": REFUSED}, traced=WHOLE)
    assert tables.summary([exported]).endswith(" 2 programs of torch.export: 5 of 6 norms folded. Largest error 2e-15. 1 more failed.")
    assert tables.summary([whole]).endswith(" leaves 1 of 3.") and tables.summary([whole, refused]).endswith(" 1 more failed.")


def test_every_network_of_the_field_has_a_package_with_a_version():
    pinned = {line.partition("==")[0].lower() for line in field_table.PACKAGES.read_text().splitlines() if "==" in line}
    assert {one.package for one in field.FIELDS.values()} <= pinned
    assert all(shape and min(shape) > 0 for one in field.FIELDS.values() for shape in one.shapes)
