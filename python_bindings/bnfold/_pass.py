"""Folding as a part of TorchScript's own optimization."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ._library import ops


def register_pass() -> None:
    """Folds frozen modules when TorchScript optimizes them, which it does in one of their first runs.

    Frozen modules only: their weights are constants of the graph. The module, its ``graph`` and its file stay as they are. What ran before
    is optimized already and stays so. Call it before other threads run modules. With ``BNFOLD_AUTO=1`` in the environment, loading the
    operator library does it.
    """
    ops.register_pass()


def unregister_pass() -> None:
    """Takes the pass out again; what was optimized with it stays so."""
    ops.unregister_pass()


def pass_is_registered() -> bool:
    return bool(ops.pass_is_registered())


@contextlib.contextmanager
def registered_pass() -> Iterator[None]:
    """Registers the pass for what runs for the first time inside of a ``with`` block."""
    before = pass_is_registered()
    register_pass()
    try:
        yield
    finally:
        if not before:
            unregister_pass()
