"""What a fold did: every norm that was folded, every norm that was kept and why, and the size of the module before and after."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group


@dataclasses.dataclass(frozen=True)
class FoldedNorm:
    """A norm that is gone."""

    name: str  #: dotted path of the norm, "layer1.0.bn1"
    direction: str  #: "backward" into a producer, "forward" into a consumer or "sideways" into a sibling
    into: tuple[str, ...]  #: dotted paths of the layers that took it

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> FoldedNorm:
        return cls(**{**record, "into": tuple(record["into"])})


@dataclasses.dataclass(frozen=True)
class Obstacle:
    """What stopped a norm on one of the ways that were tried."""

    way: str  #: "backward", "forward", or how scale and shift were to part
    passed: tuple[str, ...]  #: the operators on the way that let it pass
    reason: str
    detail: str
    source: str


@dataclasses.dataclass(frozen=True)
class KeptNorm:
    """A norm that could not be folded exactly."""

    name: str  #: dotted path of the norm
    reason: str  #: identifier of the reason, "value_has_other_readers"
    detail: str  #: the operator and the values that the reason is about
    source: str  #: "file.py:12" of the operator that stood in the way, empty where the module does not tell
    obstacles: tuple[Obstacle, ...] = ()  #: the first one on each way; reason, detail and source are those of the way backward

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> KeptNorm:
        obstacles = tuple(Obstacle(**{**one, "passed": tuple(one["passed"])}) for one in record["obstacles"])
        return cls(**{**record, "obstacles": obstacles})


@dataclasses.dataclass(frozen=True)
class MergedConv:
    """A convolution that became part of another one of the same value, to whose result its own was added."""

    name: str  #: dotted path of the convolution
    into: str  #: and of the one that took it in


@dataclasses.dataclass(frozen=True)
class Report:
    """``str(report)`` is a table for a terminal, ``report.as_dict()`` goes into JSON."""

    folded: tuple[FoldedNorm, ...]
    kept: tuple[KeptNorm, ...]
    scales: tuple[FoldedNorm, ...]  #: constant scales without a norm, as layer scales, that were folded too
    merged: tuple[MergedConv, ...]  #: convolutions that became part of another one, to whose result theirs was added
    table: str = dataclasses.field(repr=False)  #: what ``str(report)`` returns
    parameters_before: int  #: elements of parameters; for a frozen module, of constants
    parameters_after: int
    buffers_before: int  #: elements of buffers
    buffers_after: int
    bytes_before: int  #: of parameters and buffers together
    bytes_after: int
    nodes_before: int  #: of the graphs of every method kept, constants and attribute reads left out
    nodes_after: int

    @classmethod
    def from_json(cls, text: str) -> Report:
        content = json.loads(text)
        folded = tuple(FoldedNorm.from_dict(norm) for norm in content.pop("folded"))
        kept = tuple(KeptNorm.from_dict(norm) for norm in content.pop("kept"))
        scales = tuple(FoldedNorm.from_dict(scale) for scale in content.pop("scales"))
        merged = tuple(MergedConv(**conv) for conv in content.pop("merged"))
        return cls(folded=folded, kept=kept, scales=scales, merged=merged, **content)

    def as_dict(self) -> dict[str, Any]:
        """Lists, dicts, strings and integers only, with the members of this class."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def __str__(self) -> str:
        return self.table.rstrip()

    def __rich__(self) -> Group:
        """What rich shows: ``rich.print(report)``, in colors, and as wide as the terminal."""
        from ._rich import rendered

        return rendered(self)
