"""What holds for every program, whatever the planner does with it."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import re
from collections import Counter
from typing import Any, Optional, Union

import torch
from torch.utils._pytree import tree_flatten

import bnfold

from .graphs import eval_norms, norms_in, training_norms
from .run import Prepared, Run, Unsuitable, cast, quietly

# In double, relative to the largest output; in float that of bnfold.check, and one that notices digits lost to a large number.
EXACT, FLOAT, CANCELLING = 1e-9, 1e-4, 1e-5
# Above what rounding makes: the errors that the original has in float, and those of bounds.
TIMES_ROUNDING = 10
# In half and bfloat16 nothing more than this tells anything.
NARROW = 0.3
# What a folded module says to an input of another rank than it was folded for, where nothing proved the rank.
RANK_CHECK = "a batch norm was folded into this layer for inputs of rank"
# What torch says of a convolution without a batch, once it has optimized the check of a norm behind it.
WRONG_RANK = re.compile(r"expected .*D input \(got")
# The modules that are refused, by sentences that the documentation has.
REFUSALS = ("are one submodule, and the module assigns its attributes",)


@dataclasses.dataclass(frozen=True)
class Executed:
    """What a method returned, and what it left behind."""

    outputs: list[Any]
    arguments: list[Any]
    state: dict[str, torch.Tensor]


Execution = Union[Executed, Exception]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a fold did, for the statistics."""

    original: Optional[torch.jit.ScriptModule]  #: None where it is a program of torch.export
    report: Optional[bnfold.Report] = None
    refusal: str = ""
    checks_rank: bool = False
    missed: tuple[str, ...] = ()  #: the reasons of norms that torch.jit.freeze folds, and folds right


def execute(module: Any, method: str, arguments: tuple[Any, ...], times: int = 1) -> Execution:
    """Runs a copy of the module on copies of the arguments; where more than once, the outputs of all runs."""
    outputs: list[Any] = []
    try:
        module = copy.deepcopy(module)  # which PyTorch can't do with some of the modules that it froze
        for _ in range(times):
            mine = copy.deepcopy(arguments)
            outputs += tree_flatten(quietly(getattr(module, method), *mine))[0]
    except Exception as error:
        return error
    return Executed(outputs, list(mine), dict(module.state_dict()))


def largest(values: list[Any]) -> float:
    sizes = [float(value.detach().abs().nan_to_num(0, 0, 0).max()) for value in values if _is_float(value) and value.numel()]
    return max(sizes, default=0.0)


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def error_between(expected: list[Any], actual: list[Any]) -> float:
    """Relative to the largest of all values, as one of them may be all zeros; infinite where they differ in kind."""
    if len(expected) != len(actual):
        return float("inf")
    scale = max(largest(expected), 1e-2)
    return max((_difference(one, other) / scale for one, other in zip(expected, actual)), default=0.0)


def _difference(one: Any, other: Any) -> float:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return 0.0 if one == other else float("inf")
    if one.shape != other.shape or one.is_floating_point() != other.is_floating_point():
        return float("inf")
    one, other = one.double(), other.double()
    same = (one == other) | (one.isnan() & other.isnan())
    difference = (one - other).abs().masked_fill(same, 0)
    return float(difference.nan_to_num(float("inf"), float("inf")).max()) if one.numel() else 0.0


def dtypes_of(values: list[Any]) -> list[Optional[torch.dtype]]:
    return [value.dtype if isinstance(value, torch.Tensor) else None for value in values]


