"""What a user can get wrong: the class of the error, and the sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from calibrate import relative_error
from cases import double, prepared
from torch import nn

import bnfold

PACKAGES = Path(bnfold.__file__).resolve().parents[1]


@pytest.fixture
def model() -> nn.Module:
    return prepared(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)), (double(2, 3, 9, 9),))


@pytest.fixture
def module(model) -> torch.jit.ScriptModule:
    return torch.jit.script(model)


def assert_one_sentence(error: pytest.ExceptionInfo) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert "Exception raised from" not in message and "INTERNAL ASSERT" not in message
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_classes():
    assert issubclass(bnfold.Error, RuntimeError)
    assert issubclass(bnfold.LoadError, bnfold.Error)
    assert issubclass(bnfold.SaveError, bnfold.Error)


def test_training_mode(model):
    model.train()
    with pytest.raises(bnfold.Error, match=r"in training mode; call \.eval\(\)") as error:
        bnfold.fold(model)
    assert_one_sentence(error)
    with pytest.raises(bnfold.Error, match=r"in training mode; call \.eval\(\)") as error:
        bnfold.fold(torch.jit.script(model))
    assert_one_sentence(error)


def test_training_mode_in_a_file(module, tmp_path):
    path = tmp_path / "training.pt"
    module.train().save(str(path))
    with pytest.raises(bnfold.Error, match=r"in training mode; call \.eval\(\)"):
        bnfold.fold(path)


def test_an_nn_module_that_cannot_be_scripted():
    class Unscriptable(nn.Module):
        def forward(self, *args, **kwargs):
            return args[0]

    with pytest.raises(bnfold.Error, match="can't compile Unscriptable; trace it instead, with torch.jit.trace") as error:
        bnfold.fold(Unscriptable().eval())
    assert error.value.__cause__ is not None


@pytest.mark.parametrize("call", [bnfold.fold, bnfold.load])
def test_missing_file(call, tmp_path):
    with pytest.raises(bnfold.LoadError, match=r"nothing\.pt: there is no such file") as error:
        call(tmp_path / "nothing.pt")
    assert_one_sentence(error)


@pytest.mark.parametrize("call", [bnfold.fold, bnfold.load])
def test_directory(call, tmp_path):
    with pytest.raises(bnfold.LoadError, match="is a directory") as error:
        call(str(tmp_path))
    assert_one_sentence(error)


@pytest.mark.parametrize("value", [None, 3, [1], torch.zeros(2), torch.jit.script(torch.nn.functional.relu)])
def test_wrong_type(value):
    with pytest.raises(TypeError, match="module must be a ScriptModule, the path of a TorchScript file or an nn.Module"):
        bnfold.fold(value)


def test_state_dict_instead_of_a_module(model):
    with pytest.raises(TypeError, match="load this state_dict into it first"):
        bnfold.fold(model.state_dict())


@pytest.mark.parametrize("value", [[torch.zeros(1)], 3, "model"])
def test_wrong_example_inputs(value, module):
    with pytest.raises(TypeError, match="example_inputs must be a tensor or a tuple"):
        bnfold.fold(module, value)


def test_unknown_option(module):
    with pytest.raises(TypeError, match="no option 'preserve'; the options are example_inputs, map_location, preserved_attributes, input_ranks"):
        bnfold.fold(module, preserve=["forward"])


def test_options_of_a_wrong_type(module):
    with pytest.raises(TypeError, match="preserved_attributes must be a list"):
        bnfold.fold(module, preserved_attributes="forward")
    with pytest.raises(TypeError, match="either example_inputs or input_ranks"):
        bnfold.fold(module, double(2, 3, 9, 9), input_ranks=[4])


def test_a_target_that_is_none(module):
    with pytest.raises(bnfold.Error, match='no target "tensorrt"; the targets are libtorch, onnxruntime, openvino, ncnn, coreml, quantization'):
        bnfold.fold(module, target="tensorrt")
    with pytest.raises(TypeError, match="target must be a name, not int"):
        bnfold.fold(module, target=1)


@pytest.mark.parametrize("limit, error", [("3", TypeError), (1.5, TypeError), (True, TypeError), (-1, bnfold.Error)])
def test_a_limit_that_is_none(limit, error, module):
    with pytest.raises(error, match="fold_limit must be a whole number"):
        bnfold.fold(module, fold_limit=limit)


def test_unknown_preserved_attribute(module):
    with pytest.raises(bnfold.Error, match="no attribute 'encode' to preserve") as error:
        bnfold.fold(module, preserved_attributes=["encode"])
    assert_one_sentence(error)


@pytest.mark.parametrize(
    "inputs", [(double(2, 7, 9, 9),), (double(2, 3),), (torch.zeros(2, 3, 9, 9),), (), ("text",), (double(2, 3, 9, 9), 1)]
)
def test_example_inputs_that_do_not_fit(inputs, module):
    with pytest.raises(bnfold.Error, match="the module can't run on the given input") as error:
        bnfold.fold(module, inputs)
    assert "Exception raised from" not in str(error.value)


@pytest.mark.parametrize("name", ["original", "folded"])
def test_check_wants_script_modules(name, model, module):
    modules = {"original": module, "folded": module, name: model}
    with pytest.raises(TypeError, match=f"{name} must be a ScriptModule, not Sequential"):
        bnfold.check(**modules, inputs=[(double(2, 3, 9, 9),)])


def test_check_wants_tuples(module):
    value = double(2, 3, 9, 9)
    with pytest.raises(TypeError, match=r"pass \[\(tensor,\)\]"):
        bnfold.check(module, module, value)
    with pytest.raises(TypeError, match="list of tuples"):
        bnfold.check(module, module, [value])
    with pytest.raises(ValueError, match="no inputs"):
        bnfold.check(module, module, [])


def test_save_wants_a_script_module(model, tmp_path):
    with pytest.raises(TypeError, match="module must be a ScriptModule"):
        bnfold.save(model, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_save_onto_a_directory(module, tmp_path):
    with pytest.raises(bnfold.SaveError, match="is a directory") as error:
        bnfold.save(module, tmp_path)
    assert_one_sentence(error)
    assert list(tmp_path.iterdir()) == []


def test_save_into_a_directory_that_is_not_there(module, tmp_path):
    with pytest.raises(bnfold.SaveError, match="No such file or directory") as error:
        bnfold.save(module, tmp_path / "no" / "model.pt")
    assert_one_sentence(error)


def test_save_replaces_what_was_there(module, tmp_path):
    path = tmp_path / "model.pt"
    path.write_text("what was there")
    bnfold.save(module, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]
    assert torch.equal(bnfold.load(path)(torch.ones(1, 3, 9, 9).double()), module(torch.ones(1, 3, 9, 9).double()))


class Listed(nn.Module):
    """A list that holds a weight, and may write it."""

    def __init__(self, held: torch.Tensor | None = None):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.held = [self.conv.weight if held is None else held]

    def forward(self, x):
        self.held[0].mul_(2)
        return self.norm(self.conv(x))


class Overlapping(nn.Module):
    """A buffer over the memory of a parameter."""

    def __init__(self, written: bool):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.scale = nn.Parameter(torch.ones(4))
        self.register_buffer("first", self.scale.detach()[:1])
        self.written = written

    def forward(self, x):
        if self.written:
            self.first.add_(1)
        return self.norm(self.conv(x)) * self.scale.sum()


def test_memory_that_two_attributes_share():
    with pytest.raises(bnfold.Error, match="share memory that may be written.*give each its own"):
        bnfold.fold(torch.jit.script(Listed().eval()))


@pytest.mark.parametrize("module", [Listed(torch.ones(1)), Overlapping(written=False), Overlapping(written=True)])
def test_memory_that_no_fold_takes_for_constant(module):
    scripted = torch.jit.script(module.eval())
    result = bnfold.fold(scripted)
    assert len(result.report.folded) == 1
    image = torch.randn(1, 3, 9, 9)
    outputs = [result.module(image) for _ in range(3)]
    for output in outputs:
        assert relative_error(output, scripted(image)) < 1e-4


def import_bnfold(**environment: str) -> subprocess.CompletedProcess:
    variables = {**os.environ, "PYTHONPATH": str(PACKAGES), **environment}
    return subprocess.run([sys.executable, "-W", "ignore", "-c", "import bnfold"], env=variables, capture_output=True, text=True)


def test_library_from_the_environment(tmp_path):
    from bnfold import _library

    library = shutil.copy(_library._find(), tmp_path / "moved.so")
    assert import_bnfold(BNFOLD_LIBRARY=str(library)).returncode == 0


def test_library_that_is_not_there(tmp_path):
    result = import_bnfold(BNFOLD_LIBRARY=str(tmp_path / "nothing.so"))
    assert result.returncode != 0
    assert "ImportError: BNFOLD_LIBRARY is" in result.stderr


def test_library_that_cannot_be_loaded(tmp_path):
    library = tmp_path / "libbnfold_ops.so"
    library.write_text("no library")
    result = import_bnfold(BNFOLD_LIBRARY=str(library))
    assert result.returncode != 0
    last_line = result.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError:") and "build it again with this one" in last_line


def test_a_program_that_loaded_the_operators_itself():
    from bnfold import _library

    code = f"import torch; torch.ops.load_library({str(_library._find())!r}); import bnfold"
    variables = {**os.environ, "PYTHONPATH": str(PACKAGES)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=variables, check=True)


def test_a_cuda_graph_of_what_is_on_no_gpu(module):
    for inputs, sentence in ((None, "there are no example inputs"), (torch.ones(2, 3, 9, 9), "one of these is on cpu")):
        with pytest.raises(bnfold.Error, match=sentence) as error:
            bnfold.CudaGraphRunner(module, inputs)
        assert_one_sentence(error)
    with pytest.raises(TypeError, match="every example input must be a tensor; one is a int"):
        bnfold.CudaGraphRunner(module, (3,))
    with pytest.raises(TypeError, match="module must be a ScriptModule"):
        bnfold.CudaGraphRunner(nn.ReLU(), torch.ones(2))
