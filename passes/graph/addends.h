// What a sum adds.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <vector>

namespace bnfold {

// Whether the node is a sum or difference, of tensors or with a number, in which each counts a constant number of times.
bool is_sum(const torch::jit::Node* node);

// An addend of a sum, and how often it counts.
struct Addend {
  torch::jit::Value* value;
  double weight;
};

// All tensors below `value`, which counts `weight` times, through sums that nobody else reads.
std::vector<Addend> addends_of(torch::jit::Value* value, double weight);

}  // namespace bnfold
