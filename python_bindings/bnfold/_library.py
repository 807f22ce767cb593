"""Finds and loads the operator library, which registers ``torch.ops.bnfold``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

_NAME = "libbnfold_ops.so"
_ONEDNN_NAME = "libbnfold_onednn.so"
_VARIABLE = "BNFOLD_LIBRARY"


def _candidates() -> list[Path]:
    package = Path(__file__).resolve().parent
    # An installed wheel has the library inside the package, a source tree in its build directory.
    return [package / _NAME, package.parents[1] / "build" / "lib" / _NAME]


def _find() -> Path:
    chosen = os.environ.get(_VARIABLE)
    if chosen:
        if not Path(chosen).is_file():
            raise ImportError(f"{_VARIABLE} is {chosen}, which is no file; set it to the path of {_NAME}")
        return Path(chosen)
    candidates = _candidates()
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    places = " or ".join(str(candidate) for candidate in candidates)
    raise ImportError(f"{_NAME} is not at {places}; build it with scripts/setup.sh, or set {_VARIABLE} to its path")


def _require_matching_torch(library: Path) -> None:
    # LibTorch keeps its binary interface between patch releases, and no longer than that.
    record = library.with_suffix(".torch_version")
    built = record.read_text().strip() if record.is_file() else torch.__version__
    if built.split(".")[:2] != torch.__version__.split(".")[:2]:
        raise ImportError(
            f"{library} was built for torch {built}, and this is torch {torch.__version__}: build bnfold again beside this torch, with "
            f"pip install --force-reinstall --no-deps and the path of its source, or install torch {built}"
        )


def _is_loaded(operator: str) -> bool:
    return hasattr(torch.ops.bnfold, operator)


def _load() -> Any:
    # A program that loaded the library itself has the operators; registering them a second time would abort.
    if not _is_loaded("fold_with_report"):
        library = _find()
        _require_matching_torch(library)
        try:
            torch.ops.load_library(str(library))
        except OSError as error:
            raise ImportError(
                f"{library} can't be loaded beside torch {torch.__version__}; it was most likely built for another torch, "
                f"so build it again with this one ({error})"
            ) from None
    return torch.ops.bnfold


def load_onednn() -> None:
    """Loads the library that makes, loads and runs networks of oneDNN's primitives. Raises ImportError where it was not built or can't be loaded."""
    if _is_loaded("move_into_onednn"):
        return
    library = _find().parent / _ONEDNN_NAME
    if not library.is_file():
        raise ImportError(f"{library} is not there: install oneDNN 2 or 3, on Debian the package libdnnl-dev, and build bnfold again")
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        raise ImportError(f"{library} can't be loaded: install the oneDNN that it was built with, on Debian 12 the package libdnnl2 ({error})") from None


def program() -> Path:
    """The program ``bnfold``, which stands in the wheel beside the library, and in a build directory beside its folder."""
    library = _find()
    beside = [library.parent / "bin" / "bnfold", library.parents[1] / "bin" / "bnfold"]
    for path in beside:
        if path.is_file():
            return path
    raise ImportError(f"the program bnfold is not at {' or '.join(map(str, beside))}; install bnfold again")


ops: Any = _load()
