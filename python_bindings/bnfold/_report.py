"""What a fold did: every norm that was folded, every norm that was kept and why, and the size of the module before and after."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import Any

_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class FoldedNorm:
    """A norm that is gone."""

    name: str  #: dotted path of the norm, "layer1.0.bn1"
    direction: str  #: "backward" into a producer, "forward" into a consumer or "sideways" into a sibling
    into: str  #: dotted path of the layer that took it, several joined by ", "


@dataclasses.dataclass(frozen=True)
class KeptNorm:
    """A norm that could not be folded exactly."""

    name: str  #: dotted path of the norm
    reason: str  #: identifier of the reason, "value_has_other_readers"
    detail: str  #: the operator and the values that the reason is about
    source: str  #: "file.py:12" of the operator that stood in the way, empty where the module does not tell


@dataclasses.dataclass(frozen=True)
class Report:
    """``str(report)`` is a table for a terminal, ``report.as_dict()`` goes into JSON."""

    folded: tuple[FoldedNorm, ...]
    kept: tuple[KeptNorm, ...]
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
        folded = tuple(FoldedNorm(**norm) for norm in content.pop("folded"))
        kept = tuple(KeptNorm(**norm) for norm in content.pop("kept"))
        return cls(folded=folded, kept=kept, **content)

    def as_dict(self) -> dict[str, Any]:
        """Lists, dicts, strings and integers only, with the members of this class."""
        content = dataclasses.asdict(self)
        content["folded"] = list(content["folded"])
        content["kept"] = list(content["kept"])
        return content

    def __str__(self) -> str:
        directions = ", ".join(f"{count} {direction}" for direction, count in Counter(norm.direction for norm in self.folded).items())
        norms = len(self.folded) + len(self.kept)
        lines = [
            f"{'norms folded':<12} {len(self.folded):>14}  of  {norms:>14}   {directions}",
            _count_line("parameters", self.parameters_before, self.parameters_after),
            _count_line("buffers", self.buffers_before, self.buffers_after),
            _size_line("size", f"{self.bytes_before / 1e6:.2f} MB", f"{self.bytes_after / 1e6:.2f} MB", ""),
            _count_line("graph nodes", self.nodes_before, self.nodes_after),
        ]
        if self.kept:
            lines += ["", "kept"]
        for norm in self.kept:
            source = f"  ({norm.source})" if norm.source else ""
            lines.append(f"  {norm.name}  {norm.reason}{source}")
            if norm.detail:
                lines.append(f"      {_shortened(norm.detail, _WIDTH - 6)}")
        return "\n".join(line.rstrip() for line in lines)


def _size_line(what: str, before: str, after: str, difference: str) -> str:
    return f"{what:<12} {before:>14}  ->  {after:>14}   {difference}"


def _count_line(what: str, before: int, after: int) -> str:
    difference = f"{after - before:+,}" if after != before else ""
    return _size_line(what, f"{before:,}", f"{after:,}", difference)


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
