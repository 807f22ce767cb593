from __future__ import annotations

import pytest
import torch


# Small tensors, and convolutions in double precision that loop over the groups: threads would spend their time waiting for each other.
torch.set_num_threads(1)


# torch.jit.script knows builtins by id(), and keeps the id of one that is gone: as an operator gets another overload, which importing
# torch.ao.quantization does. Whatever then has that id, as the padding of a convolution, would be taken for a builtin.
_kept_builtins: list[object] = []
_register_builtin = torch.jit._builtins._register_builtin


def _register_and_keep(function: object, operator: str) -> None:
    _kept_builtins.append(function)
    _register_builtin(function, operator)


torch.jit._builtins._register_builtin = _register_and_keep


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield
