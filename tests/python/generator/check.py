"""Checks a generated model in one way of running it."""

from __future__ import annotations

import torch

from .exported import ExportedCheck
from .properties import Check, Outcome
from .run import Run


def check(source: str, run: Run) -> Outcome:
    """Raises AssertionError where a property does not hold, Unsuitable where the model can't show it."""
    with torch.no_grad():
        return (ExportedCheck if run.is_exported else Check)(source, run).outcome()
