// What the values of a graph were in one run.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>

#include <unordered_map>
#include <vector>

namespace bnfold {

struct Observed {
  std::vector<int64_t> sizes;
  at::ScalarType dtype;
};

using Observations = std::unordered_map<const torch::jit::Value*, Observed>;

// Runs a copy of `graph` on `inputs`, self first. Values in branches, loops and tasks are not observed.
Observations observe(const torch::jit::Graph& graph, const std::vector<c10::IValue>& inputs);

// Whether both values had the same sizes and dtype, and larger sizes than 1 behind batch and channels: along a size of 1, other inputs may be
// broadcast.
bool surely_have_one_size(const Observations& observed, const torch::jit::Value* one, const torch::jit::Value* other);

}  // namespace bnfold
