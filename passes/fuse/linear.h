// Linear layers that oneDNN computes in one step with the activation behind them.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bnfold/optimize.h"
#include "fuse/facts.h"
#include "fuse/packed_weight.h"

namespace bnfold {

struct LinearFusion {
  torch::jit::Node* linear;
  std::string layer;  // dotted path
  int64_t rows;       // of its input
  torch::jit::Node* activation = nullptr;

  // What the step computes, in the order of the graph. The step stands in the place of the last one.
  std::vector<torch::jit::Node*> nodes() const {
    if (activation == nullptr) return {linear};
    return {linear, activation};
  }
  torch::jit::Node* last() const { return nodes().back(); }
};

struct LinearPlan {
  std::vector<LinearFusion> fusions;  // in the order of the graph
  std::vector<UnfusedStep> unfused;
};

// What becomes of the linear layers of a frozen graph.
LinearPlan plan_linears(const std::shared_ptr<torch::jit::Graph>& graph, const Facts& facts);

// Makes the step with the weight packed, removes what it computes, and returns what it makes.
torch::jit::Value* apply(const LinearFusion& fusion, WeightPacker& packer);

}  // namespace bnfold
