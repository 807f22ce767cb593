"""Real networks: as many norms are folded as the zoo asks for, and the outputs are those of eager."""

from __future__ import annotations

import copy

import pytest
import zoo
from calibrate import relative_error

import bnfold

pytestmark = pytest.mark.filterwarnings("ignore:Scripted .* always returns")

# Every norm of these is right behind a layer that takes it.
BACKWARD = (
    "vgg16_bn",
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "inception_v3",
    "googlenet",
    "shufflenet_v2_x1_0",
    "mnasnet1_0",
    "regnet_y_400mf",
)

# Norms and parameters of the two networks that the whole project is measured on, with 10 classes.
PUBLISHED = {
    "vgg16_bn": (13, 134_309_962, 134_301_514),
    "resnet50": (53, 23_528_522, 23_501_962),
}


def outputs_that_exist(output):
    """Without the None that GoogLeNet's and Inception's named tuples have in place of the auxiliary outputs."""
    return [value for value in output if value is not None] if isinstance(output, tuple) else output


def quick_modules() -> list[tuple[str, str]]:
    return [(name, spelling) for name in zoo.QUICK for spelling in zoo.ZOO[name].spellings]


@pytest.mark.parametrize("name, spelling", quick_modules())
def test_the_goal_is_reached_and_double_outputs_agree(name, spelling):
    net, architecture, result = zoo.network(name), zoo.ZOO[name], zoo.fold_result(name, spelling)
    kept = {norm.name for norm in result.report.kept}
    folded = {norm.name for norm in result.report.folded} - kept
    assert len(net.norms) == architecture.norms
    assert folded | kept == set(net.norms)
    assert relative_error(net.output, outputs_that_exist(result.module(*net.inputs))) < 1e-10
    assert relative_error(net.second_output, outputs_that_exist(result.module(*net.second_inputs))) < 1e-10
    assert len(folded) == architecture.goal, [(norm.name, norm.reason) for norm in result.report.kept]


@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
@pytest.mark.parametrize("name", BACKWARD)
def test_a_norm_behind_a_layer_goes_backward(name, spelling):
    assert {norm.direction for norm in zoo.fold_result(name, spelling).report.folded} == {"backward"}


@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name, spelling):
    net = zoo.network(name)
    result = zoo.fold_result(name, spelling)
    norms, before, after = PUBLISHED[name]
    assert (len(result.report.folded), len(result.report.kept)) == (norms, 0)
    assert (result.report.parameters_before, result.report.parameters_after) == (before, after)
    assert sum(parameter.numel() for parameter in result.module.parameters()) == after
    assert relative_error(net.output, result.module(*net.inputs)) < 1e-10


@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_float_outputs_agree(name, spelling):
    net = zoo.network(name)
    model = copy.deepcopy(net.model).float()
    inputs = tuple(value.float() for value in net.inputs)
    result = bnfold.fold(zoo.to_torchscript(model, inputs, spelling))
    assert relative_error(model(*inputs), result.module(*inputs)) < 1e-5
