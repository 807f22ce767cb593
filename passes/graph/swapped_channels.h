// An affine of each channel behind the transposition that makes channels of what a linear layer has last, whatever the rank of its value.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <algorithm>

#include "algebra/affine.h"
#include "graph/constants.h"

namespace bnfold {

// Whether `node` is linear(x).transpose(1, -1), and the affine of its output has a scale and a shift for each channel.
inline bool swaps_channels_of_linear(const torch::jit::Node* node, const algebra::Affine& affine) {
  if (affine.rank() < 2 || !affine.varies_only_along(1)) return false;
  if (node->kind() != torch::jit::aten::transpose) return false;
  const auto one = constant_int(node->input(1)).value_or(0);
  const auto other = constant_int(node->input(2)).value_or(0);
  return std::min(one, other) == -1 && std::max(one, other) == 1 && node->input(0)->node()->kind() == torch::jit::aten::linear;
}

}  // namespace bnfold
