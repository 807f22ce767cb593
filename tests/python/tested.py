"""What was built and is tested: the operator library that the package loads, and what lies beside it."""

from __future__ import annotations

from pathlib import Path

from bnfold import _library

LIBRARY = Path(_library._find()).resolve()
BUILD = LIBRARY.parents[1]
PROGRAM = BUILD / "bin" / "bnfold"
