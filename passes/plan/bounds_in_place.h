// Saves the memory of the bounds that a fold put before an activation.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "graph/parameter_store.h"

namespace bnfold {

// Bounds that were added overwrite what they bound, where nobody else reads it: half the time of a bound on a CPU goes into new memory.
// Called once the graph has no more folds to come, since each may add a reader.
void write_bounds_in_place(torch::jit::Graph& graph, const ParameterStore& store);

}  // namespace bnfold
