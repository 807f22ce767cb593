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

}  // namespace bnfold
