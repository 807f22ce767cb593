"""What the tests of small modules share."""

from __future__ import annotations

from typing import Any, Optional

import torch
import zoo
from calibrate import calibrate, relative_error
from torch import nn

import bnfold

# Small modules in double precision: a few roundings, against the largest output.
EXACT = 1e-13


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def prepared(model: nn.Module, inputs: tuple[Any, ...]) -> nn.Module:
    model = model.double().eval()
    calibrate(model, inputs)
    return model


def folded(
    model: nn.Module, inputs: tuple[Any, ...], spelling: str = "scripted", *, ranks: bool = True, error: float = EXACT
) -> bnfold.FoldResult:
    """Calibrates and folds a model, and compares the result with eager, once more where a second run is another specialization."""
    prepared(model, inputs)
    module = zoo.to_torchscript(model, inputs, spelling)
    result = bnfold.fold(module, inputs) if ranks else bnfold.fold(module)
    for _ in range(2):
        assert relative_error(model(*inputs), result.module(*inputs)) <= error
    return result


def assert_folded(result: bnfold.FoldResult, into: Optional[str] = None) -> None:
    assert result.report.kept == ()
    assert len(result.report.folded) >= 1
    assert "batch_norm" not in str(result.module.inlined_graph)
    if into is not None:
        assert [", ".join(norm.into) for norm in result.report.folded] == [into]


def assert_kept(result: bnfold.FoldResult, reason: str) -> None:
    assert [norm.reason for norm in result.report.kept] == [reason]
    assert result.report.folded == ()
    assert "batch_norm" in str(result.module.inlined_graph)


def assert_equal(model: nn.Module, result: bnfold.FoldResult, *inputs: torch.Tensor, error: float = EXACT) -> None:
    """Equal to eager, with the same NaNs and infinities in the same places."""
    expected, actual = model(*inputs), result.module(*inputs)
    assert expected.dtype == actual.dtype and expected.shape == actual.shape
    finite = expected.isfinite()
    assert torch.equal(expected[~finite].nan_to_num(), actual[~finite].nan_to_num()) and torch.equal(finite, actual.isfinite())
    assert not finite.any() or relative_error(expected[finite], actual[finite]) <= error
