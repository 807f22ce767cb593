"""Memory that several values share, whether TorchScript can tell or not: what is written into it reaches those that read it later, and
nobody else. Each case goes through every door, beside a twin one detail away that folds."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, Dict, List, Optional, Tuple  # noqa: F401: in the sources below

import pytest
import torch
from calibrate import relative_error
from cases import assert_folded
from torch import Tensor, nn  # noqa: F401: likewise
from torch.nn import functional as F  # noqa: F401: likewise

import bnfold

# In float, which alone has fused steps. What is wrong here is off by much more.
ROUNDING = 1e-4


def norm_of(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.weight.uniform_(0.5, 1.5).mul_(torch.tensor([1.0, -1, 1, -1])[:channels])
    norm.bias.normal_()
    return norm


class Layers(nn.Module):
    """What the sources below are made of: from 3 channels to 4, and then on."""

    def __init__(self):
        super().__init__()
        self.image_norm = norm_of(3)
        self.conv, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.norm = norm_of(4)
        self.head = nn.Conv2d(4, 4, 1)
        self.register_buffer("gate", torch.randn(4, 1, 1))
        self.register_buffer("memory", torch.randn(2, 3, 5, 5))
        self.register_buffer("number", torch.tensor(2.0, dtype=torch.float64))

    @torch.jit.export
    def same(self, x):
        return x

    @torch.jit.export
    def halved(self, x):
        return x.mul_(0.5)

    @torch.jit.export
    def convolved(self, x):
        return self.conv(x)


def with_forward(statements: str, arguments: str) -> tuple[Layers, str]:
    """Eager, and the source of its forward, which torch.jit.script would look for in a file."""
    source = f"def forward(self, {arguments}):\n" + "".join(f"    {line}\n" for line in statements.strip().splitlines())
    namespace: dict[str, Any] = {}
    exec(source, globals(), namespace)
    torch.manual_seed(0)
    return type("WithForward", (Layers,), namespace)().eval(), source


def scripted(statements: str, arguments: str = "x") -> torch.jit.ScriptModule:
    eager, source = with_forward(statements, arguments)
    del type(eager).forward
    module = torch.jit.script(eager)
    module.define(source)
    return module


def image() -> Tensor:
    return torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))


# ---- the doors


def folded(module: torch.jit.ScriptModule, inputs: tuple) -> Any:
    # Example inputs would be compared with the original, and a wrong result refused.
    return bnfold.fold(module, input_ranks=[value.dim() if isinstance(value, Tensor) else None for value in inputs]).module


def frozen(module: torch.jit.ScriptModule, inputs: tuple) -> Any:
    return bnfold.freeze(module)


def optimized(module: torch.jit.ScriptModule, inputs: tuple) -> Any:
    return bnfold.optimize_for_inference(module, inputs)


def folded_by_the_executor(module: torch.jit.ScriptModule, inputs: tuple) -> Any:
    return torch.jit.freeze(module, optimize_numerics=False)


DOORS = [folded, frozen, optimized, folded_by_the_executor]
every_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)

Arguments = Callable[[], tuple]


def runs(module: Any, arguments: tuple) -> list[Any]:
    """The outputs of three runs, and the arguments behind each of them."""
    seen: list[Any] = []
    for _ in range(3):
        own = copy.deepcopy(arguments)  # tensors that share memory go on sharing it
        seen.append(copy.deepcopy((module(*own), own)))
    return seen


@contextlib.contextmanager
def executor_of(door: Callable) -> Iterator[None]:
    with bnfold.registered_pass() if door is folded_by_the_executor else contextlib.nullcontext():
        yield


def assert_alike(door: Callable, statements: str, arguments: tuple, signature: str = "x", *, may_refuse: bool = False) -> None:
    """The module that went through the door computes what eager does, and leaves its inputs as eager does.

    TorchScript drops what is written by a name of which it does not know that others read that memory, some of it while it compiles: then
    the module that comes in has no such write. A module with one may be refused.
    """
    expected = [runs(with_forward(statements, signature)[0], arguments), runs(scripted(statements, signature), arguments)]
    try:
        module = door(scripted(statements, signature), copy.deepcopy(arguments))
    except bnfold.Error:
        if may_refuse:
            return
        raise
    with executor_of(door):
        actual = runs(module, arguments)
    assert min(max(relative_error(one, other) for one, other in zip(right, actual)) for right in expected) <= ROUNDING


def assert_folds(statements: str, arguments: tuple, signature: str = "x") -> None:
    assert_folded(bnfold.fold(scripted(statements, signature), arguments))


# ---- what returns its input, or a view of it, and does not always say so

ALIASES = [
    "{}",
    "torch.einsum('nchw->nchw', {})",
    "torch.einsum('nchw->nhwc', {}).permute([0, 3, 1, 2])",
    "torch.einsum('nchw->wnch', {}).permute([1, 2, 3, 0])",
    "torch.dequantize({})",
    "torch.conj_physical({})",
    "torch.conj({})",
    "torch.real({})",
    "torch.resolve_conj({})",
    "torch.resolve_neg({})",
    "torch.positive({})",
    "torch.ops.aten._unsafe_view({0}, {0}.size())",
    "torch.ops.aten._reshape_alias({0}, {0}.size(), [{0}.stride(0), {0}.stride(1), {0}.stride(2), {0}.stride(3)])",
    "torch.ops.aten.lift({})",
    "torch.ops.aten.lift_fresh({})",
    "torch.ops.aten.alias({})",
    "torch.ops.aten._to_copy({})",
    "torch.atleast_1d({})",
    "torch.atleast_2d({})",
    "torch.atleast_3d({})",
    "torch.broadcast_to({0}, {0}.size())",
    "{0}.type_as({0})",
    "{0}.sum_to_size({0}.size())",
    "{}.to_dense()",
    "{0}.expand_as({0})",
    "{0}.expand({0}.size())",
    "{0}.view_as({0})",
    "{0}.reshape_as({0})",
    "{}.contiguous()",
    "{}.to(torch.float32)",
    "{}.float()",
    "{}.cpu()",
    "{}.detach()",
    "{}.data",
    "{}.flatten(2).unflatten(2, [5, 5])",
    "{}.flatten(2).view(-1, {}.size(1), 5, 5)",
    "{}.reshape(-1).reshape([-1, {}.size(1), 5, 5])",
    "{}.unsqueeze(0).squeeze(0)",
    "{}.movedim(1, 3).movedim(3, 1)",
    "{}.swapaxes(2, 3).swapaxes(2, 3)",
    "{0}.narrow(0, 0, {0}.size(0))",
    "{}[:]",
    "{}.chunk(1)[0]",
    "torch.unsafe_chunk({}, 1)[0]",
    "torch.tensor_split({}, 1)[0]",
    "{}.split(7)[0]",
    "torch.dropout({}, 0.5, False)",
    "torch.feature_dropout({}, 0.5, False)",
    "torch.jit.annotate(Optional[Tensor], {})",
    "self.same({})",
    "torch.jit.wait(torch.jit.fork(self.same, {}))",
]


def alias_of(alias: str, value: str) -> str:
    return alias.replace("{}", "{0}").format(value)


every_alias = pytest.mark.parametrize("alias", ALIASES)


@every_alias
@every_door
def test_what_is_written_behind_the_norm_of_an_alias(door, alias):
    read = f"z = x * 2\nv = {alias_of(alias, 'z')}\nassert v is not None\nn = self.image_norm(v)\n"
    statements = read + "z.mul_(0.5)\nreturn self.conv(n) + z.sum()"
    assert_alike(door, statements, (image(),))


@every_alias
@every_door
def test_an_alias_that_is_written_behind_the_norm(door, alias):
    read = f"z = x * 2\nv = {alias_of(alias, 'z')}\nassert v is not None\nn = self.image_norm(z)\n"
    statements = read + "v.mul_(0.5)\nreturn self.conv(n) + z.sum()"
    assert_alike(door, statements, (image(),))


@every_alias
@pytest.mark.parametrize("door", [folded, frozen, optimized], ids=lambda door: door.__name__)  # torch.jit.freeze drops it by itself
def test_a_write_that_only_the_alias_tells(door, alias):
    read = f"z = self.conv(x)\nn = self.norm(z)\nv = {alias_of(alias, 'z')}\nassert v is not None\n"
    statements = read + "z.add_(1.0)\nreturn self.head(n), v"
    assert_alike(door, statements, (image(),))


@every_alias
@every_door
def test_an_activation_of_the_callers_memory(door, alias):
    read = f"v = {alias_of(alias, 'x')}\nassert v is not None\n"
    statements = read + "return self.conv(torch.relu(v)), self.head(torch.relu(self.conv(v)))"
    assert_alike(door, statements, (image(),))


@every_alias
@every_door
def test_an_activation_of_what_is_read_again(door, alias):
    read = f"u = self.conv(x)\nv = {alias_of(alias, 'u')}\nassert v is not None\n"
    statements = read + "r = self.head(torch.relu(v))\nreturn r, self.norm(u), u"
    assert_alike(door, statements, (image(),))


@every_alias
@every_door
def test_a_sum_with_what_is_written_before_its_activation(door, alias):
    read = f"r = torch.exp(q)\nv = {alias_of(alias, 'r')}\nassert v is not None\nt = self.conv(x) + v\n"
    statements = read + "r.mul_(decay)\nreturn torch.relu(t), r"
    assert_alike(door, statements, (image(), torch.randn(2, 4, 5, 5), 0.0), "x, q, decay: float")


def test_without_the_write_the_norm_folds():
    assert_folds("z = x * 2\nv = z.detach()\nn = self.image_norm(v)\nreturn self.conv(n) + z.sum()", (image(),))
    assert_folds("z = x * 2\nn = self.image_norm(z.clone())\nz.mul_(0.5)\nreturn self.conv(n) + z.sum()", (image(),))


@every_door
@pytest.mark.parametrize("value", ["y.mean()", "y.flatten()[0]", "y"], ids=["mean", "element", "image"])
def test_a_number_of_another_dtype_that_is_written_into_a_value(door, value):
    """In place it never promotes, otherwise it promotes what has no dimensions."""
    statements = f"y = torch.tanh(self.norm(self.conv(x)))\ns = {value}\ns.mul_(self.number)\nreturn s"
    assert_alike(door, statements, (image(),))
    with executor_of(door):
        module = door(scripted(statements), (image(),))
        assert [module(image()).dtype for _ in range(3)] == [torch.float32] * 3


@every_door
def test_a_write_that_is_alive_through_a_check_alone(door):
    # The fold takes the check out, and all that read what was written here with it.
    written = "y = self.norm(self.conv(x))\nz = torch.relu_(torch.atleast_1d(y))"
    checked = "w = torch.permute(z, [0, 2, 3, 1])\nassert w.dim() == 4"
    assert_alike(door, f"{written}\n{checked}\nreturn y, self.norm(self.conv(torch.tanh(x)))", (image(),))


# ---- parameters and buffers that are written

TENSORS = ["self.norm.weight", "self.norm.bias", "self.norm.running_mean", "self.norm.running_var", "self.conv.weight"]
VECTOR_ALIASES = [
    "{}",
    "torch.atleast_1d({})",
    "torch.einsum('...->...', {})",
    "{0}.type_as(x)",
    "{0}.sum_to_size({0}.size())",
    "{}.to_dense()",
    "{0}.expand_as({0})",
    "{}.contiguous()",
    "{}.to(x.dtype)",
    "{}.detach()",
    "{}.data",
    "{}[:]",
    "{}.view(-1)",
    "{0}.reshape({0}.size())",
    "torch.conj_physical({})",
    "torch.dequantize({})",
    "torch.ops.aten.lift({})",
    "torch.dropout({}, 0.5, False)",
    "torch.jit.wait(torch.jit.fork(self.same, {}))",
    "[{}][0]",
    "torch.jit.annotate(Dict[str, Tensor], {{'w': {0}}})['w']",
]


@pytest.mark.parametrize("alias", VECTOR_ALIASES)
@pytest.mark.parametrize("tensor", TENSORS)
@every_door
def test_a_parameter_that_is_written_through_an_alias(door, tensor, alias):
    statements = f"w = {alias_of(alias, tensor)}\nw.mul_(1.5)\nreturn self.head(torch.relu(self.norm(self.conv(x))))"
    assert_alike(door, statements, (image(),), may_refuse=True)


@pytest.mark.parametrize("tensor", TENSORS)
def test_a_parameter_of_which_an_alias_is_read_folds(tensor):
    # Where the weight of the convolution is read, too, the norm gets one of its own.
    assert_folds(f"w = torch.atleast_1d({tensor})\nreturn self.norm(self.conv(x)), w * 1.5", (image(),))


@every_door
def test_a_parameter_that_is_written_behind_the_norm(door):
    statements = "y = self.norm(self.conv(x))\ntorch.atleast_1d(self.norm.bias).add_(y.mean())\nreturn y"
    assert_alike(door, statements, (image(),), may_refuse=True)


@pytest.mark.parametrize("read", ["self.memory", "self.memory[:]", "torch.atleast_1d(self.memory)", "self.same(self.memory)"])
@every_door
def test_a_buffer_that_carries_from_run_to_run(door, read):
    statements = f"m = {read}\nn = self.image_norm(m)\nm.copy_(x * 0.5 + m * 0.25)\nreturn self.conv(n), torch.relu(m)"
    assert_alike(door, statements, (image(),), may_refuse=True)


def test_a_buffer_that_is_read_folds():
    assert_folds("n = self.image_norm(self.memory + x)\nreturn self.conv(n)", (image(),))


class Ignoring(Layers):
    @torch.jit.ignore
    def python(self, x):
        return x.mul_(2)

    def forward(self, x):
        y = self.conv(x)
        n = self.norm(y)
        z = self.python(y)
        return self.head(n) + z


def test_what_python_writes_stands_in_the_way_of_the_pass():
    """The fold of a module refuses it, with a sentence."""
    torch.manual_seed(0)
    eager = Ignoring().eval()
    frozen = torch.jit.freeze(torch.jit.script(eager), optimize_numerics=False)
    with bnfold.registered_pass():
        assert max(relative_error(eager(image()), frozen(image())) for _ in range(3)) <= ROUNDING


# ---- lists, tuples and dicts

# How u is put into a container, and read from it.
CONTAINERS = {
    "dict": ("f: Dict[str, Tensor] = {}\nf['u'] = u", "f['u']"),
    "dict that is written out": ("f = {'u': u}", "f['u']"),
    "get of a dict": ("f = {'u': u}", "f.get('u', x)"),
    "values of a dict": ("f = {'u': u}", "list(f.values())[0]"),
    "items of a dict": ("f = {'u': u}", "list(f.items())[0][1]"),
    "default of a dict": ("f: Dict[str, Tensor] = {}\nf.setdefault('u', u)", "f['u']"),
    "dict that another one takes in": ("g = {'u': u}\nf: Dict[str, Tensor] = {}\nf.update(g)", "f['u']"),
    "copy of a dict": ("g = {'u': u}\nf = g.copy()", "f['u']"),
    "dict of lists": ("f: Dict[str, List[Tensor]] = {}\nf['u'] = [u]", "f['u'][0]"),
    "list": ("f = [u]", "f[0]"),
    "list that grows": ("f: List[Tensor] = []\nf.append(u)", "f[0]"),
    "list that another one takes in": ("f: List[Tensor] = [x]\nf.extend([u])", "f[-1]"),
    "insertion into a list": ("f: List[Tensor] = [x]\nf.insert(0, u)", "f[0]"),
    "assignment to an element": ("f: List[Tensor] = [x]\nf[0] = u", "f[0]"),
    "sum of lists": ("f = [x] + [u]", "f[1]"),
    "multiple of a list": ("f = [u] * 2", "f[1]"),
    "slice of a list": ("f = [x, u, x]", "f[1:2][0]"),
    "reversed list": ("f = [u, x]\nf.reverse()", "f[1]"),
    "copy of a list": ("f = [u].copy()", "f[0]"),
    "list of lists": ("f = [[x], [u]]", "f[1][0]"),
    "list of dicts": ("f = [{'u': u}]", "f[0]['u']"),
    "comprehension": ("f = [one for one in [u, x]]", "f[0]"),
    "tuple": ("f = (x, u)", "f[1]"),
    "tuple in a list": ("f = [(x, u)]", "f[0][1]"),
    "list in a tuple": ("f = ([u], x)", "f[0][0]"),
    "optional": ("f: Optional[Tensor] = u if x.size(0) > 0 else None", "torch.jit._unwrap_optional(f)"),
    "task": ("f = torch.jit.fork(self.same, u)", "torch.jit.wait(f)"),
    "list of tasks": ("f = [torch.jit.fork(self.same, u)]", "torch.jit.wait(f[0])"),
}
every_container = pytest.mark.parametrize("kind", CONTAINERS)


@every_container
@every_door
def test_an_element_that_is_written_in_place(door, kind):
    store, read = CONTAINERS[kind]
    statements = f"n = self.norm({read})\nr = F.relu({read}, inplace=True)\nreturn self.head(n) + r"
    assert_alike(door, f"u = self.conv(x)\n{store}\n{statements}", (image(),))


@every_container
@every_door
def test_an_element_that_is_written_by_another_name(door, kind):
    store, read = CONTAINERS[kind]
    assert_alike(door, f"u = self.conv(x)\n{store}\nn = self.norm({read})\nu.mul_(0.5)\nreturn self.head(n) + {read}", (image(),))
    assert_alike(door, f"u = self.conv(x)\n{store}\nn = self.norm(u)\n{read}.mul_(0.5)\nreturn self.head(n) + u", (image(),))


@every_container
@every_door
def test_an_element_that_is_read_twice(door, kind):
    store, read = CONTAINERS[kind]
    assert_alike(door, f"u = self.conv(x)\n{store}\nreturn self.head(torch.relu({read})), self.norm({read})", (image(),))


@every_container
@every_door
def test_an_element_of_the_callers_memory(door, kind):
    store, read = CONTAINERS[kind]
    assert_alike(door, f"u = x\n{store}\nreturn self.conv(torch.relu({read})), F.hardtanh({read})", (image(),))


@every_container
@every_door
def test_a_norm_in_a_container(door, kind):
    store, read = CONTAINERS[kind]
    assert_alike(door, f"u = self.norm(self.conv(x))\n{store}\nr = F.relu({read}, inplace=True)\nreturn self.head({read}), u", (image(),))


def test_outside_of_a_container_the_norm_folds():
    assert_folds("u = self.conv(x)\nn = self.norm(u)\nr = F.relu(u)\nreturn self.head(n) + r", (image(),))


# ---- arguments that share memory


def one_tensor() -> tuple:
    x = image()
    return x, x


def a_tensor_and_its_part() -> tuple:
    x = image()
    return x, x[:1]


def two_windows() -> tuple:
    memory = torch.randn(3, 3, 5, 5)
    return memory[:2], memory[1:]


def a_tensor_and_its_transpose() -> tuple:
    x = image()
    return x, x.transpose(2, 3)


SHARING = [one_tensor, a_tensor_and_its_part, two_windows, a_tensor_and_its_transpose]
WRITES = ["k.mul_(0.5)", "torch.atleast_1d(k).mul_(0.5)", "F.relu(k, inplace=True)", "k.zero_()", "k[0] = 0.5", "k.copy_(k * 0.5)"]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("arguments", SHARING, ids=lambda one: one.__name__)
@every_door
def test_inputs_that_share_memory(door, arguments, write):
    assert_alike(door, f"n = self.image_norm(q)\n{write}\nreturn self.conv(n)", arguments(), "q, k")


@pytest.mark.parametrize("arguments", SHARING, ids=lambda one: one.__name__)
@every_door
def test_inputs_that_share_memory_and_are_not_written(door, arguments):
    assert_alike(door, "return self.conv(torch.relu(q)), self.other(torch.relu(k)), q + 1", arguments(), "q, k")


@every_door
@pytest.mark.parametrize(
    "signature, second, write",
    [
        ("q, k: List[Tensor]", lambda x: [x], "k[0].mul_(0.5)"),
        ("q, k: List[Tensor]", lambda x: [x], "torch._foreach_mul_(k, 0.5)"),
        ("q, k: Dict[str, Tensor]", lambda x: {"k": x}, "k['k'].mul_(0.5)"),
        ("q, k: Tuple[Tensor, int]", lambda x: (x, 1), "k[0].mul_(0.5)"),
        ("q, k: Optional[Tensor]", lambda x: x, "if k is not None:\n    k.mul_(0.5)"),
    ],
    ids=["list", "list as a whole", "dict", "tuple", "optional"],
)
def test_an_input_that_is_inside_another_one(door, signature, second, write):
    x = image()
    assert_alike(door, f"n = self.image_norm(q)\n{write}\nreturn self.conv(n)", (x, second(x)), signature)


@every_door
@pytest.mark.parametrize(
    "signature, make, read",
    [
        ("k: List[Tensor]", lambda x: ([x, x],), ("k[0]", "k[1]")),
        ("k: Dict[str, Tensor]", lambda x: ({"a": x, "b": x},), ("k['a']", "k['b']")),
        ("k: Tuple[Tensor, Tensor]", lambda x: ((x, x),), ("k[0]", "k[1]")),
    ],
    ids=["list", "dict", "tuple"],
)
def test_two_elements_of_an_input_that_are_one_tensor(door, signature, make, read):
    one, other = read
    written = f"n = self.image_norm({one})\n{other}.mul_(0.5)\nreturn self.conv(n), torch.relu({one})"
    assert_alike(door, written, make(image()), signature)
    assert_alike(door, f"return self.conv(torch.relu({one})), self.other(torch.relu({other}))", make(image()), signature)


def test_inputs_that_are_not_written_fold():
    assert_folds("n = self.image_norm(q)\nreturn self.conv(n) + k.sum()", one_tensor(), "q, k")


# ---- results that are written into a tensor of the caller, or of the module

OUT = [
    "torch.exp({x}, out={c})",
    "torch.sigmoid({x}, out={c})",
    "torch.add({x}, {x}, out={c})",
    "torch.add({x}, 1.5 * {x}, alpha=2, out={c})",
    "torch.sub({x}, 1.5 * {x}, out={c})",
    "torch.mul({x}, 2.0, out={c})",
    "torch.mul({x}, torch.sigmoid({x}), out={c})",
    "torch.div({x}, 2.0, out={c})",
    "torch.neg({x}, out={c})",
    "torch.tanh({x}, out={c})",
    "torch.clamp({x}, 0.0, 1.0, out={c})",
    "torch.maximum({x}, -{x}, out={c})",
    "torch.cat([{x}], 0, out={c})",
    "torch.ops.aten.avg_pool2d({x}, [3, 3], [1, 1], [1, 1], False, False, None, out={c})",
    "torch.ops.aten.leaky_relu({x}, 0.1, out={c})",
    "torch.ops.aten.hardtanh({x}, 0.0, 6.0, out={c})",
    "torch.ops.aten.clone({x}, memory_format=None, out={c})",
]
every_out = pytest.mark.parametrize("out", OUT)


@every_out
@every_door
def test_a_result_that_is_written_into_another_tensor_before_the_norm(door, out):
    call = out.format(x="x", c="c")
    assert_alike(door, f"c = torch.empty_like(x)\ny = {call}\nn = self.image_norm(y)\nc.mul_(0.5)\nreturn self.conv(n), c", (image(),))
    assert_alike(door, f"c = torch.empty_like(x)\n{call}\nn = self.image_norm(c)\nreturn self.conv(n), c", (image(),))


@every_out
@every_door
def test_a_result_that_is_written_into_another_tensor_behind_a_layer(door, out):
    call = out.format(x="u", c="c")
    assert_alike(door, f"u = self.conv(x)\nc = torch.zeros_like(u)\ny = {call}\nreturn self.norm(y), c", (image(),))
    assert_alike(door, f"u = self.norm(self.conv(x))\nc = torch.zeros_like(u)\ny = {call}\nreturn self.head(y), c", (image(),))
    assert_alike(door, f"u = torch.relu(self.conv(x))\nc = torch.zeros_like(u)\ny = {call}\nreturn self.head(y), c, u", (image(),))


@every_out
@every_door
def test_a_result_that_is_written_into_the_input_of_the_norm(door, out):
    call = out.format(x="x", c="z")
    assert_alike(door, f"z = x * 2\nn = self.image_norm(z)\n{call}\nreturn self.conv(n), z", (image(),))


@every_door
def test_a_scale_that_is_written_into_another_tensor(door):
    statements = "u = torch.tanh(self.conv(x))\nc = torch.zeros_like(u)\ny = torch.mul(u, self.gate, out=c)\nreturn self.head(y), c"
    assert_alike(door, statements, (image(),))


def test_a_result_of_its_own_folds():
    assert_folds("c = x.clone()\ny = torch.mul(x, 2.0)\nn = self.image_norm(y)\nc.mul_(0.5)\nreturn self.conv(n), c", (image(),))
    assert_folds("u = self.conv(x)\nc = torch.zeros_like(u)\ny = torch.mul(u, 2.0)\nreturn self.norm(y), c", (image(),))


# ---- tasks


@pytest.mark.parametrize(
    "statements",
    [
        "z = x * 2\nn = self.image_norm(z)\nf = torch.jit.fork(self.halved, z)\nreturn self.conv(n) + torch.jit.wait(f).sum()",
        "z = x * 2\nf = torch.jit.fork(self.halved, z)\nr = torch.jit.wait(f)\nn = self.image_norm(z)\nr.mul_(0.5)\nreturn self.conv(n)",
        "f = torch.jit.fork(self.convolved, x)\nu = torch.jit.wait(f)\nn = self.norm(u)\nu.mul_(0.5)\nreturn self.head(n) + u",
        "f = torch.jit.fork(self.convolved, x)\nn = self.norm(torch.jit.wait(f))\nreturn self.head(n) + torch.relu_(torch.jit.wait(f))",
        "f = torch.jit.fork(self.convolved, x)\nreturn torch.relu(self.other(x)) + torch.jit.wait(f)",
        "f = torch.jit.fork(self.convolved, x)\nreturn self.norm(torch.jit.wait(f)), torch.relu(torch.jit.wait(f))",
    ],
    ids=[
        "writes its argument",
        "returns its argument",
        "result that is written",
        "result that is awaited twice and written",
        "sum with a result",
        "result that is awaited twice",
    ],
)
@every_door
def test_tasks(door, statements):
    assert_alike(door, statements, (image(),))


def test_without_a_task_the_norm_folds():
    task = "f = torch.jit.fork(self.halved, x * 2)"
    assert_folds(f"z = x * 2\nn = self.image_norm(z)\n{task}\nreturn self.conv(n) + torch.jit.wait(f).sum()", (image(),))


# ---- containers that are attributes


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen: List[Tensor] = [torch.zeros(1)]
        self.conv, self.norm = nn.Conv2d(3, 3, 1), norm_of(3)

    def forward(self, x):
        self.seen.append(torch.ones(1))
        return self.norm(self.conv(x))


class Weighing(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen: List[Tensor] = [torch.zeros(1)]

    def forward(self, x):
        return x * len(self.seen)


class OneList(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Counting(), Weighing()

    @torch.jit.export
    def share(self):
        self.second.seen = self.first.seen

    def forward(self, x):
        return self.second(self.first(x))


@every_door
@pytest.mark.parametrize("shared", [True, False])
def test_one_list_that_is_an_attribute_of_two_submodules(door, shared):
    torch.manual_seed(0)
    module = torch.jit.script(OneList().eval())
    if shared:
        module.share()
    expected = runs(copy.deepcopy(module), (image(),))
    try:
        result = door(module, (image(),))
    except bnfold.Error:
        return
    with executor_of(door):
        for one, other in zip(expected, runs(result, (image(),))):
            assert relative_error(one, other) <= ROUNDING


def test_lists_that_are_attributes_are_no_obstacle():
    assert_folded(bnfold.fold(torch.jit.script(Counting().eval()), image()))
