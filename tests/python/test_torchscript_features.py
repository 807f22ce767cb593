"""Folding together with everything else that TorchScript has: each either works or is refused with a sentence."""

import contextlib
import copy
import enum
import io
import itertools
import pickle
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import pytest
import torch
import zoo
from calibrate import relative_error
from cases import EXACT, assert_folded, assert_kept, double, prepared
from torch import nn
from torch.jit.mobile import _load_for_lite_interpreter
from torch.nn import functional as F

import bnfold

both_spellings = pytest.mark.parametrize("spelling", zoo.SPELLINGS)


def image(channels: int = 3) -> torch.Tensor:
    return double(2, channels, 6, 6)


def block(channels: int = 3, kernels: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, kernels, 3, padding=1), nn.BatchNorm2d(kernels), nn.ReLU())


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = block(), nn.Sequential(nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4))


def saved(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    return torch.jit.load(io.BytesIO(module.save_to_buffer()))


def assert_same(expected: Any, actual: Any, tolerance: float = EXACT) -> None:
    assert relative_error(expected, actual) <= tolerance


def assert_folds(model: nn.Module, inputs: tuple, *, spelling: str = "scripted", examples: bool = True, **options) -> torch.jit.ScriptModule:
    """Every norm of a model that is prepared: the result agrees with eager, saved and loaded too, and what went in is untouched."""
    module = zoo.to_torchscript(model, inputs, spelling)
    state, code = copy.deepcopy(module.state_dict()), str(module.inlined_graph)
    result = bnfold.fold(module, inputs if examples else None, **options)
    assert_folded(result)
    expected = model(*inputs)
    for one in (result.module, result.module, saved(result.module)):
        assert_same(expected, one(*inputs))
    assert str(module.inlined_graph) == code
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    return result.module


@pytest.fixture
def inputs() -> tuple:
    return (image(),)


@pytest.fixture
def model(inputs) -> nn.Module:
    return prepared(nn.Sequential(block(), block(5, 4), nn.Hardswish(), nn.Dropout()), inputs)


# ---- what is done with the folded module


def test_run_frozen_optimizations_of_the_result(model, inputs):
    module = bnfold.fold(model).module
    for one in (module, torch.jit.freeze(module, optimize_numerics=False)):
        torch.jit.run_frozen_optimizations(one)
        assert_same(model(*inputs), one(*inputs))


@pytest.mark.parametrize("optimized", [False, True])
def test_optimized_execution(optimized, model, inputs):
    with torch.jit.optimized_execution(optimized):
        assert_folds(model, inputs)


@contextlib.contextmanager
def fuser(name: str):
    """One of torch.jit.fuser; that of tensor expressions with its interpreter, which needs no LLVM."""
    if not hasattr(torch.jit, "fuser") or not hasattr(torch._C, "_jit_set_te_must_use_llvm_cpu"):
        pytest.skip("this torch has no switch for fusers")
    if name == "fuser2" and not torch._C._jit_nvfuser_can_be_enabled():
        pytest.skip("this torch has no nvFuser")
    before = torch._C._jit_get_te_must_use_llvm_cpu()
    torch._C._jit_set_te_must_use_llvm_cpu(False)
    try:
        with torch.jit.fuser(name):
            yield
    finally:
        torch._C._jit_set_te_must_use_llvm_cpu(before)


@pytest.mark.parametrize("name, fuses", [("fuser0", False), ("fuser1", True), ("fuser2", False), ("fuser3", False)])
def test_fusers(name, fuses, model, inputs):
    with fuser(name):
        module = torch.jit.freeze(assert_folds(model, inputs))
        for _ in range(3):
            assert_same(model(*inputs), module(*inputs))
        assert ("TensorExpr" in str(torch.jit.last_executed_optimized_graph())) == fuses


@pytest.mark.filterwarnings("ignore:Lite Interpreter is deprecated")
def test_the_lite_interpreter(model, inputs, tmp_path):
    path = str(tmp_path / "model.ptl")
    module = bnfold.fold(model).module
    for one in (module, torch.jit.freeze(module), torch.jit.script(model)):
        one._save_for_lite_interpreter(path)
        assert_same(model(*inputs), _load_for_lite_interpreter(path)(*inputs))
    assert_folded(bnfold.fold(path, inputs))


@pytest.mark.parametrize("write", [pickle.dumps, lambda module: torch.save(module, io.BytesIO())])
def test_pickling_is_refused_as_for_every_script_module(write, model):
    for module in (torch.jit.script(model), bnfold.fold(model).module):
        with pytest.raises(RuntimeError, match="does not have a __getstate__ method defined"):
            write(module)


def test_channels_last_and_training_mode_of_the_result(model, inputs):
    module = bnfold.fold(model).module.to(memory_format=torch.channels_last)
    output = module(inputs[0].to(memory_format=torch.channels_last))
    assert output.is_contiguous(memory_format=torch.channels_last)
    # It was folded for eval mode, and dropout stays off.
    for one in (output, module(*inputs), module.train()(*inputs), module.eval()(*inputs)):
        assert_same(model(*inputs), one)


def test_the_result_as_a_part_of_another_model(model, inputs):
    part = bnfold.fold(model).module
    whole = prepared(nn.Sequential(block(3, 3), part, block(4, 3)), inputs)
    assert_folds(whole, inputs)
    assert_folds(whole, inputs, spelling="traced")


# ---- modules that other passes have changed


class PreActivation(nn.Module):
    def __init__(self, channels: int, kernels: int):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, kernels, 1)

    def forward(self, x):
        return self.conv(torch.relu(self.norm(x)))


