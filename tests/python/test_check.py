"""The comparison of two modules."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple

import pytest
import torch
import zoo
from cases import double, prepared
from torch import nn

import bnfold


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.deep = nn.Conv2d(5, 4, 3)
        self.deep_norm = nn.BatchNorm2d(4)

    def features(self, x):
        y = self.norm(self.conv(x))
        return y, self.deep_norm(self.deep(y.relu()))


class InATuple(Nested):
    def forward(self, x) -> Tuple[torch.Tensor, Tuple[int, torch.Tensor]]:
        low, high = self.features(x)
        return low, (3, high)


class InAList(Nested):
    def forward(self, x) -> List[torch.Tensor]:
        low, high = self.features(x)
        return [low, high]


class InADict(Nested):
    def forward(self, x) -> Dict[str, torch.Tensor]:
        low, high = self.features(x)
        return {"low": low, "high": high}


def image() -> torch.Tensor:
    return double(2, 3, 9, 9)


@pytest.mark.parametrize("model, where", [(InATuple, "output[1][1]"), (InAList, "output[1]"), (InADict, "output['high']")])
def test_nested_outputs(model, where):
    original = torch.jit.script(prepared(model(), (image(),)))
    result = bnfold.fold(original, image())
    assert result.check.passed and 0 <= result.check.largest_error < result.check.tolerance == 1e-10
    result.module.deep.bias.add_(1.0)
    compared = bnfold.check(original, result.module, [(image(),), (image(),)])
    assert not compared.passed
    assert not compared
    assert compared.worst_output == where
    assert compared.largest_error > 1e-3


def test_a_module_agrees_with_itself():
    module = torch.jit.script(prepared(InATuple(), (image(),)))
    compared = bnfold.check(module, module, [(image(),)])
    assert compared.passed and compared
    assert compared.largest_error == 0


def test_the_worst_of_several_inputs_counts():
    class Threshold(nn.Module):
        def __init__(self, value: float):
            super().__init__()
            self.value = value

        def forward(self, x):
            return torch.where(x > self.value, x, x * 2)

    one, other = (torch.jit.script(Threshold(value).eval()) for value in (0.0, 1.0))
    assert bnfold.check(one, other, [(torch.full((3,), 2.0),), (torch.full((3,), -2.0),)])
    assert not bnfold.check(one, other, [(torch.full((3,), 2.0),), (torch.full((3,), 0.5),)])


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.float16, 5e-2), (torch.bfloat16, 2e-1)]
)
def test_each_dtype_has_its_tolerance(dtype, tolerance):
    model = prepared(InAList(), (image(),)).to(dtype)
    compared = bnfold.fold(model, image().to(dtype)).check
    assert compared.passed
    assert compared.tolerance == tolerance


class Constant(nn.Module):
    def __init__(self, value: torch.Tensor):
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, x):
        return self.value + x * 0


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "one, other, agree",
    [
        ([1.0, NAN], [1.0, NAN], True),
        ([1.0, INFINITY], [1.0, INFINITY], True),
        ([1.0, INFINITY], [1.0, -INFINITY], False),
        ([1.0, NAN], [1.0, 2.0], False),
        ([1.0, 2.0], [1.0, NAN], False),
        ([1.0, 2.0], [1.0, INFINITY], False),
        ([0.0, 0.0], [0.0, 0.0], True),
        ([0.0, 0.0], [0.0, 1e-30], False),
        ([1.0, 2.0], [1.0], False),
    ],
)
def test_values_that_are_not_finite(one, other, agree):
    modules = (torch.jit.script(Constant(torch.tensor(values)).eval()) for values in (one, other))
    assert bool(bnfold.check(*modules, [(torch.zeros(1),)])) is agree


def test_outputs_of_another_structure():
    original = torch.jit.script(prepared(InAList(), (image(),)))
    other = torch.jit.script(prepared(InATuple(), (image(),)))
    try:
        assert not bnfold.check(original, other, [(image(),)])
    except bnfold.Error as error:
        assert "structure" in str(error)


def test_random_operators_draw_the_same_numbers():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    module = torch.jit.script(Noisy().eval())
    assert bnfold.check(module, module, [(double(4),)])


def noise(x):
    return torch.rand_like(x)


def test_tasks_draw_the_same_numbers():
    class NoisyTasks(nn.Module):
        def forward(self, x):
            task = torch.jit.fork(noise, x)
            torch.jit.fork(noise, x)  # for which nobody waits
            return torch.rand_like(x) + torch.jit.wait(task)

    module = torch.jit.script(NoisyTasks().eval())
    for _ in range(20):
        assert bnfold.check(module, module, [(double(4, 1000),)])


def test_the_callers_random_state_stays():
    module = torch.jit.script(prepared(InATuple(), (image(),)))
    inputs = image()
    state = torch.random.get_rng_state()
    bnfold.check(module, module, [(inputs,)])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_inputs_that_the_module_writes_into():
    class Writes(nn.Module):
        def forward(self, x):
            return x.add_(1.0)

    module = torch.jit.script(Writes().eval())
    value = torch.zeros(3)
    assert bnfold.check(module, module, [(value,)])
    assert torch.equal(value, torch.zeros(3))


def test_neither_module_changes():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    one, other = torch.jit.script(Counts().eval()), torch.jit.script(Counts().eval())
    assert bnfold.check(one, other, [(torch.ones(3),), (torch.ones(3),)])
    assert int(one.calls) == int(other.calls) == 0


@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
def test_a_real_network(spelling):
    net = zoo.network("resnet18")
    compared = bnfold.check(zoo.script_module("resnet18", spelling), zoo.fold_result("resnet18", spelling).module, [net.inputs] * 2)
    assert compared and compared.worst_output == "output"


def test_a_failed_comparison_gives_no_module():
    # Blows the rounding of an exact fold up, so that the comparison fails.
    class Chaotic(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x):
            return torch.sin(self.norm(self.linear(x)) * 1e20)

    model = prepared(Chaotic(), (double(8, 4),))
    with pytest.raises(bnfold.Error, match=r"differs from the original on the example inputs: by .* of output, where 1e-10 is the tolerance"):
        bnfold.fold(model, double(8, 4))


class Numbers(Nested):
    """Everything that forward may return beside tensors."""

    def forward(self, x) -> Tuple[torch.Tensor, float, int, bool, str, Optional[int], List[float], Dict[str, float], List[int]]:
        low, high = self.features(x)
        mean = float(high.abs().mean())
        return low, mean, high.dim(), mean > 0, "name", None, [mean, 0.0, -2.0 * mean], {"mean": mean}, high.shape


def numbers(dtype: torch.dtype) -> torch.jit.ScriptModule:
    return torch.jit.script(prepared(Numbers(), (image(),)).to(dtype))


@pytest.mark.parametrize("dtype, tolerance", [(torch.double, 1e-10), (torch.float, 1e-4)])
def test_numbers_among_the_outputs(dtype, tolerance):
    original = numbers(dtype)
    result = bnfold.fold(original, image().to(dtype))
    assert result.check.passed and result.check.tolerance == tolerance


@pytest.mark.parametrize("factor, passes", [(1 + 1e-6, True), (1 + 1e-2, False)])
def test_a_number_has_the_tolerance_of_what_it_is_computed_from(factor, passes):
    assert bnfold.check(Returning([factor]).scripted(), Returning([1.0]).scripted(), [(torch.ones(1),)]).passed == passes
    assert not bnfold.check(Returning([factor]).scripted(), Returning([1.0]).scripted(), [(torch.ones(1).double(),)]).passed


class Widened(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return (x * self.factor).double()


@pytest.mark.parametrize("dtype, passes", [(torch.float, True), (torch.double, False)])
def test_what_is_made_wider_has_the_tolerance_of_what_it_is_computed_from(dtype, passes):
    one, other = (torch.jit.script(Widened(factor)) for factor in (1.0, 1 + 1e-6))
    assert bnfold.check(one, other, [(torch.ones(3, dtype=dtype),)]).passed == passes


@pytest.mark.parametrize("one, other, passes", [([1e-9, 1.0], [0.0, 1.0], True), ([1e-9], [0.0], False), ([1.0], [1.0, 1.0], False), ([], [], True)])
def test_numbers_of_a_list_are_compared_with_the_largest(one, other, passes):
    assert bnfold.check(Returning(one).scripted(), Returning(other).scripted(), [(torch.ones(1),)]).passed == passes


class Returning(nn.Module):
    def __init__(self, values: List[float]):
        super().__init__()
        self.values = torch.jit.Attribute(values, List[float])

    def forward(self, x):
        return self.values

    def scripted(self) -> torch.jit.ScriptModule:
        return torch.jit.script(self.eval())


class ReturningOther(nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x) -> Tuple[int, bool, str, Optional[float], Optional[int]]:
        kind = self.kind
        return 1 if kind == "int" else 2, kind == "bool", kind if kind == "str" else "", 1.0 if kind == "none" else None, None


@pytest.mark.parametrize("kind, where", [("int", 0), ("bool", 1), ("str", 2), ("none", 3)])
def test_what_is_no_number_has_to_be_equal(kind, where):
    one, other = (torch.jit.script(ReturningOther(one).eval()) for one in (kind, "other"))
    compared = bnfold.check(one, other, [(torch.ones(1),)])
    assert not compared.passed and compared.worst_output == f"output[{where}]"
    assert bnfold.check(one, one, [(torch.ones(1),)]).passed


@torch.jit.script
class Features:
    def __init__(self, low: torch.Tensor, mean: float):
        self.low = low
        self.mean = mean


class InAnObject(Nested):
    def forward(self, x):
        low, high = self.features(x)
        return Features(low, float(high.abs().mean()))


class InATask(Nested):
    def forward(self, x):
        return torch.jit.fork(self.features, x)


@pytest.mark.parametrize("model, where", [(InAnObject, "output.mean"), (InATask, "output[1]")])
def test_outputs_in_objects_and_tasks(model, where):
    original = torch.jit.script(prepared(model(), (image(),)))
    result = bnfold.fold(original, image())
    assert result.check.passed
    result.module.deep.bias.add_(1.0)
    compared = bnfold.check(original, result.module, [(image(),)])
    assert not compared.passed and compared.worst_output == where
