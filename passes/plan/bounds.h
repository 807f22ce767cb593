// Bounds from both sides as one step.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <functional>

#include "graph/memory.h"
#include "graph/parameter_store.h"

namespace bnfold {

// `clamp` now stands where `upper` and, before it, `lower` stood, which are about to go.
struct JoinedBounds {
  const torch::jit::Value* lower;
  const torch::jit::Value* upper;
  torch::jit::Value* clamp;
};

// Makes aten::clamp of aten::clamp_max behind aten::clamp_min, or minimum behind maximum, where both bounds are static tensors, and tells of
// each. On a GPU that is one kernel. On a CPU it takes half the time in channels_last memory; in other orders clamp with tensors is not
// vectorized, and takes four times as long as the two.
void join_bounds(
    torch::jit::Graph& graph, const ParameterStore& store, Memory& memory,
    const std::function<void(const JoinedBounds&)>& joined = [](const JoinedBounds&) {});

}  // namespace bnfold
