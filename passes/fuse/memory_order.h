// Fused steps make channels_last memory where the layers before them made contiguous memory.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <unordered_set>
#include <vector>

namespace bnfold {

// The value that a step makes, and all that may lie in memory in its order.
std::vector<const torch::jit::Value*> values_in_order_of(const torch::jit::Value* step);

// Puts the values that come from `steps` into contiguous order in front of whatever may ask for an order: outputs, views, containers,
// branches, and operators that are not known to read and make any. What passes an order on, and what makes memory of its own, is left alone.
// None of these values is written in place: a copy in another order would be written instead.
// Returns the values that may lie in another order than before.
std::unordered_set<torch::jit::Value*> restore_memory_order(torch::jit::Graph& graph,
                                                            const std::unordered_set<torch::jit::Value*>& steps);

}  // namespace bnfold
