"""Random modules: whatever the planner does with them, the outputs are those of the original, and the input is left as eager leaves it."""

from __future__ import annotations

import pytest
import torch
import zoo
from generate import SIDE, generated

import bnfold

SEEDS = range(300)


def error(expected: tuple[torch.Tensor, ...], actual: tuple[torch.Tensor, ...]) -> float:
    """Relative to the largest of all outputs, as one of them may be all zeros."""
    assert len(expected) == len(actual) > 0
    difference = max(float((one - other).abs().max()) for one, other in zip(expected, actual))
    return difference / max(1e-9, *(float(one.abs().max()) for one in expected))


@pytest.mark.parametrize("first", range(0, len(SEEDS), 50))
def test_generated_modules(first):
    folded = 0
    for seed in SEEDS[first : first + 50]:
        model, inputs = generated(seed)
        module = zoo.to_torchscript(model, tuple(value.clone() for value in inputs), "traced")
        result = bnfold.fold(module)
        folded += len(result.report.folded)
        mine, other = (torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for _ in range(2))
        with torch.no_grad():
            assert error(module(other), result.module(mine)) < 1e-9, f"seed {seed}\n{model.program()}"
        assert torch.allclose(mine, other), f"seed {seed} changes its input differently\n{model.program()}"
        assert all(norm.obstacles for norm in result.report.kept)
    assert folded > 20


def test_folding_twice_changes_nothing():
    for seed in range(20):
        model, inputs = generated(seed)
        result = bnfold.fold(zoo.to_torchscript(model, inputs, "traced"))
        again = bnfold.fold(result.module, inputs)
        assert [norm.name for norm in again.report.kept] == [norm.name for norm in result.report.kept] or again.report.folded
        with torch.no_grad():
            assert error(result.module(inputs[0].clone()), again.module(inputs[0].clone())) < 1e-9
