"""Reads graphs of TorchScript: which norms are in them, and which operators an affine passed on its way."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

import bnfold

NORMS = ("aten::batch_norm",)
TABLE = Path(__file__).resolve().parents[3] / "passes" / "rules" / "table.cpp"


def nodes_of(graph: Any, tasks: bool = True) -> Iterator[Any]:
    """All nodes, inside branches and loops too, and inside tasks where these are wanted."""
    for node in graph.nodes():
        yield node
        for block in node.blocks():
            yield from nodes_of(block, tasks)
        if tasks and node.kind() == "prim::fork":
            yield from nodes_of(node.g("Subgraph"))


def attribute_path(value: Any) -> str:
    """The dotted path of an attribute of the module, empty where the value is none."""
    names: list[str] = []
    node = value.node()
    while node.kind() == "prim::GetAttr":
        names.insert(0, node.s("name"))
        node = next(node.inputs()).node()
    return ".".join(names)


def layer_of(path: str) -> str:
    return path.rpartition(".")[0] or path


def norms_in(graph: torch._C.Graph) -> list[str]:
    """The name of each batch norm, empty where its parameters are constants or it runs in a task, which may get a submodule."""
    outside = {_name(node) for node in nodes_of(graph, tasks=False) if node.kind() in NORMS}
    names = [_name(node) for node in nodes_of(graph) if node.kind() in NORMS]
    return [name if name in outside else "" for name in names]


def eval_norms(graph: torch._C.Graph) -> int:
    """How many batch norms there are, but for those in training mode."""
    return sum(node.kind() in NORMS and list(node.inputs())[5].toIValue() is False for node in nodes_of(graph))


def training_norms(graph: torch._C.Graph) -> int:
    return len(norms_in(graph)) - eval_norms(graph)


def _name(node: Any) -> str:
    paths = [attribute_path(value) for value in list(node.inputs())[1:5]]
    return next((layer_of(path) for path in paths if path), "")


def rule_families() -> dict[str, str]:
    """The family of each operator that the rules know."""
    lines = re.findall(r'\{"(\w+)",\s*\{((?:\s*"\w+::\w+",?)+)\}', TABLE.read_text())
    return {operator: family for family, operators in lines for operator in re.findall(r'"([^"]+)"', operators)}


class Flow:
    """Which node reads what which other one makes."""

    def __init__(self, graph: Any):
        self._nodes: list[tuple[str, list[str], list[str]]] = []
        self._readers: dict[str, list[int]] = defaultdict(list)
        self._makers: dict[str, int] = {}
        self.attributes: dict[str, list[str]] = defaultdict(list)  #: the values that belong to a layer
        for node in nodes_of(graph):
            inputs = [value.debugName() for value in node.inputs()]
            for block in node.blocks():
                inputs += [value.debugName() for value in block.outputs()]
            outputs = [value.debugName() for value in node.outputs()]
            for name in inputs:
                self._readers[name].append(len(self._nodes))
            for value in node.outputs():
                self._makers[value.debugName()] = len(self._nodes)
                if node.kind() == "prim::GetAttr":
                    self.attributes[layer_of(attribute_path(value))].append(value.debugName())
            self._nodes.append((node.kind(), inputs, outputs))

    def readers(self, names: Iterable[str]) -> set[int]:
        return {node for name in names for node in self._readers[name]}

    def behind(self, nodes: set[int]) -> set[int]:
        return self._closure(nodes, lambda node: self.readers(self._nodes[node][2]))

    def before(self, nodes: set[int]) -> set[int]:
        return self._closure(nodes, lambda node: {self._makers[name] for name in self._nodes[node][1] if name in self._makers})

    @staticmethod
    def _closure(start: set[int], neighbours: Any) -> set[int]:
        found, todo = set(start), list(start)
        while todo:
            new = neighbours(todo.pop()) - found
            found |= new
            todo += new
        return found

    def kinds(self, nodes: set[int]) -> set[str]:
        return {self._nodes[node][0] for node in nodes}


def passed(original: Any, norm: bnfold.FoldedNorm) -> set[str]:
    """The operators between a norm and the layers that took it, these included, in the graph of the original."""
    flow = Flow(original)
    norms = flow.readers(flow.attributes[norm.name])
    takers = flow.readers(value for layer in norm.into for value in flow.attributes[layer]) - norms
    if norm.direction == "backward":
        between = flow.behind(takers) & flow.before(norms)
    else:
        between = flow.behind(norms) & flow.before(takers)
    return flow.kinds(between - norms)
