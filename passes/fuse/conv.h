// Convolutions that oneDNN computes in one step with the sum and the activation behind them.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "bnfold/optimize.h"
#include "fuse/activation.h"
#include "fuse/facts.h"
#include "fuse/packed_weight.h"
#include "graph/conv_geometry.h"
#include "graph/parameter_store.h"

namespace bnfold {

struct ConvFusion {
  torch::jit::Node* conv;
  std::string layer;  // dotted path
  at::Tensor weight;  // [O, I/groups, H, W]; of a transposed one [I, O, H, W]; three dimensions likewise
  ConvGeometry geometry;
  std::vector<int64_t> input_size;  // [N, C, H, W], or [N, C, D, H, W]
  torch::jit::Node* pad = nullptr;  // with zeros; `geometry` has its padding
  torch::jit::Node* sum = nullptr;
  size_t addend = 0;                       // which input of the sum is not the convolution
  bool overwrites_addend = false;          // nobody reads it later
  torch::jit::Node* activation = nullptr;  // behind the sum, or behind the convolution

  // What the step computes, in the order of the graph. The step stands in the place of the last one.
  std::vector<torch::jit::Node*> nodes() const {
    std::vector<torch::jit::Node*> all;
    if (pad != nullptr) all.push_back(pad);
    all.push_back(conv);
    if (sum != nullptr) all.push_back(sum);
    if (activation != nullptr) all.push_back(activation);
    return all;
  }
  torch::jit::Node* last() const { return nodes().back(); }
  torch::jit::Value* input() const { return (pad != nullptr ? pad : conv)->input(0); }
};

struct ConvPlan {
  std::vector<ConvFusion> fusions;  // in the order of the graph
  std::vector<UnfusedStep> unfused;
};

// What becomes of the convolutions of a frozen graph.
ConvPlan plan_convs(const std::shared_ptr<torch::jit::Graph>& graph, const Facts& facts);

// Makes the step with the weight packed, removes what it computes, and returns what it makes.
torch::jit::Value* apply(const ConvFusion& fusion, WeightPacker& packer);

}  // namespace bnfold
