// Makes one convolution of two of the same value whose results are added.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "bnfold/report.h"
#include "graph/parameter_store.h"

namespace bnfold {

// Adds what was merged to `report`, and returns whether the graph changed. Called once the norms are folded: one between a convolution and
// the sum would stand in the way.
bool merge_parallel_convs(torch::jit::Graph& graph, ParameterStore& store, Report& report);

}  // namespace bnfold
