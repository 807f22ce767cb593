// Operators that overwrite what they read: away before planning, which wants values that nothing writes, and back again behind it.
//
//   before   u --> relu_ --> y          planned   u --> relu --> y          after   u --> relu_ --> y, where that is proven
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <unordered_set>

#include "graph/parameter_store.h"

namespace bnfold {

using Nodes = std::unordered_set<const torch::jit::Node*>;

// What overwrites memory that nobody else sees makes new memory instead. Returns the nodes that do so now. What is left writes into memory
// that others may see, or would give another dtype.
Nodes use_new_memory(torch::jit::Graph& graph, const ParameterStore& store);

// What reads new memory last overwrites it: of the nodes in `before`, which did so once, and of the bounds that a fold added beside a norm.
void reuse_memory(torch::jit::Graph& graph, const ParameterStore& store, const Nodes& before);

}  // namespace bnfold
