"""optimize_for_inference(runtime="onednn"): networks of oneDNN's primitives compute what the model does, and their files say what they need."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
import zoo
from calibrate import relative_error
from torch import nn

import bnfold

NEAR = 1e-4
# Plain, depthwise, gates, growing concatenations, shuffled channels, several branches, groups, three dimensions, several outputs.
NETWORKS = (
    "resnet18", "mobilenet_v2", "efficientnet_b0", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x1_0", "googlenet", "resnext50_32x4d", "r3d_18",
    "lraspp_mobilenet_v3_large", "repvgg_a0", "vgg11_bn",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def library():
    try:
        bnfold._library.load_onednn()
    except ImportError as error:
        pytest.skip(str(error))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1)

    def forward(self, x):
        return torch.relu(self.last(torch.relu(self.norm(self.first(x)))) + x)


IMAGE = torch.randn(2, 8, 9, 9)


def tensors(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if value is None:  # an output of training alone
        return []
    return [tensor for part in (value.values() if isinstance(value, dict) else value) for tensor in tensors(part)]


def assert_near(expected, actual) -> None:
    for one, other in zip(tensors(expected), tensors(actual), strict=True):
        assert relative_error(one, other) < NEAR


@pytest.mark.filterwarnings("ignore:Scripted .* always returns")
@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same(name, spelling):
    if spelling not in zoo.ZOO[name].spellings:
        pytest.skip("it can't be written that way")
    net = zoo.network(name)
    first, second = (tuple(value.float() for value in values) for values in (net.inputs, net.second_inputs))
    optimized = bnfold.optimize_for_inference(zoo.to_torchscript(copy.deepcopy(net.model).float(), first, spelling), first, runtime="onednn")
    assert len(bnfold.fusions_of(optimized).in_networks) > 5
    for _ in range(2):
        assert_near(net.output, optimized(*first))
        assert_near(net.second_output, optimized(*second))


def test_a_table_of_what_is_in_networks():
    optimized = bnfold.optimize_for_inference(Block().eval(), IMAGE, runtime="onednn")
    fusions = bnfold.fusions_of(optimized)
    assert (fusions.in_networks, fusions.fused) == (("first", "last"), ())
    assert str(fusions) == "     2  in networks of oneDNN's primitives"


def test_a_file_is_loaded_with_its_library(tmp_path):
    path = tmp_path / "optimized.pt"
    optimized = bnfold.optimize_for_inference(Block().eval(), IMAGE, runtime="onednn")
    bnfold.save(optimized, path)
    torch.save((IMAGE, optimized(IMAGE)), tmp_path / "run.pth")
    code = f"import torch, bnfold\nx, y = torch.load({str(tmp_path / 'run.pth')!r})\nprint((bnfold.load({str(path)!r})(x) - y).abs().max().item() < 1e-5)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_file_without_its_library(tmp_path):
    path = tmp_path / "optimized.pt"
    bnfold.save(bnfold.optimize_for_inference(Block().eval(), IMAGE, runtime="onednn"), path)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", f"import torch; torch.jit.load({str(path)!r})"], capture_output=True, text=True)
    assert done.returncode == 1 and "torch.classes.bnfold.OneDnnSteps" in done.stderr


def test_a_runtime_that_is_none():
    with pytest.raises(bnfold.Error, match="^there is no runtime 'tensorrt': it is libtorch or onednn$"):
        bnfold.optimize_for_inference(Block().eval(), IMAGE, runtime="tensorrt")


def test_a_library_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(bnfold._library, "_ONEDNN_NAME", "libnothing.so")
    monkeypatch.setattr(bnfold._library, "_is_loaded", lambda operator: False)
    with pytest.raises(ImportError, match="libnothing.so is not there: install oneDNN 2 or 3, on Debian the package libdnnl-dev, and build bnfold again$"):
        bnfold.optimize_for_inference(Block().eval(), IMAGE, runtime="onednn")


def test_the_model_stays_as_it_was():
    model = Block().eval()
    scripted = torch.jit.script(model)
    before = {name: value.clone() for name, value in scripted.state_dict().items()}
    graph = str(scripted.graph)
    bnfold.optimize_for_inference(scripted, IMAGE, runtime="onednn")(IMAGE)
    assert str(scripted.graph) == graph and all(torch.equal(value, before[name]) for name, value in scripted.state_dict().items())


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = Block().eval()
        optimized = bnfold.optimize_for_inference(model, IMAGE, runtime="onednn")
        for image in (IMAGE, torch.randn(1, 8, 33, 17)):
            assert_near(model.double()(image.double()), optimized(image))
    finally:
        torch.set_num_threads(before)
