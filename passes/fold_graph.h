// Folds the norms of one flattened graph.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <vector>

#include "bnfold/report.h"
#include "graph/parameter_store.h"

namespace bnfold {

// Folds every norm of `graph` that can be folded, merges parallel convolutions, and adds to `report` what became of each. `input_ranks` are those of the inputs of
// the graph, self left out, where they are known. Returns whether the graph changed.
bool fold_graph(torch::jit::Graph& graph, const std::vector<std::optional<int64_t>>& input_ranks, ParameterStore& store,
                Report& report);

}  // namespace bnfold
