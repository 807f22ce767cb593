"""``python -m bnfold`` and the command of an installed wheel: the program, with the LibTorch of this environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import torch

from ._library import program


def main() -> NoReturn:
    path = program()
    libraries = [str(Path(torch.__file__).parent / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries))}
    os.execve(path, ["bnfold", *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
