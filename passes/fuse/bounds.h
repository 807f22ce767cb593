// A bound from both sides is one operator in channels_last.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include "fuse/facts.h"
#include "graph/memory.h"

namespace bnfold {

// Makes aten::clamp of aten::clamp_max behind aten::clamp_min, or minimum behind maximum, where both bounds are constant tensors. In channels_last
// memory, where the fused steps put it, that takes half the time; in other orders clamp with tensors is slower than the two.
void join_bounds(torch::jit::Graph& graph, Facts& facts, Memory& memory);

}  // namespace bnfold
