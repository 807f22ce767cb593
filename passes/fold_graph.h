// Folds the norms of one flattened graph.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <vector>

#include "bnfold/report.h"
#include "bnfold/target.h"
#include "graph/parameter_store.h"

namespace bnfold {

// What is asked of the fold of one graph.
struct FoldSettings {
  std::vector<std::optional<int64_t>> input_ranks = {};  // of the inputs of the graph, self left out, where they are known
  Target target = Target::libtorch;
  bool stays_in_libtorch =
      false;  // which runs the graph as it is: bounds overwrite what they bound, or are one clamp, where that is faster
  std::optional<int64_t> fold_limit = {};  // it ends once the report lists so many folds; norms that are left then are not listed
  bool types_prove_ranks = false;  // the graph is that of an exported program, which has no other ranks than its types say
};

// Folds every norm of `graph` that can be folded, merges parallel convolutions, and adds to `report` what became of each. Returns whether the
// graph changed.
bool fold_graph(torch::jit::Graph& graph, const FoldSettings& settings, ParameterStore& store, Report& report);

}  // namespace bnfold
