"""Writes files beside their place and renames them, so that a path holds the old file or the whole new one."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


class Error(Exception):
    """What a run can fail with: one sentence that says what was wrong and what to do."""


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A path beside ``path`` for a file or a folder, which is renamed to ``path`` where the block ends without an exception.

    Raises Error where the block can't write, RuntimeError included, which is what torch.save raises on a full disk.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)
        yield partial
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise Error(f"{path} could not be written: {_reason(error)}; free some space or choose another folder") from error
    finally:
        _remove(partial)


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder for files that go into ``folder`` together, where the block ends without an exception. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix=".staged-", dir=folder) as staging:
        yield Path(staging)
        for path in sorted(Path(staging).iterdir()):
            path.replace(folder / path.name)


def require_writable(folder: Path) -> None:
    """Makes a folder where it is missing. Raises OSError where no file can be written there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def make_folder(path: Path) -> None:
    """Makes a folder, or sees that it can be written into, before a run takes hours for what goes there. Raises Error."""
    try:
        require_writable(path)
    except OSError as error:
        raise Error(f"{path} can't be written into: {_reason(error)}; choose another --out") from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8. Raises Error."""
    with written_beside(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