class Dense(nn.Module):
    """As in DenseNet: each norm reads a concatenation that others read too, so freezing leaves it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.a, self.b, self.c = PreActivation(4, 4), PreActivation(8, 4), PreActivation(12, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([x, self.a(x)], 1)
        return self.c(torch.cat([x, self.b(x)], 1))


def freeze_without_numerics(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    return torch.jit.freeze(module, optimize_numerics=False)


@pytest.mark.parametrize("kept", ["in memory", "in a file"])
@pytest.mark.parametrize("freeze", [torch.jit.freeze, freeze_without_numerics, torch.jit.optimize_for_inference])
@both_spellings
def test_norms_that_freezing_left_fold_through_constants(spelling, freeze, kept, inputs, tmp_path):
    dense = prepared(Dense(), inputs)
    frozen = freeze(zoo.to_torchscript(dense, inputs, spelling))
    assert str(frozen.graph).count("aten::batch_norm") == 3
    if kept == "in a file":
        bnfold.save(frozen, tmp_path / "frozen.pt")
        frozen = bnfold.load(tmp_path / "frozen.pt")
    result = bnfold.fold(frozen, inputs)
    assert_folded(result)
    assert [norm.direction for norm in result.report.folded] == ["forward"] * 3
    if kept == "in memory":
        assert [(norm.name, norm.into) for norm in result.report.folded] == [(f"{one}.norm", (f"{one}.conv",)) for one in "abc"]
    for one in (result.module, saved(result.module), torch.jit.freeze(result.module)):
        assert_same(dense(*inputs), one(*inputs))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_layers_that_optimize_for_inference_gave_to_onednn_take_no_norm(inputs):
    dense = prepared(Dense(), inputs)
    single = inputs[0].float()
    optimized = torch.jit.optimize_for_inference(torch.jit.script(copy.deepcopy(dense).float()))
    assert "mkldnn" in str(optimized.graph)
    result = bnfold.fold(optimized, single)
    assert len(result.report.kept) == 3 and result.report.folded == ()
    assert_same(dense(*inputs), result.module(single), tolerance=1e-4)
    # Fold first: then nothing is left to do for it.
    folded_first = torch.jit.optimize_for_inference(bnfold.fold(copy.deepcopy(dense).float()).module)
    assert "batch_norm" not in str(folded_first.graph)
    assert_same(dense(*inputs), folded_first(single), tolerance=1e-4)


# ---- methods and attributes


class Methods(Base):
    def __init__(self):
        super().__init__()
        self.scale, self.names, self.sizes = 2.0, ["a", "b"], {"a": 1}

    def helper(self, x):
        return self.body(x) * self.scale

    def forward(self, x):
        return self.decode(self.helper(x), 1.0)

    @torch.jit.export
    def encode(self, x):
        return self.helper(x) + 1.0

    @torch.jit.export
    def decode(self, x, factor: float = 3.0):
        return self.head(x) * factor

    @torch.jit.export
    def twice(self, x):
        return self.forward(x) + self.decode(self.encode(x), 2.0)

    @torch.jit.export
    def set_scale(self, scale: float):
        self.scale = scale


def test_exported_methods_that_call_each_other(inputs):
    model = prepared(Methods(), inputs)
    module = assert_folds(model, inputs)
    assert_same(model.twice(*inputs), module.twice(*inputs))
    assert not hasattr(module, "encode") and not hasattr(module, "names")  # twice calls the one, nothing reads the other
    module.set_scale(5.0)
    assert model.scale == 2.0
    model.scale = 5.0
    assert_same(model.twice(*inputs), module.twice(*inputs))


def test_preserved_methods_and_values(inputs):
    model = prepared(Methods(), inputs)
    module = assert_folds(model, inputs, preserved_attributes=["helper", "encode", "decode", "names", "sizes", "scale"])
    assert (module.names, module.sizes, module.scale) == (["a", "b"], {"a": 1}, 2.0)
    assert not hasattr(module, "twice") and not hasattr(module, "set_scale")
    module.scale = model.scale = 5.0  # a value that is preserved may be set, so it is no constant
    for method in ("forward", "encode", "helper"):
        assert_same(getattr(model, method)(*inputs), getattr(module, method)(*inputs))
    features = image(5)
    assert_same(model.decode(features), module.decode(features))
    assert_same(model.decode(features, factor=7.0), module.decode(features, factor=7.0))


def test_methods_that_freezing_preserved(inputs):
    model = prepared(Methods(), inputs)
    frozen = torch.jit.freeze(torch.jit.script(model), preserved_attrs=["encode"], optimize_numerics=False)
    module = bnfold.fold(frozen, inputs).module
    for method in ("forward", "encode"):
        assert "batch_norm" not in str(getattr(module, method).graph)
        assert_same(getattr(model, method)(*inputs), getattr(module, method)(*inputs))


class PackedConv(nn.Module):
    """Changes its weight when it is saved, as quantized layers do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, 3, 3))

    def forward(self, x):
        return F.conv2d(x, self.weight)

    @torch.jit.export
    def __getstate__(self):
        return self.weight * 2.0, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[torch.Tensor, bool]):
        self.weight, self.training = state[0] / 2.0, state[1]


def test_a_layer_with_a_state_of_its_own_is_saved_like_any_other(inputs):
    model = prepared(nn.Sequential(PackedConv(), nn.BatchNorm2d(5)), inputs)
    assert_folds(model, inputs)
    result = bnfold.fold(saved(torch.jit.script(model)), inputs)
    assert_folded(result, into="0")
    assert_same(model(*inputs), result.module(*inputs))
    assert set(result.module.state_dict()) == {"0.weight", "0.bias"}


