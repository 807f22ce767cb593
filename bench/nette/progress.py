"""What a run says while it works: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item", covariant=True)


class SizedIterable(Sized, Protocol[Item]):
    def __iter__(self) -> Iterator[Item]: ...


class Log:
    """Prints to a console."""

    def __init__(self, console: Console):
        self._console = console

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def track(self, items: SizedIterable[Item], description: str) -> Iterator[Item]:
        """The items, with a bar that is gone after the last one; without it where the console is no terminal."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as progress:
            yield from progress.track(items, total=len(items), description=description)
