"""Real networks: every norm that runs in eval mode is folded, and the outputs are those of eager."""

from __future__ import annotations

import copy

import pytest
import zoo
from calibrate import relative_error

import bnfold

pytestmark = pytest.mark.filterwarnings("ignore:Scripted .* always returns")

# Norms that run in eval mode.
FOLDED = {
    "mobilenet_v2": 52,
    "mobilenet_v3_small": 34,
    "mobilenet_v3_large": 46,
    "efficientnet_b0": 49,
    "inception_v3": 94,
    "googlenet": 57,
    "shufflenet_v2_x1_0": 56,
    "mnasnet1_0": 52,
    "regnet_y_400mf": 53,
}

# Norms and parameters of the two networks that the whole project is measured on, with 10 classes.
PUBLISHED = {
    "vgg16_bn": (13, 134_309_962, 134_301_514),
    "resnet50": (53, 23_528_522, 23_501_962),
}


def outputs_that_exist(output):
    """Without the None that GoogLeNet's and Inception's named tuples have in place of the auxiliary outputs."""
    return [value for value in output if value is not None] if isinstance(output, tuple) else output


@pytest.mark.parametrize("spelling", zoo.SPELLINGS)
@pytest.mark.parametrize("name", FOLDED)
def test_every_norm_is_folded_and_double_outputs_agree(name, spelling):
    net = zoo.network(name)
    result = zoo.fold_result(name, spelling)
    assert result.report.kept == ()
    assert sorted(norm.name for norm in result.report.folded) == sorted(net.norms)
    assert len(result.report.folded) == FOLDED[name]
    assert {norm.direction for norm in result.report.folded} == {"backward"}
    assert relative_error(net.output, outputs_that_exist(result.module(*net.inputs))) < 1e-10


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
