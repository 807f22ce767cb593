// Writes what a fold did to a graph into the JSON that the graph was made of.
#pragma once

#include "exported/json.h"
#include "exported/read_graph.h"
#include "graph/parameter_store.h"

namespace bnfold::exported {

// Makes `program` compute what `graph` computes now: a node that is still there stays the object that it is, but for arguments that are
// others now; what is new stands where it does in the graph, with the metadata of the node that it belongs to. What nobody reads any more
// goes, from `graph` as well, the inputs of its tensors too; what nobody read before stays. Returns the tensors of the new program by their dotted names, those of
// `tensors` where they did not change. A tensor that was added takes the name it would like, with a number where another one has it.
Tensors write_graph(Json& program, const ProgramGraph& graph, const ParameterStore& store, const Tensors& tensors);

}  // namespace bnfold::exported