# ---- hooks


def doubled(self, input: Tuple[torch.Tensor]) -> Tuple[torch.Tensor]:
    return (input[0] * 2.0,)


def halved(self, input: Tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    return output * 0.5


both_hooks = pytest.mark.parametrize("register, hook", [("register_forward_pre_hook", doubled), ("register_forward_hook", halved)])


@both_spellings
@both_hooks
@pytest.mark.parametrize("place", ["0", "0.0", "0.1", "1"])
def test_hooks_of_submodules(place, register, hook, spelling, model, inputs):
    plain = model(*inputs)
    getattr(model.get_submodule(place), register)(hook)
    assert relative_error(plain, model(*inputs)) > 0.01
    assert_folds(model, inputs, spelling=spelling)


@both_hooks
def test_hooks_of_the_root_are_refused_unless_traced(register, hook, model, inputs):
    getattr(model, register)(hook)
    assert_folds(model, inputs, spelling="traced")
    with pytest.raises(bnfold.Error, match="the module has forward hooks, which are not folded; call what they do in forward"):
        bnfold.fold(model)


# ---- modules behind interfaces and in containers


@torch.jit.interface
class Part(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pass


class Layer(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Nested(nn.Module):
    part: Part

    def __init__(self, part: nn.Module):
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part.forward(x) + 1


class ForkedMethodOfInterface(Nested):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        part = self.part
        return torch.jit.wait(torch.jit.fork(part.forward, x))


@pytest.mark.parametrize("kind", [Nested, lambda part: Nested(Nested(part)), ForkedMethodOfInterface])
def test_interfaces(kind, inputs):
    assert_folds(prepared(kind(Layer()), inputs), inputs)


class Chosen(nn.Module):
    a: Part
    b: Part

    def __init__(self):
        super().__init__()
        self.a, self.b = Layer(), Layer()

    def forward(self, x, first: bool):
        part = self.a if first else self.b
        return part.forward(x)


class ChosenFromList(Chosen):
    def forward(self, x, first: bool):
        return [self.a, self.b][int(first)].forward(x)


class Replaced(Chosen):
    def forward(self, x, first: bool):
        if first:
            self.a = self.b
        return self.a.forward(x)


class Handed(Chosen):
    def forward(self, x, first: bool):
        return x

    @torch.jit.export
    def part(self) -> Part:
        return self.a


@pytest.mark.parametrize("kind", [ChosenFromList, Chosen, Replaced, Handed])
def test_a_submodule_chosen_at_run_time_is_refused(kind):
    with pytest.raises(bnfold.Error, match="submodule as a value, which can't be flattened; fold the submodule by itself"):
        bnfold.fold(kind().eval())


class Containers(nn.Module):
    def __init__(self):
        super().__init__()
        self.chain = nn.ModuleList([*block(3, 3), nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)])
        self.named = nn.ModuleDict({"conv": nn.Conv2d(5, 5, 1), "norm": nn.BatchNorm2d(5)})
        self.convs, self.norms = nn.ModuleList(nn.Conv2d(5, 5, 1) for _ in range(2)), nn.ModuleList(nn.BatchNorm2d(5) for _ in range(2))

    def forward(self, x):
        for i, layer in enumerate(self.chain):
            x = layer(x) if i < 4 else x
        x = self.chain[-1](x)
        for name, layer in self.named.items():
            x = layer(x)
        for conv, norm in zip(self.convs, self.norms):
            x = norm(conv(x))
        for conv in self.convs[1:]:
            x = self.norms[0](conv(x))
        return self.named["norm"](x) if "conv" in self.named else x


@both_spellings
def test_containers(spelling, inputs):
    assert_folds(prepared(Containers(), inputs), inputs, spelling=spelling)


# ---- classes of TorchScript's own


@torch.jit.script
class Gain:
    def __init__(self, factor: float):
        self.factor = factor
        self.calls = 0

    def apply(self, x: torch.Tensor):
        self.calls += 1
        return x * self.factor * self.calls


@torch.jit.script
class Holder:
    def __init__(self, value: torch.Tensor):
        self.value = value


class MakesAnObject(Base):
    def forward(self, x):
        gain = Gain(0.5)
        return gain.apply(gain.apply(self.body(x)))


class ChangesAnObject(Base):
    def __init__(self):
        super().__init__()
        self.gain = Gain(0.5)

    def forward(self, x):
        return self.gain.apply(self.body(x))


class NormBehindAnObject(Base):
    def forward(self, x):
        return self.body[1](Holder(self.body[0](x)).value)


def test_objects_that_are_made_beside_the_norm(inputs):
    assert_folds(prepared(MakesAnObject(), inputs), inputs)


def test_a_value_inside_an_object_takes_no_norm(inputs):
    model = prepared(NormBehindAnObject(), inputs)
    assert_kept(bnfold.fold(model, inputs), "no_rule_for_operator")


@pytest.mark.parametrize("with_example", [False, True])
def test_the_result_has_objects_of_its_own(with_example, inputs):
    module = torch.jit.script(prepared(ChangesAnObject(), inputs))
    calls = module.gain.calls
    result = bnfold.fold(module, inputs if with_example else None).module
    output = result(*inputs)
    assert (module.gain.calls, result.gain.calls) == (calls, calls + 1)
    assert_same(module(*inputs), output)


# ---- arguments, results and tasks


class Pair(NamedTuple):
    low: torch.Tensor
    high: Optional[torch.Tensor]


class Containing(Base):
    def forward(self, pair: Tuple[torch.Tensor, int], values: Dict[str, torch.Tensor], items: List[torch.Tensor]):
        outputs: List[torch.Tensor] = []
        for item in items:
            outputs.append(self.head(self.body(item)))
        x, count = pair
        return (self.body(x) * count, count), {"a": self.head(self.body(values["x"]))}, outputs


class NamedTuples(Base):
    def forward(self, pair: Pair) -> Pair:
        high = pair.high
        return Pair(self.head(self.body(pair.low)), None if high is None else self.body(high))


class Optionals(Base):
    def forward(self, x: Optional[torch.Tensor] = None) -> Optional[torch.Tensor]:
        return None if x is None else self.head(self.body(x))


class InsideStructures(Base):
    """What is between layer and norm goes through a named tuple, a tuple and a dict."""

    def forward(self, x):
        pair = Pair(self.body[0](x), None)
        values = {"y": (self.body[1](pair.low), x)[0]}
        return self.head[1](self.head[0](values["y"]))


class Tasks(Base):
    def forward(self, x):
        tasks: List[torch.jit.Future[torch.Tensor]] = []
        for _ in range(2):
            tasks.append(torch.jit.fork(self.body, x))
        for task in tasks:
            x = torch.cat([x, torch.jit.wait(task)[:, :1]], 1)
        return self.head(torch.jit.wait(torch.jit.fork(self.body, x[:, 2:])))


class NestedTasks(Base):
    def inner(self, x):
        return torch.jit.wait(torch.jit.fork(self.head, self.body(x)))

    def forward(self, x):
        return torch.jit.wait(torch.jit.fork(self.inner, x))


@pytest.mark.parametrize(
    "kind, examples",
    [
        *itertools.product([Containing, Optionals, InsideStructures, Tasks], [False, True]),
        (NamedTuples, False),
        (NamedTuples, True),
        (NestedTasks, False),
        (NestedTasks, True),
    ],
)
def test_structures_and_tasks(kind, examples):
    x = image()
    inputs = {Containing: ((x, 3), {"x": x}, [x, image()]), NamedTuples: (Pair(x, image()),)}.get(kind, (x,))
    assert_folds(prepared(kind(), inputs), inputs, examples=examples)


def test_a_method_that_only_a_task_calls_is_not_kept(inputs):
    module = torch.jit.script(prepared(NestedTasks(), inputs))
    assert hasattr(module, "inner") and not hasattr(bnfold.fold(module).module, "inner")


def test_values_that_are_none():
    output = bnfold.fold(prepared(NamedTuples(), (Pair(image(), image()),))).module(Pair(image(), None))
    assert output.high is None and output.low.shape == (2, 4, 6, 6)
    optional = bnfold.fold(prepared(Optionals(), (image(),)), (None,)).module
    assert optional() is None and optional(image()).shape == (2, 4, 6, 6)


class WithNumber(Base):
    def __init__(self, apply):
        super().__init__()
        self.apply_number = apply

    def forward(self, x):
        return self.body[1](self.apply_number(self.body[0](x)))


def added(x):
    return x + 1.0


def subtracted(x):
    return x - 1


def multiplied(x):
    return x * 2


def multiplied_by_a_fraction(x):
    return 2.5 * x


def multiplied_in_place(x):
    return x.mul_(0.5)


def divided(x):
    return x / 2.5


def divided_in_place(x):
    return x.div_(2)


def negated(x):
    return -x


def multiplied_twice(x):
    return x * -1.5 * 2.5


def multiplied_added_divided(x):
    return (x * 0.7 + 0.3) * 1.1 / 0.9


NUMBERS = [multiplied_twice, multiplied_added_divided, added, subtracted, multiplied, multiplied_by_a_fraction, multiplied_in_place, divided, divided_in_place, negated]


@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
@pytest.mark.parametrize("apply", NUMBERS, ids=lambda apply: apply.__name__)
def test_a_number_that_a_trace_makes_a_tensor(apply, spelling, inputs):
    assert_folds(prepared(WithNumber(apply), inputs), inputs, spelling=spelling)


# ---- what several parts of a module hold


class Appending(Base):
    """Fills a list that another submodule counts."""

    def __init__(self):
        super().__init__()
        self.kept: List[torch.Tensor] = [torch.zeros(1)]

    def forward(self, x):
        self.kept.append(torch.ones(1))
        return self.body(x)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.kept: List[torch.Tensor] = [torch.zeros(1)]

    def forward(self, x):
        return x * len(self.kept)


class Registering(Base):
    def __init__(self):
        super().__init__()
        self.kept: Dict[str, int] = {"calls": 1}

    def forward(self, x):
        self.kept["calls"] += 1
        return self.body(x)


class Reporting(nn.Module):
    def __init__(self):
        super().__init__()
        self.kept: Dict[str, int] = {"calls": 1}

    def forward(self, x):
        return x * self.kept["calls"]


class Sizing(Base):
    """Fills a list of numbers, which are constants where nobody does."""

    def __init__(self):
        super().__init__()
        self.kept: List[int] = [1]

    def forward(self, x):
        self.kept.append(len(self.kept))
        return self.body(x)


class Measuring(nn.Module):
    def __init__(self):
        super().__init__()
        self.kept: List[int] = [1]

    def forward(self, x):
        return x * len(self.kept)


class CallsAnObject(Base):
    def __init__(self):
        super().__init__()
        self.kept = Gain(0.5)

    def forward(self, x):
        self.kept.apply(x)
        return self.body(x)


class AsksAnObject(nn.Module):
    def __init__(self):
        super().__init__()
        self.kept = Gain(0.5)

    def forward(self, x):
        return x * (1 + self.kept.calls)


class Two(nn.Module):
    """Two submodules, of which both hold what the first one does after ``share``."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first, self.second = first, second

    @torch.jit.export
    def share(self):
        self.second.kept = self.first.kept

    def forward(self, x):
        return self.second(self.first(x))


PAIRS = [(Appending, Counting), (Registering, Reporting), (Sizing, Measuring), (CallsAnObject, AsksAnObject)]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("first, second", PAIRS)
def test_what_two_submodules_hold_is_one_in_the_result_too(first, second, shared, inputs):
    module = torch.jit.script(prepared(Two(first(), second()), inputs))
    if shared:
        module.share()
    original = saved(module)
    result = bnfold.fold(saved(module), preserved_attributes=["forward"])
    assert_folded(result)
    outputs = [result.module(*inputs) for _ in range(3)]
    for output in outputs:
        assert_same(original(*inputs), output)
    # Each run adds to what is shared, and to nothing where it is not.
    assert torch.equal(outputs[0], outputs[1]) != shared


@pytest.mark.parametrize("first, second", PAIRS)
def test_the_comparison_sees_what_two_submodules_hold(first, second, inputs):
    module = torch.jit.script(prepared(Two(first(), second()), inputs))
    module.share()
    alone = saved(torch.jit.script(prepared(Two(first(), second()), inputs)))
    alone.load_state_dict(module.state_dict())
    assert bnfold.check(module, saved(module), [inputs, inputs])
    assert not bnfold.check(module, alone, [inputs, inputs])


class OneTensorInTwoLists(Base):
    def __init__(self, written: bool):
        super().__init__()
        total = torch.ones(1)
        self.one, self.other, self.written = [total], [torch.zeros(1), total], written

    def forward(self, x):
        if self.written:
            self.one[0].add_(1.0)
        return self.body(x) * self.other[1]


@pytest.mark.parametrize("written", [True, False])
def test_a_tensor_in_two_lists_is_one(written, inputs):
    module = torch.jit.script(prepared(OneTensorInTwoLists(written), inputs))
    result = bnfold.fold(module)
    assert_folded(result)
    total = module.one[0].item()
    outputs = [result.module(*inputs) for _ in range(3)]
    assert module.one[0].item() == total
    for output in outputs:
        assert_same(module(*inputs), output)


class ViewsInAList(Base):
    """Two views of one memory, of which one is written."""

    def __init__(self):
        super().__init__()
        values = torch.arange(1.0, 4.0)
        self.views = [values[:1], values[:2]]

    def forward(self, x):
        self.views[0].add_(1.0)
        return self.body(x) * self.views[1].sum()


def test_views_in_a_list_stay_views_of_one_memory(inputs):
    module = torch.jit.script(prepared(ViewsInAList(), inputs))
    result = bnfold.fold(module, inputs).module
    outputs = [result(*inputs) for _ in range(3)]
    for output in outputs:
        assert_same(module(*inputs), output)


# ---- one submodule with several names


class TwoNames(nn.Module):
    """One convolution and norm under two names."""

    def __init__(self):
        super().__init__()
        self.query = block()
        self.key = self.query

    def forward(self, x):
        return self.query(x) * self.key(x.flip(-1))


class OneOfThemKept(TwoNames):
    def forward(self, x):
        return self.query(x) * self.key[2](self.key[1](torch.sigmoid(self.key[0](x))))


class NamedDeepInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Sequential(block(), block(5, 5)), nn.Sequential(block(), block(5, 5))
        self.right[1] = self.left[1]

    def forward(self, x):
        return self.left(x) + self.right(x)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("kind", [TwoNames, NamedDeepInside])
@both_spellings
def test_what_has_two_names_is_stored_once(spelling, kind, loaded, inputs):
    model = prepared(kind(), inputs)
    module = zoo.to_torchscript(model, inputs, spelling)
    result = bnfold.fold(saved(module) if loaded else module)
    assert_folded(result)
    assert_same(model(*inputs), saved(result.module)(*inputs))
    assert result.report.parameters_after <= result.report.parameters_before
    stored = {value.data_ptr(): value.numel() for value in result.module.state_dict().values()}
    assert sum(stored.values()) <= sum(parameter.numel() for parameter in model.parameters())


def test_what_folds_differently_under_two_names_is_stored_for_each(inputs):
    model = prepared(OneOfThemKept(), inputs)
    result = bnfold.fold(torch.jit.script(model), inputs)
    assert_same(model(*inputs), result.module(*inputs))
    assert len(result.report.kept) == 1
    state = result.module.state_dict()
    assert not torch.equal(state["query.0.weight"], state["key.0.weight"])


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.calls = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), 1

    def forward(self, x, plain: bool):
        self.calls += 1
        y = self.conv(x)
        return self.norm(y if plain else torch.sigmoid(y)) * self.calls


class CalledAlike(nn.Module):
    """One object under two names, which scripting keeps where it was scripted before."""

    def __init__(self, counted: torch.jit.ScriptModule):
        super().__init__()
        self.query, self.key = counted, counted

    def forward(self, x):
        return self.query(x, True) * self.key(x, True)


class CalledDifferently(CalledAlike):
    def forward(self, x):
        return self.query(x, True) * self.key(x, False)


def test_what_is_assigned_under_one_name_is_read_under_the_other(inputs):
    module = torch.jit.script(CalledAlike(torch.jit.script(Counted().double().eval())).eval())
    result = bnfold.fold(module)
    assert_folded(result)
    outputs = [result.module(*inputs) for _ in range(3)]
    for output in outputs:
        assert_same(module(*inputs), output)


def test_what_is_assigned_under_two_names_that_fold_differently_is_refused(inputs):
    module = torch.jit.script(CalledDifferently(torch.jit.script(Counted().double().eval())).eval())
    with pytest.raises(bnfold.Error, match="'key' and 'query' are one submodule, and the module assigns its attributes"):
        bnfold.fold(module, inputs)


# ---- recurrent layers


class Recurrent(nn.Module):
    def __init__(self, kind: type, **options):
        super().__init__()
        self.body, self.recurrent = nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.ReLU()), kind(6, 5, **options)

    def forward(self, x):
        return self.recurrent(self.body(x).permute(2, 0, 1))[0]


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "batch_first": True}], ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@both_spellings
def test_recurrent_layers(spelling, kind, options):
    inputs = (double(2, 3, 9),)
    model = prepared(Recurrent(kind, **options), inputs)
    module = assert_folds(model, inputs, spelling=spelling)
    names = [name for name, _ in model.recurrent.named_parameters(prefix="recurrent")]
    assert set(names) <= set(module.state_dict())
    if spelling == "scripted":
        module.float()  # what the layer reads are the parameters of the result, so that they are moved with it
        assert_same(model(*inputs), module(inputs[0].float()).double(), tolerance=1e-4)


class NormBeforeRecurrent(nn.Module):
    """The norm of sequences that no layer before it can take."""

    def __init__(self, kind: type, **options):
        super().__init__()
        self.linear, self.norm, self.recurrent = nn.Linear(3, 6), nn.BatchNorm1d(6), kind(6, 5, batch_first=True, **options)

    def forward(self, x):
        y = torch.tanh(self.linear(x))
        return self.recurrent(self.norm(y.transpose(1, 2)).transpose(1, 2))[0]


class NormBeforeCell(nn.Module):
    """The cell is given rows, or one row, and so its input has rank 2 where it comes from a norm."""

    def __init__(self, kind: type):
        super().__init__()
        self.linear, self.norm, self.cell = nn.Linear(3, 6), nn.BatchNorm1d(6), kind(6, 5)

    def forward(self, x):
        return self.cell(self.norm(torch.tanh(self.linear(x))))


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@both_spellings
def test_a_norm_before_a_recurrent_cell(spelling, kind):
    inputs = (double(4, 3),)
    model = prepared(NormBeforeCell(kind), inputs)
    module = zoo.to_torchscript(model, inputs, spelling)
    for one in (module, saved(module)):
        result = bnfold.fold(one, inputs if spelling == "traced" else None)  # a scripted cell asks for the rank itself
        assert_folded(result)
        for other in (inputs[0], double(1, 3)):
            assert_same(model(other), result.module(other))


def test_checks_that_prove_a_rank_together_stay():
    model = prepared(NormBeforeCell(nn.GRUCell), (double(4, 3),))
    folded = bnfold.fold(torch.jit.script(model)).module
    for other in (double(3), double(2, 6, 3)):
        with pytest.raises(torch.jit.Error, match="expected 2D or 3D input|Expected input to be 1D or 2D|AssertionError"):
            folded(other)


class ConvolutionOfABranch(nn.Module):
    """Its condition stands between the convolution and the norm's own check of the rank, which TorchScript would take for 5 otherwise."""

    def __init__(self):
        super().__init__()
        self.conv, self.other, self.norm, self.flag = nn.Conv3d(2, 2, 1), nn.Conv3d(2, 2, 1), nn.BatchNorm2d(4), False

    def forward(self, x):
        y = self.conv(x)
        if self.flag:
            y = self.other(y)
        return self.norm(y)


def test_a_convolution_of_volumes_without_a_batch_in_front_of_a_norm_of_images():
    inputs = (double(2, 4, 6, 6),)
    model = prepared(ConvolutionOfABranch(), inputs)
    module = torch.jit.script(model)
    for example_inputs in (None, inputs):
        folded = bnfold.fold(module, example_inputs).module
        for _ in range(2):
            assert_same(model(*inputs), folded(*inputs))


class NormOfOneSequence(NormBeforeRecurrent):
    """Likewise, of rank 2, or of rank 3 and then along another dimension: which one it is no operator tells."""

    def forward(self, x):
        return self.recurrent(self.norm(torch.tanh(self.linear(x))))[0]


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@both_spellings
def test_a_norm_before_a_recurrent_layer(spelling, kind, options):
    inputs = (double(2, 7, 3),)
    model = prepared(NormBeforeRecurrent(kind, **options), inputs)
    module = zoo.to_torchscript(model, inputs, spelling)
    for one in (module, saved(module)):
        result = bnfold.fold(one, inputs if spelling == "traced" else None)  # a scripted norm asks for the rank itself
        assert_folded(result)
        for other in (inputs[0], double(1, 3, 3)):
            assert_same(model(other), result.module(other))


def test_a_condition_on_a_rank_that_is_not_proven_stays():
    model = prepared(NormOfOneSequence(nn.LSTM), (double(7, 3),))
    result = bnfold.fold(torch.jit.script(model))
    assert_kept(result, "operator_not_affine")
    sequence = double(7, 3)
    assert_same(model(sequence), result.module(sequence))


def test_a_loaded_recurrent_layer_is_stored_once():
    inputs = (double(2, 3, 9),)
    model = prepared(Recurrent(nn.LSTM), inputs)
    result = bnfold.fold(saved(torch.jit.script(model)), inputs)
    assert result.report.parameters_after < result.report.parameters_before
    assert_same(model(*inputs), saved(result.module.float())(inputs[0].float()).double(), tolerance=1e-4)


class WritesItsWeights(Recurrent):
    """The list of a recurrent layer holds the weight of the convolution, and writes it."""

    def __init__(self):
        super().__init__(nn.GRU)
        self.held = [self.body[0].weight]

    def forward(self, x):
        self.held[0].mul_(2.0)
        return self.body(x)


def test_a_list_through_which_a_weight_is_written_is_refused():
    with pytest.raises(bnfold.Error, match="held and body.0.weight share memory that may be written"):
        bnfold.fold(torch.jit.script(prepared(WritesItsWeights(), (double(2, 3, 9),))))


# ---- methods that are left to Python


class Ignoring(Base):
    @torch.jit.ignore
    def show(self, x: torch.Tensor) -> torch.Tensor:
        print(x)
        return x

    def forward(self, x):
        return self.show(self.body(x)) if self.training else self.body(x)


class IgnoringInAnExportedMethod(Ignoring):
    @torch.jit.export
    def debug(self, x):
        return self.show(x)


class IgnoringInForward(Ignoring):
    def forward(self, x):
        return self.show(self.body(x))


@pytest.mark.parametrize("kind", [Ignoring, IgnoringInAnExportedMethod])
def test_ignored_methods_that_forward_does_not_call(kind, inputs):
    model = prepared(kind(), inputs)
    module = assert_folds(model, inputs)
    assert not hasattr(module, "debug")


@pytest.mark.parametrize("kind, options", [(IgnoringInForward, {}), (IgnoringInAnExportedMethod, {"preserved_attributes": ["debug"]})])
def test_an_ignored_method_that_is_needed_is_refused(kind, options, inputs):
    with pytest.raises(bnfold.Error, match="the module calls .*show, which @torch.jit.ignore left to Python"):
        bnfold.fold(torch.jit.script(prepared(kind(), inputs)), **options)


# ---- modes that the caller is in


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference_mode": lambda: torch.inference_mode(),
    "enable_grad": lambda: torch.enable_grad(),
    "half by default": lambda: default_dtype(torch.half),
    "double by default": lambda: default_dtype(torch.double),
    "meta by default": lambda: torch.device("meta") if hasattr(torch, "set_default_device") else contextlib.nullcontext(),
}


class Mixed(nn.Module):
    """Norms that fold backward, forward, as bounds and sideways, beside one that is spelled out."""

    def __init__(self):
        super().__init__()
        self.body, self.early, self.late = block(), nn.BatchNorm2d(5), nn.Conv2d(5, 5, 1)
        self.beside, self.linear, self.last = nn.Conv2d(5, 5, 3, padding=1), nn.Linear(5, 4), nn.BatchNorm1d(4)
        self.register_buffer("scale", torch.rand(5, 1, 1) + 0.5)

    def forward(self, x):
        y = self.late(torch.relu(self.early(self.body(x) * self.scale)))
        y = self.beside(y) + self.early(y)
        return self.last(self.linear(y.mean([2, 3])))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("examples", [False, True])
def test_the_mode_of_the_caller_changes_nothing(examples, mode, inputs):
    model = prepared(Mixed(), inputs).float()
    inputs = (inputs[0].float(),)
    module = torch.jit.script(model)
    expected = bnfold.fold(module, inputs)
    with MODES[mode]():
        result = bnfold.fold(module, inputs if examples else None)
        frozen = bnfold.freeze(module)
        optimized = bnfold.optimize_for_inference(module, inputs if examples else None)
    if examples:
        assert [norm.name for norm in result.report.folded] == [norm.name for norm in expected.report.folded]
    assert not any(value.is_inference() for value in result.module.state_dict().values())
    for name, value in result.module.state_dict().items():
        assert value.dtype == torch.float and value.device.type == "cpu", name
    for one in (result.module, frozen, optimized):
        assert_same(model(*inputs), one(*inputs), tolerance=1e-5)


def test_a_module_that_was_made_in_inference_mode(inputs):
    with torch.inference_mode():
        module = torch.jit.script(prepared(Mixed(), (image(),)))
        result = bnfold.fold(module, (image(),))
        assert_same(module(*inputs), result.module(*inputs))
    assert_same(module(*inputs), bnfold.fold(module).module(*inputs))


# ---- what was optimized already


def test_an_optimized_module_is_folded_saved_and_loaded(inputs):
    images = (inputs[0].float(),)

    class Optimized(Base):
        def forward(self, x):
            return self.head(self.body(x))

    model = prepared(Optimized(), inputs).float()
    optimized = bnfold.optimize_for_inference(model, images)
    for one in (bnfold.fold(optimized, images).module, bnfold.fold(saved(optimized), images).module):
        assert_same(model(*images), saved(one)(*images), tolerance=1e-5)


# ---- enumerations


class Order(enum.Enum):
    CHANNELS_FIRST = "NCHW"
    CHANNELS_LAST = "NHWC"


class Ordered(nn.Module):
    """The branch that an attribute decides, as in the patch embeddings of timm."""

    def __init__(self, order: Order):
        super().__init__()
        self.conv, self.norm, self.order = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), order

    def forward(self, x):
        y = self.conv(x)
        if self.order == Order.CHANNELS_LAST:
            y = torch.tanh(y)
        return self.norm(y)


