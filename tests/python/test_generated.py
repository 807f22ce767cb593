"""Random models: whatever the planner does with them, the outputs are those of eager, and every norm that is left has its reason."""

from __future__ import annotations

import pytest
from generator.check import check
from generator.fuzz import Failure, fuzz, pasteable
from generator.graphs import rule_families
from generator.program import Class, Input, Method, Program
from generator.run import Run, Unsuitable
from generator.statistics import Statistics

MODELS, EXPORTED_MODELS, SEED = 400, 40, 0

# The reasons that the models have to come upon. The others need tensors that no generated model has, or a norm that can't run.
REASONS = {
    "norm_in_training_mode", "norm_without_running_statistics", "norm_parameters_not_static", "norm_statistics_not_finite", "value_has_other_readers",
    "value_changed_in_place", "value_from_graph_input", "value_from_other_block", "affine_varies_elsewhere", "rank_unknown", "no_rule_for_operator",
    "weight_not_static", "operator_not_affine", "shift_at_padding", "shift_not_passable", "scale_not_positive", "scale_not_invertible", "sizes_unknown",
    "value_is_output", "value_in_container",
}  # fmt: skip


@pytest.fixture(scope="module")
def seen() -> Statistics:
    """What was seen while every property was checked on each of the models."""
    try:
        return fuzz(MODELS, SEED)
    except Failure as failure:
        pytest.fail(str(failure), pytrace=False)


@pytest.fixture(scope="module")
def seen_exported() -> Statistics:
    """The same of programs of torch.export."""
    try:
        return fuzz(EXPORTED_MODELS, SEED, exported=True)
    except Failure as failure:
        pytest.fail(str(failure), pytrace=False)


def test_programs_of_torch_export_are_checked(seen_exported):
    assert seen_exported.examples + seen_exported.discarded.total() >= EXPORTED_MODELS
    assert seen_exported.discarded.total() < EXPORTED_MODELS / 3, dict(seen_exported.discarded)
    assert {"backward", "forward"} <= set(seen_exported.folded)


def test_every_model_is_checked(seen):
    assert seen.examples + seen.discarded.total() >= MODELS
    assert seen.discarded.total() < MODELS / 10, dict(seen.discarded)


def test_nearly_every_family_of_rules_takes_part_in_a_fold(seen):
    # Ten models are about each; so few miss one now and then, which thousands don't.
    missed = set(rule_families().values()) - set(seen.families)
    assert len(missed) <= 5, missed


def test_the_reasons_are_met(seen):
    assert REASONS - set(seen.obstacles) == set()


def test_norms_go_in_every_direction(seen):
    assert set(seen.folded) == {"backward", "forward", "sideways"}


def test_convolutions_are_merged(seen):
    assert seen.merged["scripted"] and seen.merged["traced"]


# ---- the generator itself


def program(body: str, *layers: str) -> Program:
    methods = (Method("forward", "self, x", tuple(body.splitlines())),)
    return Program((), (Class("Model", layers, (), methods),), (Input("x", "torch.Tensor", "torch.randn(batch, 3, side, side)"),))


CONV, NORM = "self.conv = nn.Conv2d(3, 4, 1)", "self.norm = nn.BatchNorm2d(4)"
FOLDS = program("return self.norm(self.conv(x))", CONV, NORM)


@pytest.mark.parametrize(
    "run",
    [
        Run(), Run(spelling="traced"), Run(seed=1, frozen=True), Run(hints="inputs"), Run(hints="ranks"), Run(dtype="float32"), Run(dtype="float16"),
        Run(dtype="bfloat16"), Run(dtype="float32", cancels=True), Run(spelling="exported"), Run(spelling="exported", dynamic=True, hints="inputs"),
        Run(spelling="exported", dynamic=True, decomposed=True), Run(spelling="exported", dtype="bfloat16"),
    ],
)  # fmt: skip
def test_a_model_is_checked_in_every_way_of_running_it(run):
    assert len(check(FOLDS.source(), run).report.folded) == 1


def test_a_model_that_does_not_run_is_discarded():
    with pytest.raises(Unsuitable, match="eager"):
        check(program("return self.conv(x[0, 0, 0])", CONV).source(), Run())


BRANCHES = program("y = self.norm(self.conv(x))\nif y.sum() > 0:\n    y = y * 2\nreturn y", CONV, NORM)


def test_a_model_that_torch_export_refuses_is_discarded():
    with pytest.raises(Unsuitable, match="export"):
        check(BRANCHES.source(), Run(spelling="exported"))
    assert len(check(BRANCHES.source(), Run()).report.folded) == 1


def test_a_failure_is_a_module_to_paste(tmp_path):
    text = pasteable(FOLDS, Run(seed=3))
    path = tmp_path / "failing.py"
    path.write_text(text)
    assert "class Model(nn.Module):" in text and "Run(seed=3" in text
    assert len(check(path.read_text(), Run(seed=3)).report.folded) == 1
