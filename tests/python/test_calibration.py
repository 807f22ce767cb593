"""The tests of the tests: a fold that is slightly wrong would be seen."""

from __future__ import annotations

import pytest
import torch
import zoo
from calibrate import norms_of, relative_error


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "inception_v3", "googlenet"])
def test_a_shift_that_is_off_in_one_norm_moves_the_output(name):
    net = zoo.network(name)
    norms = norms_of(net.model)
    for norm_name in net.norms[:: max(1, len(net.norms) // 8)] + [net.norms[-1]]:
        beta = norms[norm_name].bias
        kept = beta.clone()
        beta.add_(0.1)
        error = relative_error(net.output, net.model(*net.inputs))
        beta.copy_(kept)
        assert error >= 1e-3, norm_name


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0"])
def test_the_output_depends_on_the_input(name):
    net = zoo.network(name)
    other = torch.randn_like(net.inputs[0])
    assert relative_error(net.output, net.model(other)) > 1e-2


def test_gammas_have_both_signs_and_some_are_zero():
    gammas = torch.cat([norm.weight for norm in norms_of(zoo.network("resnet50").model).values()])
    assert (gammas > 0).any() and (gammas < 0).any() and (gammas == 0).any()
