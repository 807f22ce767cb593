// Over which dimensions a mean or sum goes.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace bnfold {

struct Reduction {
  std::vector<int64_t> dimensions;  // ascending, counted from the front
  bool keeps;                       // they stay, with one element
};

// That of a node which reduces a value of rank `rank`; nothing where it is computed, where it names no dimension, or where the rank would have to be
// known and is not.
std::optional<Reduction> reduction_of(const torch::jit::Node* node, std::optional<int64_t> rank);

}  // namespace bnfold
