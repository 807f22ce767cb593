"""What comes behind a fold takes what was folded: the consumers that cost little, and what docs/consumers.md says of the others.

tests/consumers hands whole networks to all of them, in an environment of its own.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import consumers_table
import networks
import pytest
import torch
import with_onnxruntime
from calibrate import calibrate, relative_error
from consumer import decomposed, norms_in
from consumers_table import Case, Outcome
from torch import nn

import bnfold

pytestmark = pytest.mark.filterwarnings("ignore")  # what PyTorch says of TorchScript and of its exporters

CHEAP = ("lite_interpreter", "optimize_for_inference", "onnxruntime", "onnx_dynamo")


@pytest.mark.parametrize("spelling", ["scripted", "traced"])
@pytest.mark.parametrize("network", networks.OWN)
@pytest.mark.parametrize("name", CHEAP)
def test_a_folded_file_is_taken(name, network, spelling, tmp_path):
    if name == "onnx_dynamo":
        pytest.importorskip("onnxscript")
    one = networks.subject(network)
    module, inputs = networks.module_of(one, networks.Form(spelling, channels_last=False))
    consumer = consumers_table.consumer_of(name)
    result = bnfold.fold(module, example_inputs=inputs, target=consumer.target)
    converted = consumers_table.module_of(name).convert(networks.save(result.module, tmp_path / "folded"), inputs, tmp_path)
    assert relative_error(one.output, converted.run()) < consumer.tolerance
    assert converted.norms <= len(result.report.kept)


@pytest.mark.parametrize("network", networks.OWN)
def test_a_folded_program_is_taken(network, tmp_path):
    pytest.importorskip("onnxscript")
    one = networks.subject(network)
    module, inputs = networks.module_of(one, networks.Form("exported", channels_last=False))
    converted = consumers_table.module_of("onnx_dynamo").convert(
        networks.save_folded(module, inputs, "onnxruntime", tmp_path / "folded"), inputs, tmp_path
    )
    assert relative_error(one.output, converted.run()) < 1e-4


def test_a_form_in_channels_last_leaves_the_network_as_it_is():
    one = networks.subject("U-Net")
    networks.module_of(one, networks.Form("scripted", channels_last=True))
    assert all(weight.is_contiguous() for weight in one.model.parameters())


# ---- what is lost on the way


def linear_and_norm() -> nn.Module:
    """Its norm works along L of [N, L, F], and has as many channels as there are features."""
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval()
    calibrate(model, (torch.randn(8, 6),))
    return model


OTHERS = ("onnxruntime", "openvino", "ncnn", "coreml")


def checks_ranks(module: torch.jit.ScriptModule) -> bool:
    """Whether it has a check of bnfold's. What a norm itself checks of its input stays with it."""
    return "a batch norm was folded into this layer" in str(module.inlined_graph)


@pytest.mark.parametrize("target", OTHERS)
def test_nothing_is_left_to_be_checked_that_a_conversion_would_lose(target):
    module, value = torch.jit.script(linear_and_norm()), torch.randn(2, 4, 6)
    assert checks_ranks(bnfold.fold(module).module)
    for options in ({}, {"example_inputs": value}):
        result = bnfold.fold(module, target=target, **options)
        assert not checks_ranks(result.module) and len(result.report.kept) == 1
        assert relative_error(module(value), result.module(value)) < 1e-6


@pytest.mark.parametrize("target", OTHERS)
def test_with_example_inputs_a_fold_needs_no_check(target):
    module, value = torch.jit.script(linear_and_norm()), torch.randn(2, 6)
    result = bnfold.fold(module, example_inputs=value, target=target)
    assert not checks_ranks(result.module) and not result.report.kept
    assert relative_error(module(value), result.module(value)) < 1e-6


def test_freezing_takes_a_norm_behind_a_linear_layer_for_one_of_features():
    # As README and docs/reasons.md say. Where this fails, they say so no longer.
    module, value = torch.jit.script(linear_and_norm()), torch.randn(2, 4, 6)
    assert relative_error(module(value), torch.jit.freeze(module)(value)) > 1e-2
    assert relative_error(module(value), bnfold.freeze(bnfold.fold(module, example_inputs=value).module)(value)) < 1e-6


@pytest.mark.parametrize("bias, dynamo, norms", [(True, False, 1), (False, False, 0), (True, True, 0), (False, True, 0)])
def test_onnx_runtime_keeps_a_norm_behind_a_linear_layer_with_bias_by_the_older_exporter_alone(bias, dynamo, norms, tmp_path):
    if dynamo:
        pytest.importorskip("onnxscript")
    model, value = nn.Sequential(nn.Tanh(), nn.Linear(6, 4, bias=bias), nn.BatchNorm1d(4), nn.Tanh()).eval(), torch.randn(2, 6)
    calibrate(model, (torch.randn(8, 6),))
    torch.onnx.export(model, (value,), str(tmp_path / "model.onnx"), dynamo=dynamo, verbose=False)
    assert with_onnxruntime.session_of(tmp_path / "model.onnx", (value,)).norms == norms


