// The activations that oneDNN computes in the step of the layer before them.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <string>
#include <vector>

namespace bnfold {

struct Activation {
  std::string name = "none";               // what LibTorch's fused operators call it
  std::vector<double> numbers = {};        // a slope, or two bounds
  std::optional<std::string> algorithm{};  // of gelu: "none" or "tanh"
};

// The activation that `node` is; nothing where it is none, or one whose numbers are computed.
std::optional<Activation> activation_of(const torch::jit::Node* node);

// Scalar?[], inserted into the graph.
torch::jit::Value* insert_numbers(torch::jit::Graph& graph, const std::vector<double>& numbers);

// Appends the three arguments that the steps of a layer without a sum have for it: the name, the numbers and the algorithm.
void append_activation(const Activation& activation, torch::jit::Graph& graph, std::vector<torch::jit::Value*>& arguments);

}  // namespace bnfold
