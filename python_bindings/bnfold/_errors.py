"""The errors of the package, and how those of the operators become them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class Error(RuntimeError):
    """What a call can fail with: one sentence that says what was wrong and what to do."""


class LoadError(Error):
    """The file is missing, unreadable, or not a TorchScript module."""


class SaveError(Error):
    """The file could not be written; what was at the path before is untouched."""


# Where torch appends the C++ stack of an exception to its message.
_BACKTRACE = "\nException raised from "


@contextlib.contextmanager
def raised_as(error_class: type[Error]) -> Iterator[None]:
    """Operators can only raise RuntimeError; raises it again as ``error_class``, without a C++ backtrace."""
    try:
        yield
    except RuntimeError as error:
        message = str(error).split(_BACKTRACE, 1)[0].strip()
        raise error_class(message) from None
