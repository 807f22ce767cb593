// The transposition that makes channels of what a linear layer has last, whatever the rank of its value.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <algorithm>

#include "graph/constants.h"

namespace bnfold {

// Whether `node` is linear(x).transpose(1, -1).
inline bool swaps_channels_of_linear(const torch::jit::Node* node) {
  if (node->kind() != torch::jit::aten::transpose) return false;
  const auto one = constant_int(node->input(1)).value_or(0);
  const auto other = constant_int(node->input(2)).value_or(0);
  return std::min(one, other) == -1 && std::max(one, other) == 1 && node->input(0)->node()->kind() == torch::jit::aten::linear;
}

}  // namespace bnfold
