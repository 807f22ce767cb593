"""bnfold.freeze, and the pass that folds frozen modules as they run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import zoo
from calibrate import relative_error
from cases import double, prepared
from torch import nn
from torch.profiler import profile

import bnfold

both_spellings = pytest.mark.parametrize("spelling", zoo.SPELLINGS)


class PreActivation(nn.Module):
    """A norm and a ReLU before their convolution, which torch.jit.freeze leaves."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.conv = nn.Conv2d(3, 5, 1)
        self.scale = 2.0

    def forward(self, x):
        return self.conv(torch.relu(self.norm(x)))

    @torch.jit.export
    def doubled(self, x):
        return self.forward(x) * self.scale


IMAGE = (double(2, 3, 9, 9),)


def script() -> torch.jit.ScriptModule:
    return torch.jit.script(prepared(PreActivation(), IMAGE))


def count(module: torch.jit.ScriptModule, kind: str, method: str = "forward") -> int:
    return len(getattr(module, method).graph.findAllNodes(kind, recurse=True))


def norms_that_run(module: torch.jit.ScriptModule, *inputs: torch.Tensor) -> int:
    with torch.no_grad():
        for _ in range(3):  # until the executor has optimized it
            module(*inputs)
        with profile(acc_events=True) as measured:
            module(*inputs)
    return sum(event.count for event in measured.key_averages() if event.key == "aten::batch_norm")


def test_freeze_folds_what_stock_freeze_leaves():
    module = script()
    assert count(torch.jit.freeze(module), "aten::batch_norm") == 1
    frozen = bnfold.freeze(module)
    assert count(frozen, "aten::batch_norm") == 0
    assert not list(frozen.parameters())
    assert relative_error(module(*IMAGE), frozen(*IMAGE)) < 1e-9
    assert [norm.name for norm in bnfold.report_of(frozen).folded] == ["norm"]


def test_freeze_preserves_what_it_is_told():
    module = script()
    frozen = bnfold.freeze(module, preserved_attrs=["doubled", "scale"])
    assert frozen.scale == 2.0
    assert count(frozen, "aten::batch_norm", "doubled") == 0
    assert relative_error(module.doubled(*IMAGE), frozen.doubled(*IMAGE)) < 1e-9
    assert not hasattr(bnfold.freeze(module), "doubled")


class Doubling(nn.Module):
    """A product that torch.jit.freeze takes into the convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x):
        return self.norm(self.conv(x)) * 2.0


def test_freeze_leaves_the_numerics_alone_when_told_to():
    module = torch.jit.script(prepared(Doubling(), IMAGE))
    assert count(bnfold.freeze(module, optimize_numerics=False), "aten::mul") == 1
    assert count(bnfold.freeze(module), "aten::mul") == 0


@pytest.mark.parametrize(
    ("module", "preserved"),
    [
        pytest.param(lambda: PreActivation().eval(), None, id="nn.Module"),
        pytest.param(lambda: torch.jit.script(PreActivation()), None, id="training mode"),
        pytest.param(script, ["missing"], id="unknown attribute"),
    ],
)
def test_freeze_raises_what_stock_freeze_raises(module, preserved):
    with pytest.raises(RuntimeError) as stock:
        torch.jit.freeze(module(), preserved)
    with pytest.raises(RuntimeError) as ours:
        bnfold.freeze(module(), preserved)
    assert str(ours.value).splitlines()[0] == str(stock.value).splitlines()[0]


class Hooked(PreActivation):
    def __init__(self):
        super().__init__()
        self.register_forward_hook(_hook)


def _hook(self, inputs: tuple[torch.Tensor], output: torch.Tensor):
    return output


def test_freeze_freezes_what_can_not_be_folded_and_says_so():
    module = torch.jit.script(prepared(Hooked(), IMAGE))
    with pytest.warns(UserWarning, match="frozen without folding: the module has forward hooks"):
        frozen = bnfold.freeze(module)
    assert relative_error(module(*IMAGE), frozen(*IMAGE)) < 1e-9
    with pytest.raises(KeyError, match="could not be folded"):
        bnfold.report_of(frozen)


def test_the_operator_freezes_too():
    module = script()
    frozen = torch.jit._recursive.wrap_cpp_module(torch.ops.bnfold.freeze(module._c))
    assert count(frozen, "aten::batch_norm") == 0


@both_spellings
def test_a_registered_pass_folds_a_frozen_densenet_as_it_runs(spelling, tmp_path):
    path = str(tmp_path / "frozen.pt")
    net = zoo.network("densenet121")
    torch.jit.freeze(zoo.script_module("densenet121", spelling)).save(path)
    plain, optimized = torch.jit.load(path), torch.jit.load(path)
    assert norms_that_run(plain, *net.inputs) == (120 if spelling == "scripted" else 62)
    with bnfold.registered_pass():
        assert norms_that_run(optimized, *net.inputs) == 0
        assert relative_error(net.second_output, optimized(*net.second_inputs)) < 1e-9
    assert count(optimized, "aten::batch_norm") > 0, "the module's own graph stays"
    assert norms_that_run(plain, *net.inputs) > 0, "what was optimized before stays"


def test_a_registered_pass_folds_where_gradients_are_needed():
    module = script()
    frozen = torch.jit.freeze(module)
    mine, other = (IMAGE[0].clone().requires_grad_() for _ in range(2))
    with bnfold.registered_pass(), torch.enable_grad():
        for _ in range(3):
            result = frozen(mine)
        result.square().sum().backward()
        module(other).square().sum().backward()
    assert relative_error(other.grad, mine.grad) < 1e-9


def test_a_registered_pass_folds_without_the_fuser():
    frozen = torch.jit.freeze(script())
    before = torch._C._jit_texpr_fuser_enabled()
    torch._C._jit_set_texpr_fuser_enabled(False)
    try:
        with bnfold.registered_pass():
            assert norms_that_run(frozen, *IMAGE) == 0
    finally:
        torch._C._jit_set_texpr_fuser_enabled(before)


def test_a_registered_pass_makes_weights_that_outlive_inference_mode():
    frozen = torch.jit.freeze(script())
    with bnfold.registered_pass(), torch.inference_mode():
        assert norms_that_run(frozen, *IMAGE) == 0
    mine = IMAGE[0].clone().requires_grad_()
    with torch.enable_grad():
        frozen(mine).sum().backward()
    assert mine.grad is not None


def test_a_registered_pass_leaves_modules_whose_weights_may_change():
    module = script()
    with bnfold.registered_pass():
        assert norms_that_run(module, *IMAGE) == 1
        with torch.no_grad():
            module.norm.weight.mul_(2)
        expected = PreActivation.forward(module, *IMAGE)
        assert relative_error(expected, module(*IMAGE)) < 1e-9


def test_the_pass_is_registered_once_and_only_when_asked():
    assert not bnfold.pass_is_registered()
    bnfold.register_pass()
    bnfold.register_pass()
    with bnfold.registered_pass():
        pass
    assert bnfold.pass_is_registered()
    bnfold.unregister_pass()
    bnfold.unregister_pass()
    assert not bnfold.pass_is_registered()


@pytest.mark.parametrize(("value", "registered"), [("1", "True"), ("0", "False"), (None, "False")])
def test_the_environment_registers_the_pass(value, registered):
    environment = {name: text for name, text in os.environ.items() if name != "BNFOLD_AUTO"}
    if value is not None:
        environment["BNFOLD_AUTO"] = value
    code = "import bnfold; print(bnfold.pass_is_registered())"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == registered
