// Folds the norms of one flattened graph.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <vector>

#include "bnfold/report.h"
#include "graph/parameter_store.h"

namespace bnfold {

// Folds every norm of `graph` that can be folded, merges parallel convolutions, and adds to `report` what became of each. `input_ranks` are those of the inputs of
// the graph, self left out, where they are known. With `fold_limit` it ends once `report` lists so many folds; the norms that are left then
// are not listed. Returns whether the graph changed.
bool fold_graph(torch::jit::Graph& graph, const std::vector<std::optional<int64_t>>& input_ranks, ParameterStore& store,
                Report& report, std::optional<int64_t> fold_limit = std::nullopt);

}  // namespace bnfold