def test_the_older_exporter_meets_the_check_where_it_runs_the_module():
    folded = bnfold.fold(torch.jit.script(linear_and_norm())).module
    with pytest.raises(torch.jit.Error, match="folded into this layer for inputs of rank 2"):
        torch.onnx.export(folded, (torch.randn(2, 4, 6),), io.BytesIO(), dynamo=False)


def test_what_optimize_for_inference_returns_is_saved_and_not_loaded_again(tmp_path):
    # With and without bnfold, as the documentation says. Where this fails, it says so no longer.
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    for module in (torch.jit.script(model), bnfold.fold(model).module):
        torch.jit.optimize_for_inference(module).save(str(tmp_path / "optimized.pt"))
        with pytest.raises(RuntimeError, match="required keyword attribute 'value' is undefined"):
            torch.jit.load(str(tmp_path / "optimized.pt"))


def test_what_bnfold_freezes_becomes_an_exported_program_whatever_its_constants_are_called(tmp_path):
    # The name of layer 1 begins that of layer 10.
    layers = [layer for _ in range(12) for layer in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU())]
    model, images = nn.Sequential(*layers).eval(), torch.randn(1, 3, 8, 8)
    calibrate(model, (images,))
    for _ in range(2):  # names are counted on in one process
        bnfold.freeze(torch.jit.script(model)).save(str(tmp_path / "frozen.pt"))
        program = decomposed(tmp_path / "frozen.pt", (images,))
        assert relative_error(model(images), program.module()(images)) < 1e-4


# ---- the table

GOOD, NORMED = Outcome(norms=0, error=1e-6), Outcome(norms=3, error=1e-6)
WRONG, REFUSED, MADE = Outcome(error=0.5), Outcome(failure="RuntimeError: no such | operator"), Outcome(norms=1)


def case(before: Outcome, after: Outcome, form: str = "scripted") -> Case:
    return Case("onnxruntime", "ResNet18", form, 20, before, after)


def test_a_file_is_taken_where_its_result_is_right():
    assert GOOD.taken(1e-4) and MADE.taken(1e-4) and not WRONG.taken(1e-4) and not REFUSED.taken(1e-4)


def test_a_network_has_its_files_before_and_after():
    assert consumers_table.cell([case(GOOD, GOOD), case(REFUSED, GOOD)], 1e-4) == "1 to 2 of 2"
    assert consumers_table.cell([case(NORMED, GOOD), case(WRONG, REFUSED)], 1e-4) == "1 of 2"


def test_a_file_that_is_no_longer_taken_is_a_problem():
    assert list(consumers_table.problems([case(REFUSED, GOOD), case(GOOD, GOOD), case(REFUSED, WRONG)])) == []
    (problem,) = consumers_table.problems([case(GOOD, WRONG)])
    assert problem == "ONNX Runtime, dynamo=False, ResNet18, scripted: wrong by 0.5 of the largest value"


def lines(rows: Iterator[str]) -> list[str]:
    found = list(rows)
    assert len({line.replace("\\|", "").count("|") for line in found}) == 1
    return found[2:]


def test_the_tables_in_markdown_have_a_cell_for_each_heading():
    found = [case(REFUSED, GOOD), case(REFUSED, GOOD, "traced"), case(NORMED, GOOD, "scripted, channels_last")]
    assert lines(consumers_table.complaints(found)) == [
        "| ONNX Runtime, dynamo=False | ResNet18 | scripted; traced | RuntimeError: no such \\| operator |  |"
    ]
    (row,) = lines(consumers_table.summary_table(found))
    assert row.endswith(" | `onnxruntime` | 3 | 1 | 3 | 1e-06 | 3 | 0 | 1e-06 |")
    assert lines(consumers_table.network_table(found)) == ["| ResNet18 | 20 | 1 to 3 of 3 |"]


def test_the_tables_are_written_between_their_marks(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{consumers_table.BEGIN}\nearlier tables\n{consumers_table.END}\nafter\n")
    consumers_table.write(page, [case(GOOD, GOOD)])
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith(f"{consumers_table.END}\nafter\n") and "earlier" not in text


def test_every_consumer_is_a_module_whose_package_has_a_version():
    listed = consumers_table.HERE.joinpath("packages.txt").read_text() + consumers_table.HERE.parents[1].joinpath("requirements.txt").read_text()
    pinned = {line.partition("==")[0] for line in listed.splitlines() if "==" in line}
    assert {consumers_table.consumer_of(name).package for name in consumers_table.CONSUMERS} <= pinned
    assert {path.stem for path in consumers_table.HERE.glob("with_*.py")} == {f"with_{name}" for name in consumers_table.CONSUMERS}


def test_norms_are_counted_where_they_run():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sigmoid(), nn.BatchNorm2d(4)).eval()
    assert norms_in(torch.jit.script(model)) == 2 and norms_in(bnfold.fold(model).module) == 1