class Reordered(Ordered):
    def forward(self, x):
        y = self.conv(x)
        if self.order == Order.CHANNELS_LAST:
            y = torch.tanh(y)
        self.order = Order.CHANNELS_LAST
        return self.norm(y)


def test_a_branch_that_an_enumeration_decides():
    model = prepared(Ordered(Order.CHANNELS_FIRST), (image(),))
    result = bnfold.fold(torch.jit.script(model))
    assert_folded(result)
    x = image()
    assert relative_error(model(x), saved(result.module)(x)) < EXACT
    assert_kept(bnfold.fold(torch.jit.script(prepared(Ordered(Order.CHANNELS_LAST), (image(),)))), "operator_not_affine")


def test_an_enumeration_that_is_assigned_decides_nothing():
    assert_kept(bnfold.fold(torch.jit.script(prepared(Reordered(Order.CHANNELS_FIRST), (image(),)))), "operator_not_affine")


# ---- parts along the batch


class GhostNorm(nn.Module):
    """The ghost batch norm of TabNet; another norm takes the last part where there is one."""

    def __init__(self, other: bool = False):
        super().__init__()
        self.linear, self.norm, self.other = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.BatchNorm1d(6) if other else None

    def forward(self, x):
        a, b, c = self.linear(x).chunk(3, 0)
        return torch.cat([self.norm(a), self.norm(b), self.norm(c) if self.other is None else self.other(c)], 0)