class Check:
    """One model in one run."""

    def __init__(self, source: str, run: Run):
        self.prepared = Prepared(source, run)
        self.run = run
        self.module = self.prepared.module
        self._others: dict[str, list[tuple[Any, ...]]] = {}
        if run.is_narrow:
            self.tolerance = self._narrow_tolerance()
        elif run.cancels and run.dtype == "float64":
            self.tolerance = self._cancelling_tolerance()
        else:
            self.tolerance = FLOAT if run.rounds else EXACT

    def outcome(self) -> Outcome:
        expected = {method: self._reference(method) for method in self.prepared.methods}
        state, graph = copy.deepcopy(dict(self.module.state_dict())), self._graph_text()
        try:
            result = self._fold()
        except bnfold.Error as error:
            assert any(refusal in str(error) for refusal in REFUSALS), f"fold: {error}"
            return Outcome(self.module, refusal=str(error))
        finally:
            assert self._graph_text() == graph, "the fold changes the graph of the module that comes in"
            self._assert_state(state, dict(self.module.state_dict()), "of the module that comes in")
        self._assert_reported(result)
        self._allow_rounding(result.report)
        if self.run.dtype == "float32":
            self._assert_float_is_near(result.module)
            return Outcome(self.module, result.report)
        try:
            checks_rank = self._assert_same(result.module, expected, "folded")
        except AssertionError as error:
            # torch takes the output of a convolution without a batch for that with one, when it optimizes, and so when it flattens.
            if WRONG_RANK.search(str(error)):
                raise Unsuitable("a convolution without a batch") from error
            raise
        if checks_rank:
            return Outcome(self.module, result.report, checks_rank=True)
        for method, execution in expected.items():
            self._assert_equal(execution, execute(self.module, method, self.prepared.inputs()), f"{method} of the module that came in")
        self._assert_saved(result.module, expected)
        self._assert_folded_again(result, expected)
        return Outcome(self.module, result.report, missed=self._missed_by_freezing(result, expected))

    def _fold(self) -> bnfold.FoldResult:
        try:
            return quietly(bnfold.fold, self.module, **self.prepared.options)
        except bnfold.Error as error:
            # Its comparison is relative to the largest output, which may be the rounding of zeros; the one here comes later.
            if "differs from the original on the example inputs" not in str(error):
                raise
            return quietly(bnfold.fold, self.module, **self.prepared.ranks)

    def _allow_rounding(self, report: bnfold.Report) -> None:
        """Norms in a row that become bounds multiply the rounding of these by all of their scales: docs/checking.md."""
        if self.run.is_narrow:
            return
        modules, gain = dict(self.prepared.model.named_modules()), 1.0
        for norm in report.folded:
            module = modules.get(norm.name)
            if norm.direction == "forward" and getattr(module, "running_var", None) is not None:
                scales = torch.rsqrt(module.running_var + module.eps) * (1 if module.weight is None else module.weight)
                gain *= max(1.0, float(scales.abs().max()))
        rounding = torch.finfo(getattr(torch, self.run.dtype)).eps * gain
        self.tolerance = max(self.tolerance, TIMES_ROUNDING * rounding)
        if self.tolerance > 100 * FLOAT:
            raise Unsuitable("large: the scales of its norms multiply rounding until it shows")

    def _narrow_tolerance(self) -> float:
        tolerance = self._moved_by_rounding()
        if not tolerance <= NARROW:
            raise Unsuitable("large: rounding shows in what a narrow dtype computes")
        return tolerance

    def _cancelling_tolerance(self) -> float:
        """Digits that the original itself loses to a large number, a folded module may lose too."""
        tolerance = max(self._moved_by_rounding(), self._lost_by_rounding())
        if not tolerance <= FLOAT:
            raise Unsuitable("large: rounding shows in what double computes")
        return max(EXACT, tolerance)

    def _lost_by_rounding(self) -> float:
        """How far the outputs are off in float, where digits are lost whatever the weights are, at the size that it has in double."""
        narrow, errors = copy.deepcopy(self.prepared.model).float(), [0.0]
        for method in self.prepared.methods:
            inputs = self.prepared.inputs()
            exact = execute(self.prepared.model, method, inputs)
            rounded = execute(narrow, method, tuple(cast(value, torch.float32) for value in inputs))
            if isinstance(exact, Executed) and isinstance(rounded, Executed):
                errors.append(error_between(exact.outputs, rounded.outputs))
        return TIMES_ROUNDING * max(filter(math.isfinite, errors)) * torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps

    def _moved_by_rounding(self) -> float:
        """How far the outputs move where each weight does, by as much as the dtype rounds it."""
        epsilon = torch.finfo(getattr(torch, self.run.dtype)).eps
        errors = [epsilon]
        for method in self.prepared.methods:
            exact = execute(self.prepared.model, method, self.prepared.inputs())
            for seed in range(3):
                moved = execute(self._moved(epsilon, seed), method, self.prepared.inputs())
                if isinstance(exact, Exception) or isinstance(moved, Exception):
                    raise Unsuitable(f"run: {exact}")
                errors.append(error_between(exact.outputs + exact.arguments, moved.outputs + moved.arguments))
        return TIMES_ROUNDING * max(errors)

    def _moved(self, epsilon: float, seed: int) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        moved = copy.deepcopy(self.prepared.model)
        for value in moved.state_dict().values():
            if _is_float(value):
                value.mul_(1 + epsilon * (2 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 1))
        return moved

    # ---- the reference

    def _reference(self, method: str) -> Executed:
        """That of the ScriptModule, which has to be that of eager."""
        inputs = self.prepared.inputs()
        eager, scripted = (execute(module, method, inputs, 2) for module in (self.prepared.model, self.module))
        if isinstance(eager, Exception) or isinstance(scripted, Exception):
            raise Unsuitable(f"run: {eager if isinstance(eager, Exception) else scripted}")
        if self.run.dtype != "float32" and error_between(eager.outputs + eager.arguments, scripted.outputs + scripted.arguments) > self.tolerance:
            raise Unsuitable("torch: TorchScript and eager differ")
        if dtypes_of(eager.outputs) != dtypes_of(scripted.outputs):
            raise Unsuitable("torch: TorchScript and eager differ in a dtype")
        left = [[state[name] for name in sorted(state)] for state in (eager.state, scripted.state)]
        if not self.run.frozen and error_between(*left) > FLOAT:
            # Its optimizer drops a norm that trains where nobody reads its output, but not in the first run.
            raise Unsuitable("torch: TorchScript leaves other statistics than eager")
        if largest(scripted.outputs) > 1e12:
            raise Unsuitable("large: what it computes explodes")
        return scripted

    def _other_inputs(self, method: str) -> list[tuple[Any, ...]]:
        """Of another batch size, and where the sizes are no part of the module, of another side."""
        if method not in self._others:
            sizes = [(3, 6), (2, 8)] if self.run.spelling == "scripted" else [] if self.run.frozen else [(3, 6)]
            inputs = [self.prepared.inputs(batch, side) for batch, side in sizes]
            # PyTorch 2.15 crashes where an operator raises an error inside a frozen module.
            self._others[method] = [one for one in inputs if isinstance(execute(self.prepared.model, method, one), Executed)]
        return self._others[method]

    # ---- comparisons

    def _assert_equal(self, expected: Execution, actual: Execution, what: str) -> None:
        assert not isinstance(actual, Exception), f"{what} raises {actual}"
        assert isinstance(expected, Executed)
        outputs = expected.outputs[: len(actual.outputs)]
        assert dtypes_of(outputs) == dtypes_of(actual.outputs), f"the output of {what} has another dtype"
        error = error_between(outputs, actual.outputs)
        assert error <= self.tolerance, f"the output of {what} is off by {error:.1e}"
        error = error_between(expected.arguments, actual.arguments)
        assert error <= self.tolerance, f"{what} leaves other inputs, off by {error:.1e}"

    def _assert_same(self, module: torch.jit.ScriptModule, expected: dict[str, Executed], what: str) -> bool:
        """On the inputs at hand, and on others where the original runs on them. Returns whether it refuses the rank."""
        for method, execution in expected.items():
            actual = execute(module, method, self.prepared.inputs(), 2)
            if self._refuses_rank(actual, method):
                return True
            self._assert_equal(execution, actual, f"{method} of the {what} module")
            self._assert_state_left(method, module, what)
            for inputs in self._other_inputs(method):
                reference, actual = execute(self.module, method, inputs), execute(module, method, inputs)
                if isinstance(reference, Executed) and not self._refuses_rank(actual, method):
                    self._assert_equal(reference, actual, f"{method} of the {what} module on other inputs")
        return False

    def _refuses_rank(self, execution: Execution, method: str = "forward") -> bool:
        # Where an assumption was wrong that nothing proved. What is told is about the arguments of forward.
        told = method == "forward" and self.run.hints != "none"
        return isinstance(execution, Exception) and RANK_CHECK in str(execution) and not told

    def _assert_state_left(self, method: str, module: torch.jit.ScriptModule, what: str) -> None:
        """The buffers that a run changes are changed alike; freezing renames them."""
        if self.run.frozen:
            return
        # PyTorch drops a norm in training mode whose result nobody reads, as it flattens a graph, runs it, or writes out the rounds of a loop.
        trains = training_norms(getattr(module, method).inlined_graph) > 0
        in_loops = "prim::Loop" in str(getattr(self.module, method).inlined_graph)
        with torch.jit.optimized_execution(False):
            expected, actual = (execute(one, method, self.prepared.inputs()) for one in (self.module, module))
        assert isinstance(expected, Executed) and isinstance(actual, Executed)
        before = self.module.state_dict()
        for name, value in expected.state.items():
            if name not in actual.state or torch.equal(before[name], value):
                continue
            dropped_by_torch = trains and (in_loops or torch.equal(before[name], actual.state[name]))
            if not dropped_by_torch:
                assert error_between([value], [actual.state[name]]) <= self.tolerance, f"the {what} module leaves another {name}"

    def _assert_state(self, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], what: str) -> None:
        assert before.keys() == after.keys()
        for name, value in before.items():
            assert torch.equal(value.nan_to_num(7), after[name].nan_to_num(7)), f"the fold changes {name} {what}"

    def _graph_text(self) -> str:
        return "".join(str(getattr(self.module, method).graph) for method in self.prepared.methods)

    # ---- the single properties

    def _assert_reported(self, result: bnfold.FoldResult) -> None:
        kept = Counter(norm.name for norm in result.report.kept)
        for norm in result.report.kept:
            assert norm.reason and norm.obstacles, f"{norm.name} is kept without a reason"
        left, was = (Counter(name for method in self.prepared.methods for name in norms_in(getattr(module, method).inlined_graph))
                     for module in (result.module, self.module))  # fmt: skip
        assert kept or not left, f"{dict(left)} are left, and none is reported"
        assert left.total() <= kept.total(), f"{dict(left)} are left, and {dict(kept)} reported"
        for name, calls in left.items():
            # A norm that had no weight has one, and another name, where it took the affine of another norm.
            assert not name or name not in was or calls <= kept[name], f"{calls} calls of {name} are left, and {kept[name]} reported"
        gone = [name for name in kept if name in was and name not in left and "" not in left]
        assert not gone, f"{gone} are reported as kept, and gone"

    def _assert_float_is_near(self, folded: torch.jit.ScriptModule) -> None:
        exact = copy.deepcopy(self.prepared.model).double()
        inputs = self.prepared.inputs()
        reference = execute(exact, "forward", tuple(value.double() if _is_float(value) else value for value in inputs))
        mine, original = execute(folded, "forward", inputs), execute(self.module, "forward", inputs)
        if isinstance(reference, Exception) or isinstance(original, Exception) or self._refuses_rank(mine):
            return
        assert not isinstance(mine, Exception), f"the folded module raises {mine} in float"
        assert dtypes_of(original.outputs) == dtypes_of(mine.outputs), "the output of the folded module has another dtype"
        tolerance = max(CANCELLING if self.run.cancels else FLOAT, self.tolerance, TIMES_ROUNDING * error_between(reference.outputs, original.outputs))
        error = error_between(reference.outputs, mine.outputs)
        assert error <= tolerance, f"off by {error:.1e} in float, where {tolerance:.1e} is the tolerance"
        if tuple(self.prepared.methods) == ("forward",):
            self._assert_optimized(reference, tolerance)

    def _assert_optimized(self, reference: Executed, tolerance: float) -> None:
        """What optimize_for_inference makes computes the same, saved and loaded too, run until the executor has optimized it."""
        inputs = self.prepared.inputs()
        if not all(value.isfinite().all() for value in reference.outputs if _is_float(value)):
            return  # oneDNN's activations make a number of NaN
        try:
            stock = execute(self._frozen(self._loaded(self.module)), "forward", inputs)
        except Exception:
            return  # what can't be frozen it says itself
        if isinstance(stock, Exception) or error_between(reference.outputs + reference.arguments, stock.outputs + stock.arguments) > tolerance:
            return
        try:
            optimized = quietly(bnfold.optimize_for_inference, self.module, inputs)
        except bnfold.Error as error:
            # Its comparison is relative to the largest output, which may be the rounding of zeros.
            assert "differs from the original" in str(error) or RANK_CHECK in str(error), error
            optimized = quietly(bnfold.optimize_for_inference, self.module)
        original = execute(self.module, "forward", inputs, 3)  # whose buffers may change from run to run
        assert isinstance(original, Executed)
        for what, module in (("optimized module", optimized), ("optimized module from a file", self._loaded(optimized))):
            mine = execute(module, "forward", inputs, 3)
            if self._refuses_rank(mine):
                return
            assert not isinstance(mine, Exception), f"the {what} raises {mine}"
            assert dtypes_of(original.outputs) == dtypes_of(mine.outputs), f"the output of the {what} has another dtype"
            error = max(error_between(original.outputs, mine.outputs), error_between(original.arguments, mine.arguments))
            assert error <= 2 * tolerance, f"the {what} is off by {error:.1e} in float, where {tolerance:.1e} is the tolerance"

    def _assert_saved(self, module: torch.jit.ScriptModule, expected: dict[str, Executed]) -> None:
        loaded = self._loaded(module)
        for method, execution in expected.items():
            self._assert_equal(execution, execute(loaded, method, self.prepared.inputs()), f"{method} of the saved module")

    @staticmethod
    def _loaded(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
        return torch.jit.load(io.BytesIO(module.save_to_buffer()))

    def _assert_folded_again(self, result: bnfold.FoldResult, expected: dict[str, Executed]) -> None:
        """A second time nothing folds but what a branch held back that PyTorch could decide once another norm was gone; a third time nothing."""
        again = quietly(bnfold.fold, result.module, **self.prepared.options)
        if again.report.folded:
            assert not quietly(bnfold.fold, again.module, **self.prepared.options).report.folded, "it folds a third time"
        before, after = ([norm.name for norm in one.report.kept] for one in (result, again))
        assert len(after) <= len(before), f"folded again it keeps {after}, and not {before}"
        for method, execution in expected.items():
            actual = execute(again.module, method, self.prepared.inputs())
            self._assert_equal(execution, actual, f"{method} of the module folded twice")

    # ---- beside torch.jit.freeze

    def _missed_by_freezing(self, result: bnfold.FoldResult, expected: dict[str, Executed]) -> tuple[str, ...]:
        """Checks bnfold.freeze, and gives the reasons of the norms that are kept where torch.jit.freeze folds more, and right."""
        try:
            # It shares buffers with what it froze, and a task that writes into one would change what came in.
            stock = self._frozen(self._loaded(self.module))
            ours = self._frozen(result.module, optimize_numerics=False)  # which drops and merges the same as the other
        except Exception:
            return ()  # what it can't do it says itself
        right = self._agrees(stock, expected)
        self._assert_frozen(quietly(bnfold.freeze, self.module, self._preserved), expected)
        left, kept = (sum(eval_norms(getattr(module, method).inlined_graph) for method in self.prepared.methods) for module in (stock, ours))
        return tuple(sorted({norm.reason for norm in result.report.kept})) if right and kept > left else ()

    @property
    def _preserved(self) -> list[str]:
        return [method for method in self.prepared.methods if method != "forward"]

    def _frozen(self, module: torch.jit.ScriptModule, optimize_numerics: bool = True) -> torch.jit.ScriptModule:
        return quietly(torch.jit.freeze, module, self._preserved, optimize_numerics)

    def _assert_frozen(self, frozen: torch.jit.ScriptModule, expected: dict[str, Executed]) -> None:
        for method, execution in expected.items():
            actual = execute(frozen, method, self.prepared.inputs())
            if isinstance(actual, Exception) and RANK_CHECK in str(actual):
                continue  # freezing is told no ranks
            if isinstance(actual, Exception) and WRONG_RANK.search(str(actual)):
                continue  # a convolution without a batch, as in what was folded
            if isinstance(actual, Exception) and "aten::addmm" in str(getattr(frozen, method).graph):
                continue  # PyTorch 2.15 takes the size of addmm's output for that of its weights, once they are constants
            self._assert_equal(execution, actual, f"{method} of the module that bnfold.freeze returns")

    def _agrees(self, module: torch.jit.ScriptModule, expected: dict[str, Executed]) -> bool:
        try:
            self._assert_same(module, expected, "stock")
        except (AssertionError, RuntimeError):  # PyTorch 2.15 cannot copy every module that it froze
            return False
        return True
