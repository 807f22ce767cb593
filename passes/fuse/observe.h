// The sizes that the values of a graph had in one run.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace bnfold {

using Observations = std::unordered_map<const torch::jit::Value*, std::vector<int64_t>>;

// Runs a copy of `graph` on `inputs`, self first. Values in branches, loops and tasks are not observed.
Observations observe(const torch::jit::Graph& graph, const std::vector<c10::IValue>& inputs);

}  // namespace bnfold
