"""Which tensors of an exported program a run may write into, beside its buffers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

Names = frozenset[str]


def written_tensors(program: ExportedProgram) -> set[str]:
    """The names of parameters and constants in whose memory an operator of the program may write, by what its schema says."""
    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs if spec.target is not None}
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    return _written(program.graph_module, [frozenset({targets[node.name]} if node.name in targets else ()) for node in nodes])


def _written(module: GraphModule, inputs: list[Names]) -> set[str]:
    """Of the names whose tensors the inputs may be."""
    names: dict[Node, Names] = {}
    found: set[str] = set()
    given = iter(inputs)
    for node in module.graph.nodes:
        if node.op == "placeholder":
            names[node] = next(given, frozenset())
        elif node.op != "call_function":
            names[node] = frozenset()
        elif isinstance(node.target, torch._ops.OpOverload):
            schema = node.target._schema
            found |= {name for value in _written_arguments(schema, node) for name in names[value]}
            names[node] = _names_of(node, names) if any(result.alias_info for result in schema.returns) else frozenset()
        else:
            # A list or tuple that is read, or an operator that runs graphs of its own.
            names[node] = _names_of(node, names)
            for graph in _graphs_of(module, node):
                placeholders = [inner for inner in graph.graph.nodes if inner.op == "placeholder"]
                found |= _written(graph, [names[node]] * len(placeholders))
    return found


def _names_of(node: Node, names: dict[Node, Names]) -> Names:
    return frozenset(name for value in node.all_input_nodes for name in names[value])


def _written_arguments(schema: Any, node: Node) -> Iterator[Node]:
    for place, argument in enumerate(schema.arguments):
        value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write:
            values = value if isinstance(value, (list, tuple)) else [value]
            yield from (one for one in values if isinstance(one, torch.fx.Node))


def _graphs_of(module: GraphModule, node: Node) -> Iterator[GraphModule]:
    for value in node.all_input_nodes:
        if value.op == "get_attr" and isinstance(graph := getattr(module, value.target, None), torch.fx.GraphModule):
            yield graph
