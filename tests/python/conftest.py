from __future__ import annotations

import pytest
import torch


# Small tensors, and convolutions in double precision that loop over the groups: threads would spend their time waiting for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield
