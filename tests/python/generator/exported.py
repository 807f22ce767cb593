"""What holds for every program of torch.export, whatever the planner does with it."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_flatten
from zoo import saved_and_loaded

import bnfold

from .properties import Check, Executed, Execution, Outcome, error_between, execute, largest
from .run import Unsuitable, quietly


def execute_program(program: torch.export.ExportedProgram, arguments: tuple[Any, ...], times: int = 1) -> Execution:
    """Runs the program as ``execute`` does a module: what it writes into its buffers is taken back."""
    tensors = {name: value for name, value in {**program.constants, **program.state_dict}.items() if isinstance(value, torch.Tensor)}
    before = {name: value.clone() for name, value in tensors.items()}
    outputs: list[Any] = []
    try:
        module = quietly(program.module)
        for _ in range(times):
            mine = copy_of(arguments)
            outputs += tree_flatten(quietly(module, *mine))[0]
        return Executed(copy_of(outputs), list(mine), {name: value.clone() for name, value in tensors.items()})
    except Exception as error:
        return error
    finally:
        for name, value in tensors.items():
            value.detach().copy_(before[name])


def copy_of(values: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda value: value.clone() if isinstance(value, torch.Tensor) else value, values)


def norms_left(program: torch.export.ExportedProgram) -> int:
    """Those in regions and branches too."""
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    return sum("batch_norm" in str(node.target) for graph in graphs for node in graph.nodes if node.op == "call_function")


class ExportedCheck(Check):
    """One model, exported."""

    def outcome(self) -> Outcome:
        program = self.prepared.program
        expected = self._reference_of_program(program)
        text, state = str(program), {name: value.clone() for name, value in program.state_dict.items()}
        try:
            result = self._fold()
        except bnfold.Error as error:
            if "torch.export can't serialize" in str(error):
                raise Unsuitable(f"export: {error}") from error
            raise AssertionError(f"fold: {error}") from error
        assert str(program) == text, "the fold changes the program that comes in"
        self._assert_state(state, dict(program.state_dict), "of the program that comes in")
        for norm in result.report.kept:
            assert norm.reason, f"{norm.name} is kept without a reason"
        left = norms_left(result.program)
        assert left <= len(result.report.kept), f"{left} norms are left, and {len(result.report.kept)} reported"
        self._allow_rounding(result.report)
        self._assert_same_program(program, result.program, expected, "folded program")
        self._assert_same_program(program, saved_and_loaded(result.program), expected, "saved program")
        again = quietly(bnfold.fold, result.program)
        assert not again.report.folded, "it folds a second time"
        self._assert_same_program(program, again.program, expected, "program folded twice")
        return Outcome(None, result.report)

    def _reference_of_program(self, program: torch.export.ExportedProgram) -> Executed:
        """That of the program, which has to be that of eager."""
        eager, mine = execute(self.prepared.model, "forward", self.prepared.inputs(), 2), execute_program(program, self.prepared.inputs(), 2)
        if isinstance(eager, Exception) or isinstance(mine, Exception):
            raise Unsuitable(f"run: {eager if isinstance(eager, Exception) else mine}")
        if not error_between(eager.outputs + eager.arguments, mine.outputs + mine.arguments) <= self.tolerance:
            raise Unsuitable("torch: torch.export and eager differ")
        if largest(mine.outputs) > 1e12:
            raise Unsuitable("large: what it computes explodes")
        return mine

    def _fold(self) -> bnfold.ExportedFoldResult:
        try:
            return quietly(bnfold.fold, self.prepared.program, **self.prepared.options)
        except bnfold.Error as error:
            if "differs from the original on the example inputs" not in str(error):
                raise
            return quietly(bnfold.fold, self.prepared.program)

    def _assert_same_program(self, original: torch.export.ExportedProgram, folded: torch.export.ExportedProgram, expected: Executed, what: str) -> None:
        """On the inputs at hand, and on others where the original takes them."""
        actual = execute_program(folded, self.prepared.inputs(), 2)
        self._assert_equal(expected, actual, f"the {what}")
        for name, value in expected.state.items():
            if name in original.graph_signature.buffers_to_mutate.values() and name in actual.state:
                assert error_between([value], [actual.state[name]]) <= self.tolerance, f"the {what} leaves another {name}"
        for batch, side in ((3, 6), (2, 8), (5, 7)) if self.run.dynamic else ():
            inputs = self.prepared.inputs(batch, side)
            reference = execute_program(original, inputs)
            if isinstance(reference, Executed):
                self._assert_equal(reference, execute_program(folded, inputs), f"the {what} on other inputs")
