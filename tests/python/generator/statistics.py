"""Counts what a run of the generator has seen, so that it can't go blind without anybody noticing."""

from __future__ import annotations

import dataclasses
from collections import Counter

from .graphs import passed, rule_families
from .properties import Outcome
from .run import Run, Unsuitable


@dataclasses.dataclass
class Statistics:
    examples: int = 0
    folded: Counter[str] = dataclasses.field(default_factory=Counter)  #: by direction
    kept: Counter[str] = dataclasses.field(default_factory=Counter)  #: by reason
    obstacles: Counter[str] = dataclasses.field(default_factory=Counter)  #: by reason, on every way
    families: Counter[str] = dataclasses.field(default_factory=Counter)  #: of rules, that a folded norm met
    discarded: Counter[str] = dataclasses.field(default_factory=Counter)  #: by cause
    refused: Counter[str] = dataclasses.field(default_factory=Counter)
    merged: Counter[str] = dataclasses.field(default_factory=Counter)  #: convolutions into others of the same value, by spelling of the run
    missed: Counter[str] = dataclasses.field(default_factory=Counter)  #: what torch.jit.freeze folds and bnfold keeps, by reason
    smallest_missed: dict[str, str] = dataclasses.field(default_factory=dict)
    checks_rank: int = 0

    def discard(self, cause: Unsuitable) -> None:
        self.discarded[str(cause).split(":")[0]] += 1

    def add(self, outcome: Outcome, run: Run, source: str) -> None:
        self.examples += 1
        self.checks_rank += outcome.checks_rank
        if outcome.refusal:
            self.refused[outcome.refusal] += 1
        if outcome.missed:
            reasons = " ".join(outcome.missed)
            self.missed[reasons] += 1
            self.smallest_missed[reasons] = min(self.smallest_missed.get(reasons, source), source, key=len)
        if outcome.report is None:
            return
        self.folded.update(norm.direction for norm in outcome.report.folded)
        self.merged[run.spelling] += len(outcome.report.merged)
        self.kept.update(norm.reason for norm in outcome.report.kept)
        self.obstacles.update({obstacle.reason for norm in outcome.report.kept for obstacle in norm.obstacles})
        if outcome.original is not None and not run.frozen:  # constants have no names by which to find them
            families = rule_families()
            for norm in outcome.report.folded:
                kinds = passed(outcome.original.inlined_graph, norm)
                self.families.update({families[kind] for kind in kinds if kind in families})

    def __iadd__(self, other: Statistics) -> Statistics:
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            setattr(self, field.name, {**mine, **theirs} if type(mine) is dict else mine + theirs)
        return self

    def __str__(self) -> str:
        lines = [f"{self.examples} modules", f"{self.checks_rank} check the rank of their input, and refuse another one"]
        for field in dataclasses.fields(self):
            counts = getattr(self, field.name)
            if isinstance(counts, Counter) and counts:
                lines.append(f"{field.name}: {counts.total()}")
                lines += [f"  {count:6} {name}" for name, count in counts.most_common()]
        lines += [f"folded by torch.jit.freeze, and kept for {reasons}:\n{source}" for reasons, source in self.smallest_missed.items()]
        return "\n".join(lines)