@both_spellings
def test_a_ghost_batch_norm(spelling):
    inputs = (double(7, 4),)
    assert_folds(prepared(GhostNorm(), inputs), inputs, spelling=spelling)
    model = prepared(GhostNorm(other=True), inputs)
    report = bnfold.fold(zoo.to_torchscript(model, inputs, spelling)).report
    assert {norm.reason for norm in report.kept} == {"value_has_other_readers"} and not report.folded


# ---- attention


class Attention(nn.Module):
    def __init__(self, needs_weights: bool = False, alone: bool = True):
        super().__init__()
        self.norm, self.attention = nn.BatchNorm1d(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.needs_weights, self.alone = needs_weights, alone

    def forward(self, x):
        y = self.norm(x.transpose(1, 2)).transpose(1, 2)
        z = y if self.alone else x
        return self.attention(y, z, z, need_weights=self.needs_weights)[0]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("needs_weights", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_self_attention_in_one_step(batch, needs_weights):
    model = prepared(Attention(needs_weights), (double(batch, 5, 8),))
    x = double(batch, 5, 8)
    with torch.no_grad():
        traced = torch.jit.trace(model, (x,), check_trace=False)
        result = bnfold.fold(traced)
        assert_folded(result)
        assert relative_error(model(x), result.module(x)) < EXACT
        assert_kept(bnfold.fold(torch.jit.trace(prepared(Attention(alone=False), (x,)), (x,), check_trace=False)), "value_from_graph_input")


@pytest.mark.parametrize("needs_weights", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_scripted_self_attention(batch, needs_weights):
    # Its fast path is one step, its slow path a linear layer. Which one a run takes depends on gradients and autocast.
    model = prepared(Attention(needs_weights), (double(3, 5, 8),))
    x = double(batch, 5, 8)
    result = bnfold.fold(torch.jit.script(model))
    assert_folded(result)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            assert relative_error(model(x).detach(), result.module(x).detach()) < EXACT
    kept = bnfold.fold(torch.jit.script(prepared(Attention(alone=False), (x,)))).report.kept
    assert [norm.reason for norm in kept] == ["value_from_graph_input"]


class NormBehindAttention(nn.Module):
    def __init__(self, normalized: int = 0):
        super().__init__()
        self.first, self.attention, self.norm = nn.BatchNorm1d(8), nn.MultiheadAttention(8, 2), nn.BatchNorm1d(8 if normalized == 0 else 5)
        self.normalized = normalized

    def forward(self, x):
        y = self.first(x).permute(2, 0, 1)
        y, weights = self.attention(y, y, y)
        if self.normalized == 0:
            return self.norm(y.permute(1, 2, 0))
        assert weights is not None
        return self.norm(weights)


@both_spellings
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_norm_behind_attention(spelling):
    # The result is an element of a tuple that conditions return.
    for batch in (1, 3):
        inputs = (double(batch, 8, 5),)
        assert_folds(prepared(NormBehindAttention(), (double(3, 8, 5),)), inputs, spelling=spelling)
    model = prepared(NormBehindAttention(normalized=1), (double(3, 8, 5),))
    report = bnfold.fold(zoo.to_torchscript(model, inputs, spelling)).report
    assert [norm.name for norm in report.kept] == ["norm"]


# ---- ranks that a run of the example tells


class BehindAnyOperator(nn.Module):
    """No rule knows what these do to ranks."""

    def __init__(self, takes_last: bool):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 5), nn.BatchNorm1d(5)
        self.takes_last = takes_last
        self.register_buffer("runs", torch.zeros(1, dtype=torch.float64))

    def forward(self, x, shift: float = 0.5):
        self.runs += 1
        y = torch.cummax(x, 1)[0] + shift
        if self.takes_last:
            y = y.unfold(1, 1, 1)[:, -1].squeeze()
        return self.norm(self.linear(y))


def test_an_example_tells_the_ranks_behind_any_operator():
    inputs = (double(3, 5, 4),)
    model = prepared(BehindAnyOperator(takes_last=True), inputs)
    runs = float(model.runs)
    module = torch.jit.script(model)
    for result in (bnfold.fold(module), bnfold.fold(module, inputs)):
        assert_folded(result)
    assert bnfold.report_of(bnfold.optimize_for_inference(module, inputs)).kept == ()
    assert float(model.runs) == runs
    for batch in (2, 7):
        x = double(batch, 5, 4)
        assert relative_error(model(x), result.module(x)) <= EXACT


def test_an_example_tells_that_a_norm_works_along_another_dimension():
    inputs = (double(3, 5, 4),)
    model = prepared(BehindAnyOperator(takes_last=False), inputs)
    assert_kept(bnfold.fold(torch.jit.script(model), inputs), "affine_varies_elsewhere")
