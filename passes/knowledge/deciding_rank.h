// Conditions that ask for the rank of a value: if x.dim() == 3.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <optional>

namespace bnfold {

struct DecidingRank {
  const torch::jit::Value* value;
  int64_t rank;
  bool takes_first;  // whether this rank takes the first branch, and every other one the second, or the other way round
};

// What decides the prim::If `node`; nothing where it is not the rank of a value.
std::optional<DecidingRank> deciding_rank(const torch::jit::Node* node);

}  // namespace bnfold
