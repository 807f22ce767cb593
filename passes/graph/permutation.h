// The permutation of dimensions that an operator makes.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace bnfold {

// Dimension i of what permute, transpose or t makes is dimension order[i] of its input, which has `rank` dimensions. Nothing where its arguments are no
// constants; where they fit no value of that rank, no permutation of 0 to rank - 1.
std::optional<std::vector<int64_t>> permutation_of(const torch::jit::Node* node, int64_t rank);

bool is_permutation(const std::vector<int64_t>& order, int64_t rank);

}  // namespace bnfold
